"""Asking a PACS by C-FIND what it has (PS3.4 Annex C, Study Root): whether a result is there, and which series are."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from appliance.delivery.store_scu import UNCOMPRESSED, Caller, NeverDeliverable, NotDelivered
from appliance.settings import Peer

MOST_ANSWERS = 20_000
"""More answers to one question than this are not believed."""

_PENDING = (0xFF00, 0xFF01)


class LevelNotAnswered(NotDelivered):
    """The peer answers C-FIND, but not such a question."""


class Inquiry:
    """Questions to one PACS on one association."""

    def __init__(self, association: Association) -> None:
        self._association = association

    def find(self, level: str, **keys: str) -> list[Dataset]:
        """What matches the keys; those that are empty are only asked back.

        Raises:
            LevelNotAnswered: it refuses the question.
            NotDelivered: the association broke, or there is no end of answers.
        """
        question = Dataset()
        question.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(question, keyword, value)
        found: list[Dataset] = []
        try:
            for status, answer in self._association.send_c_find(question, StudyRootQueryRetrieveInformationModelFind):
                code = status.get("Status")
                if code is None:
                    raise NotDelivered("it broke off while answering C-FIND, or took longer than the time limit")
                if code in _PENDING and answer is not None and len(found) < MOST_ANSWERS:
                    found.append(answer)
                elif code in _PENDING:
                    raise NotDelivered("its answers to C-FIND have no end, or cannot be read")
                elif code != 0x0000:
                    raise LevelNotAnswered(f"C-FIND at level {level} was answered 0x{code:04X}")
        except (RuntimeError, ValueError) as error:
            raise NotDelivered(f"the association broke during C-FIND ({error})") from error
        return found

    def has(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> bool:
        """Whether one object is there: by its own UID, or by its series where a PACS answers for series alone.

        Raises:
            NotDelivered: it cannot be asked now.
        """
        place = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        try:
            answers = self.find("IMAGE", **place, SOPInstanceUID=sop_instance_uid)
        except LevelNotAnswered:
            return any(str(one.get("SeriesInstanceUID", "")) == series_uid for one in self.find("SERIES", **place))
        return any(str(one.get("SOPInstanceUID", "")) == sop_instance_uid for one in answers)

    def series_since(self, first_day: date) -> Iterator[tuple[Dataset, Dataset]]:
        """Every CT series of studies since a day: what is said of the study, and of the series.

        Raises:
            NotDelivered: it cannot be asked now.
        """
        asked_back = dict.fromkeys(("StudyInstanceUID", "StudyDescription", "PatientID", "AccessionNumber"), "")
        since = f"{first_day:%Y%m%d}-"
        for study in self.find("STUDY", StudyDate=since, ModalitiesInStudy="CT", **asked_back):
            wanted = dict.fromkeys(("SeriesInstanceUID", "SeriesDescription", "BodyPartExamined"), "")
            uid = str(study.get("StudyInstanceUID", ""))
            for series in self.find("SERIES", StudyInstanceUID=uid, Modality="CT", **wanted):
                if series.get("Modality", "CT") == "CT":
                    yield study, series


@contextmanager
def inquiring(caller: Caller, peer: Peer) -> Iterator[Inquiry]:
    """An association on which a PACS is asked.

    Raises:
        NotDelivered: it is away, or answers no C-FIND at all.
    """
    ae = caller.application_entity()
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind, UNCOMPRESSED)
    try:
        association = caller.associate(ae, peer)
    except NeverDeliverable as problem:
        raise NotDelivered("it does not answer C-FIND; turn query off in peers.toml") from problem
    try:
        yield Inquiry(association)
    finally:
        if association.is_established:
            association.release()
