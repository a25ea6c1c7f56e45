"""Numbers, names and types of the regions, in the three sequences that speak of them."""

from collections import Counter
from collections.abc import Iterable, Iterator

from appliance.dicom.findings import Finding, Severity, error, note
from appliance.dicom.rules.examination import Examination
from appliance.dicom.rules.identity import printable

USUAL_NAME = 16  #: characters of a name that every planning system keeps
LONGEST_NAME = 64  #: characters of a long string (PS3.5 §6.2)
_LISTED = 8  #: how many names a sentence lists


def numbers_agree(exam: Examination) -> Iterator[Finding]:
    """The three sequences speak of the same regions, each once (PS3.3 §C.8.8.5, §C.8.8.6, §C.8.8.8)."""
    written = exam.written
    numbers = [roi.number for roi in written.rois]
    lists = {
        "StructureSetROISequence": numbers,
        "ROIContourSequence": [one.number for one in written.roi_contours],
        "RTROIObservationsSequence": [one.number for one in written.observations],
    }
    for sequence, listed in lists.items():
        if None in listed:
            yield error("roi_number_missing", f"an item of {sequence} has no ROI number; number it")
        doubled = [number for number, count in Counter(listed).items() if count > 1 and number is not None]
        if doubled and sequence == "RTROIObservationsSequence":  # the standard allows several for one region
            yield exam.graver("roi_number_doubled", f"{sequence} has {_numbers(doubled)} twice", else_=Severity.NOTE)
        elif doubled:
            yield error("roi_number_doubled", f"{sequence} has {_numbers(doubled)} twice; number each structure once")
        dangling = [number for number in dict.fromkeys(listed) if number is not None and number not in numbers]
        if dangling:
            yield error("roi_number_dangling", f"{sequence} has {_numbers(dangling)}, which no structure has")
        lacking = [number for number in dict.fromkeys(numbers) if number is not None and number not in listed]
        if lacking:
            sentence = f"{sequence} lacks {_numbers(lacking)}; some planning systems drop such structures"
            yield exam.graver("roi_incomplete", sentence)


def names_are_usable(exam: Examination) -> Iterator[Finding]:
    """Names are there, short, free of spaces around, and differ by more than case."""
    limit = exam.planning_system.max_name_length if exam.own else USUAL_NAME
    for region in exam.regions:
        name = region.roi.name
        if not name.strip():
            yield error("name_empty", f"ROI number {region.roi.number} has no name; name it", region.name)
        elif len(name) > LONGEST_NAME:
            yield error("name_long", f"its name is longer than {LONGEST_NAME} characters; shorten it", region.name)
        elif len(name) > limit:
            sentence = f"its name is longer than {limit} characters; some planning systems cut it off, so shorten it"
            yield exam.graver("name_long", sentence, region.name)
        if name.strip() and name != name.strip():
            yield exam.graver("name_spaces", "its name begins or ends with a space; remove it", region.name)
    yield from _doubled_names(exam)


def _doubled_names(exam: Examination) -> Iterator[Finding]:
    plain = [roi.name.strip() for roi in exam.written.rois if roi.name.strip()]
    for name, count in Counter(plain).items():
        if count > 1:
            yield error("name_doubled", f"{count} structures have this name; rename all but one", printable(name))
    folded = Counter(name.casefold() for name in set(plain))
    for name in dict.fromkeys(plain):
        if folded[name.casefold()] > 1:
            sentence = "another structure's name differs in upper and lower case only; rename one of them"
            yield exam.graver("name_doubled", sentence, printable(name))


def names_are_known(exam: Examination) -> Iterator[Finding]:
    """Names are TG-263 names that this site knows."""
    strangers = [region.name for region in exam.regions if region.name not in exam.rois]
    if exam.rois and strangers:
        sentence = f"not in rois.toml: {_list(strangers)}; rename them, or add them if they are TG-263 names"
        yield note("name_unknown", sentence)


def types_are_plain(exam: Examination) -> Iterator[Finding]:
    """Each region says what it stands for, and at most one is the external contour (PS3.3 §C.8.8.8.1)."""
    external = [region.name for region in exam.regions if region.kind == "EXTERNAL"]
    if len(external) > 1:
        sentence = f"{len(external)} structures are of type EXTERNAL ({_list(external)}); a plan can have one"
        yield error("external_doubled", sentence)
    untyped = [one.name for one in exam.regions if one.observation is not None and not one.observation.interpreted_type]
    if untyped:
        sentence = f"without RT ROI Interpreted Type: {_list(untyped)}; planning systems then choose one"
        yield exam.graver("type_empty", sentence, else_=Severity.NOTE)
    if exam.own and any(roi.algorithm != "AUTOMATIC" for roi in exam.written.rois):
        yield error("algorithm", "a region does not say that it was drawn automatically")


def relations_lead_somewhere(exam: Examination) -> Iterator[Finding]:
    """What a region was derived from is in the file."""
    numbers = {roi.number for roi in exam.written.rois}
    for region in exam.regions:
        if region.observation is not None and set(region.observation.related) - numbers:
            sentence = "it is related to a structure that is not in the file; export that one as well"
            yield exam.graver("relation_dangling", sentence, region.name)


def _numbers(numbers: Iterable[int | None]) -> str:
    return f"ROI number {_list([str(number) for number in numbers])}"


def _list(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown
