"""Asking a PACS what it has: C-FIND of Study Root (PS3.4 Annex C.4.1), with limits on time and on answers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRootFind  # type: ignore[attr-defined]

from appliance.clock import monotonic_s
from appliance.dicom.ct_slice import CT_IMAGE_STORAGE
from appliance.dicom.header import decode_text
from appliance.dicom.uid import is_valid_uid
from appliance.intake.calling import PLAIN, NoAnswer, Request, association, status_words
from appliance.settings import Peer, Settings

MOST_ANSWERS = 20_000
"""More matches than this are no answer to any question of ours."""

_COUNT = re.compile(rb"[0-9]{1,6}")
_SINGLE_VALUES = frozenset({"PatientID", "AccessionNumber", "StudyInstanceUID"})
_PENDING = (0xFF00, 0xFF01)
_PATIENCE = 4.0
"""A question must be answered to the end within this many times the longest silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundStudy:
    """A study at the PACS, as far as it tells. Texts that it does not tell are empty."""

    study_instance_uid: str
    study_description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSeries:
    """A series at the PACS, as far as it tells. Texts that it does not tell are empty.

    Attributes:
        instances: Number of Series Related Instances; None when the PACS does not tell it.
    """

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    study_description: str
    series_description: str
    body_part: str
    instances: int | None


def find_studies(settings: Settings, peer: Peer, keys: Mapping[str, str]) -> list[FoundStudy]:
    """The studies that match `keys` (by keyword, such as PatientID).

    A PACS that ignores a key answers with more than was asked for, so single values are compared again here: studies
    of another patient are never taken for the one that was asked for.

    Raises:
        NoAnswer: the PACS cannot be asked, or broke off.
    """
    wanted = {"StudyInstanceUID": "", "StudyDescription": "", "ModalitiesInStudy": "", **keys}
    exact = {keyword: value for keyword, value in keys.items() if keyword in _SINGLE_VALUES}
    with _asking(settings, peer) as made:
        return [
            FoundStudy(study_instance_uid=uid, study_description=_text(one, "StudyDescription"))
            for one in _matches(made, settings, "STUDY", wanted)
            if is_valid_uid(uid := _text(one, "StudyInstanceUID"))
            and all(_text(one, keyword) == value for keyword, value in exact.items())
        ]


def find_series(settings: Settings, peer: Peer, study: FoundStudy, series_uid: str = "") -> list[FoundSeries]:
    """The CT series of a study, or the one of this UID.

    Args:
        settings: of this box.
        peer: who is asked.
        study: whose series; without a UID, the PACS has to find the series alone (a relational query).
        series_uid: Series Instance UID; empty for all.

    Raises:
        NoAnswer: the PACS cannot be asked, or broke off.
    """
    wanted = {
        "StudyInstanceUID": study.study_instance_uid,
        "SeriesInstanceUID": series_uid,
        "Modality": "" if series_uid else "CT",
        "SeriesDescription": "",
        "BodyPartExamined": "",
        "NumberOfSeriesRelatedInstances": "",
    }
    with _asking(settings, peer) as made:
        found = [_series(one, study) for one in _matches(made, settings, "SERIES", wanted)]
    return [
        one
        for one in found
        if is_valid_uid(one.series_instance_uid)
        and is_valid_uid(one.study_instance_uid)
        and series_uid in {"", one.series_instance_uid}
    ]


def _series(answer: Dataset, study: FoundStudy) -> FoundSeries:
    return FoundSeries(
        study_instance_uid=study.study_instance_uid or _text(answer, "StudyInstanceUID"),
        series_instance_uid=_text(answer, "SeriesInstanceUID"),
        modality=_text(answer, "Modality"),
        study_description=study.study_description or _text(answer, "StudyDescription"),
        series_description=_text(answer, "SeriesDescription"),
        body_part=_text(answer, "BodyPartExamined"),
        instances=_number(answer, "NumberOfSeriesRelatedInstances"),
    )


def find_images(settings: Settings, peer: Peer, study_uid: str, series_uid: str) -> set[str]:
    """SOP Instance UIDs of the CT images of a series; of those whose class the PACS does not tell, all.

    Raises:
        NoAnswer: the PACS cannot be asked, or broke off.
    """
    wanted = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": "", "SOPClassUID": ""}
    with _asking(settings, peer) as made:
        return {
            uid
            for one in _matches(made, settings, "IMAGE", wanted)
            if is_valid_uid(uid := _text(one, "SOPInstanceUID"))
            and _text(one, "SOPClassUID") in {"", CT_IMAGE_STORAGE}
            and _text(one, "SeriesInstanceUID") in {"", series_uid}
        }


def count_slices(settings: Settings, peer: Peer, study_uid: str, series_uid: str, here: int) -> int:
    """How many CT images of a series the PACS has.

    It is asked for Number of Series Related Instances. Where it does not tell that, or tells more than are here, its
    images are counted one by one: other objects of the series, which cannot come, do not count.

    Args:
        settings: of this box.
        peer: who is asked.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        here: how many there are here.

    Raises:
        NoAnswer: it cannot be asked, broke off, or does not know the series.
    """
    study = FoundStudy(study_instance_uid=study_uid, study_description="")
    series = find_series(settings, peer, study, series_uid)
    told = series[0].instances if series else None
    if told is not None and 0 < told <= here:
        return told
    try:
        counted = len(find_images(settings, peer, study_uid, series_uid))
    except NoAnswer:
        counted = 0
        if not told:
            raise
    if counted or told:
        return counted or int(told or 0)
    raise NoAnswer("it does not know the series")


def _asking(settings: Settings, peer: Peer) -> Any:
    return association(settings, peer, Request([(StudyRootFind, PLAIN)], settings.query.timeout_s))


def _matches(made: Association, settings: Settings, level: str, keys: Mapping[str, str]) -> Iterator[Dataset]:
    """Each match as it comes; the generator must be read to its end, or it ends the association."""
    question = Dataset()
    question.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(question, keyword, value)
    deadline_s = monotonic_s() + _PATIENCE * settings.query.timeout_s
    try:
        for count, (status, answer) in enumerate(made.send_c_find(question, StudyRootFind)):
            code = status.get("Status")
            if code == 0x0000:
                return
            if code not in _PENDING:
                raise NoAnswer(f"C-FIND was answered {status_words(code)}")
            if count >= MOST_ANSWERS:
                raise NoAnswer(f"it gave more than {MOST_ANSWERS} answers; ask for less")
            if monotonic_s() > deadline_s:
                raise NoAnswer(f"it was not done after {_PATIENCE * settings.query.timeout_s:g} s")
            if answer is not None:
                yield answer
    except (RuntimeError, ValueError) as broken:
        raise NoAnswer(f"the association broke while asking ({broken})") from broken


def _raw(answer: Dataset, keyword: str) -> bytes:
    """The bytes of a value as the PACS wrote them: pydicom would quote nonsense in a warning, and may stumble on it."""
    element = answer.get_item(keyword)
    value = element.value if element is not None else None
    return value.strip(b" \0") if isinstance(value, bytes) else b""


def _text(answer: Dataset, keyword: str) -> str:
    """A value in the character set of the answer; empty when it is absent."""
    return decode_text(_raw(answer, keyword), _raw(answer, "SpecificCharacterSet"))


def _number(answer: Dataset, keyword: str) -> int | None:
    """A count; None when it is absent, or no number that a series could have."""
    written = _raw(answer, keyword)
    return int(written) if _COUNT.fullmatch(written) else None
