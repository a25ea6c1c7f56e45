"""What `delineate fetch` asks and says."""

from appliance.dicom.uid import is_valid_uid
from appliance.errors import SettingsError
from appliance.intake.finding import FoundSeries


def question_keys(*, patient: str, accession: str, study: str, series: str) -> dict[str, str]:
    """The keys of the STUDY level for what was asked on the command line; empty where only a series is named.

    Raises:
        SettingsError: nothing is named, a UID is none, or a value would match more than one thing.
    """
    if not any((patient, accession, study, series)):
        raise SettingsError("say what to fetch: --patient, --accession, --study or --series")
    for option, uid in (("--study", study), ("--series", series)):
        if uid and not is_valid_uid(uid):
            raise SettingsError(f"{option} takes a UID: digits and dots, 64 at most")
    for option, value in (("--patient", patient), ("--accession", accession)):
        if any(character in value for character in "*?\\") or not value.isascii() or not (value.isprintable()):
            raise SettingsError(f"{option} takes one whole value in plain characters, without * ? and backslash")
    keys = {"PatientID": patient, "AccessionNumber": accession, "StudyInstanceUID": study}
    return {keyword: value.strip() for keyword, value in keys.items() if value.strip()}


def series_words(series: FoundSeries) -> str:
    """A series in a line: what it is called, and how many images the PACS says it has."""
    called = " / ".join(filter(None, (series.study_description, series.series_description))) or "no description"
    count = "an unknown number of" if series.instances is None else str(series.instances)
    printable = "".join(filter(str.isprintable, called))
    return f"Series …{series.series_instance_uid[-12:]} ({printable}), {count} objects"
