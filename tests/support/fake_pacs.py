"""A PACS on loopback that does what its script says: a real DICOM node, with real faults.

Without a script it stores what it is sent and, when asked, commits to it on an association of its own.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.sequence import Sequence
from pydicom.uid import RTStructureSetStorage, SegmentationStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from appliance.settings import Peer
from appliance.settings.tls import calling_context, listening_context
from tests.support.certificates import Holder
from tests.support.free_ports import free_port

Answer = Callable[["FakePacs", evt.Event], int]
HANG_S = 30.0


def store(pacs: "FakePacs", event: evt.Event) -> int:
    """Keep the object and say so."""
    pacs.keep(event)
    return 0x0000


def forget(pacs: "FakePacs", event: evt.Event) -> int:  # noqa: ARG001
    """Say success, keep nothing."""
    return 0x0000


def status(code: int) -> Answer:
    """Keep nothing and answer with this status; warnings (0xBnnn) keep the object."""

    def answer(pacs: "FakePacs", event: evt.Event) -> int:
        if code >> 12 == 0xB:
            pacs.keep(event)
        return code

    return answer


def abort(pacs: "FakePacs", event: evt.Event) -> int:  # noqa: ARG001
    """Break the association off in the middle of the object's life."""
    event.assoc.abort()
    return 0x0110


def hang(pacs: "FakePacs", event: evt.Event) -> int:  # noqa: ARG001
    """Say nothing until the PACS is stopped."""
    pacs.stopping.wait(HANG_S)
    return 0x0110


def forgetting_one_in(number: int) -> Answer:
    """Say success every time, and keep all but every so manieth object."""
    count = 0

    def answer(pacs: "FakePacs", event: evt.Event) -> int:
        nonlocal count
        count += 1
        return (forget if count % number == 0 else store)(pacs, event)

    return answer


class Commitment(StrEnum):
    """How the PACS deals with a request for storage commitment."""

    ON_ITS_OWN = auto()  #: reports on an association that it opens
    AT_ONCE = auto()  #: reports on the association of the request, right after answering it
    DENIED = auto()  #: reports that it does not keep what was asked for
    SILENT = auto()  #: accepts the request and never reports
    FAILING = auto()  #: answers the request with a failure
    ABSENT = auto()  #: does not know the service at all


@dataclass(frozen=True)
class Asked:
    """One request for commitment."""

    transaction_uid: str
    sop_instance_uids: tuple[str, ...]


_LEVEL_KEYS = {
    "STUDY": ("StudyDate",),
    "SERIES": ("StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}


def _fits(candidate: Dataset, question: Dataset, keyword: str) -> bool:
    wanted, there = str(question.get(keyword, "")), str(candidate.get(keyword, ""))
    if keyword == "StudyDate" and wanted:
        first, _, last = wanted.partition("-")
        return first <= there <= (last or there)
    return not wanted or wanted == there


class FakePacs:
    """The PACS; `script` is consumed one answer for each C-STORE, then it stores."""

    def __init__(
        self,
        ae_title: str = "FAKEPACS",
        *,
        commitment: Commitment = Commitment.ON_ITS_OWN,
        appliance: tuple[str, int] | None = None,
        tls: Holder | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.port = free_port()
        self.commitment = commitment
        self.appliance = appliance  #: AE title and port to report to
        self.tls = tls  #: its certificate, where it speaks TLS alone
        self.known_callers: list[str] = []  #: nobody else may associate; everybody may when empty
        self.takes_structure_sets = True
        self.takes_segmentations = True
        self.answers_find = True
        self.finds_images = True  #: answers C-FIND at the level of images as well
        self.hold_answers: Callable[[], object] = lambda: None  #: called before it answers C-FIND
        self.scans: list[Dataset] = []  #: CT series that it says it has: headers with the keys of C-FIND
        self.script: deque[Answer] = deque()
        self.usually: Answer = store  #: once the script is over
        self.received: list[str] = []  #: SOP Instance UIDs in order, kept or not
        self.stored: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.reports: list[tuple[int, Dataset]] = []  #: event type and content of reports about what it asked
        self.found: list[str] = []  #: levels of the questions that came by C-FIND
        self.associations = 0
        self.stopping = threading.Event()
        self._server: ThreadedAssociationServer | None = None
        self._reports: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    def peer(self, **changes: Any) -> dict[str, Any]:
        """Its entry for peers.toml."""
        entry = {"ae_title": self.ae_title, "host": "127.0.0.1", "port": self.port, "storage_commitment": False}
        over_tls = {} if self.tls is None else {"tls": True, "certificate": self.tls.fingerprint}
        return {**entry, **over_tls, **changes}

    def play(self, answers: Iterable[Answer]) -> None:
        """Do this with the next objects."""
        self.script.extend(answers)

    def start(self) -> None:
        """Come up, on the same port as ever."""
        self.stopping.clear()
        ae = AE(ae_title=self.ae_title)
        ae.require_calling_aet = self.known_callers
        ae.add_supported_context(Verification)
        if self.takes_structure_sets:
            ae.add_supported_context(RTStructureSetStorage)
        if self.takes_segmentations:
            ae.add_supported_context(SegmentationStorage)
        if self.answers_find:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self.commitment is not Commitment.ABSENT:
            ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [
            (evt.EVT_ACCEPTED, self._count),
            (evt.EVT_C_STORE, self._answer),
            (evt.EVT_N_ACTION, self._commit),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_EVENT_REPORT, self._take_report),
        ]
        self._server = ae.make_server(
            ("127.0.0.1", self.port),
            evt_handlers=handlers,
            ssl_context=None if self.tls is None else listening_context(self.tls.files),
            server_class=ThreadedAssociationServer,
        )
        quickly = {"poll_interval": 0.02}
        threading.Thread(target=self._server.serve_forever, kwargs=quickly, daemon=True).start()
        ae._servers.append(self._server)

    def stop(self) -> None:
        """Go down."""
        self.stopping.set()
        self.finish_reports()
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def finish_reports(self) -> None:
        """Wait until every report that is on its way has been sent."""
        for report in self._reports:
            report.join()

    def structure_set(self, sop_instance_uid: str) -> Dataset:
        """What is kept under this UID."""
        return dcmread(DicomBytesIO(self.stored[sop_instance_uid]))

    def keep(self, event: evt.Event) -> None:
        """Store the object of a C-STORE."""
        self.stored[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()

    def _count(self, _event: evt.Event) -> None:
        self.associations += 1

    def _answer(self, event: evt.Event) -> int:
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        return (self.script.popleft() if self.script else self.usually)(self, event)

    def _take_report(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return 0x0000, None

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """PS3.4 Annex C, Study Root, by unique keys and dates alone: what it stored, and the scans it says it has."""
        question = event.identifier
        level = question.QueryRetrieveLevel
        self.found.append(level)
        self.hold_answers()
        if level == "IMAGE" and not self.finds_images:
            yield 0xA900, None
            return
        for candidate in self._candidates(question):
            if all(_fits(candidate, question, keyword) for keyword in _LEVEL_KEYS[level]):
                answer = Dataset()
                for element in question:
                    setattr(answer, element.keyword, candidate.get(element.keyword, ""))
                answer.QueryRetrieveLevel = level
                yield 0xFF00, answer

    def _candidates(self, question: Dataset) -> Iterator[Dataset]:
        yield from self.scans
        uid = str(question.get("SOPInstanceUID", ""))
        for stored in [self.stored[uid]] if uid in self.stored else () if uid else self.stored.values():
            yield dcmread(DicomBytesIO(stored), stop_before_pixels=True)

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        uids = tuple(str(item.ReferencedSOPInstanceUID) for item in request.ReferencedSOPSequence)
        self.asked.append(Asked(str(request.TransactionUID), uids))
        if self.commitment is Commitment.FAILING:
            return 0x0110, None
        if self.commitment is Commitment.AT_ONCE:
            self._report_in_background(self._report_on, event.assoc, request)
        elif self.commitment is not Commitment.SILENT:
            self._report_in_background(self._report_alone, request)
        return 0x0000, None

    def _report_in_background(self, target: Callable[..., None], *args: object) -> None:
        self._reports.append(threading.Thread(target=target, args=args, daemon=True))
        self._reports[-1].start()

    def _report_alone(self, request: Dataset) -> None:
        assert self.appliance is not None
        title, port = self.appliance
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        box = Peer(ae_title=title, host="127.0.0.1", port=port, tls=True)
        tls = None if self.tls is None else (calling_context(self.tls.files, box), "127.0.0.1")
        association = ae.associate("127.0.0.1", port, ae_title=title, ext_neg=[role], tls_args=tls)
        if association.is_established:
            self._report_on(association, request)
            association.release()

    def _report_on(self, association: Any, request: Dataset) -> None:
        report, kind = self.report(request)
        with suppress(RuntimeError):  # the other side was quicker to close
            association.send_n_event_report(
                report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )

    def report(self, request: Dataset) -> tuple[Dataset, int]:
        """What it says about a request, and the event type (PS3.4 Table J.3.3-1)."""
        kept, lost = [], []
        for item in request.ReferencedSOPSequence:
            denied = self.commitment is Commitment.DENIED or str(item.ReferencedSOPInstanceUID) not in self.stored
            (lost if denied else kept).append(item)
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        if kept:
            report.ReferencedSOPSequence = Sequence(kept)
        for item in lost:
            item.FailureReason = 0x0112  # no such object instance
        if lost:
            report.FailedSOPSequence = Sequence(lost)
        return report, 2 if lost else 1
