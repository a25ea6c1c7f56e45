"""An archive on loopback that can be asked and fetched from (Study Root), and misbehaves when told to."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom import DataElement, Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from appliance.intake.negotiation import TRANSFER_SYNTAXES
from tests.support.free_ports import free_port

HANG_S = 30.0
_LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


@dataclass
class Behaviour:
    """What the archive does wrong."""

    tells_count: bool = True  #: Number of Series Related Instances is in its answers
    told_count: int | None = None  #: this number instead of the true one
    knows_images: bool = True  #: answers at IMAGE level
    find_status: int = 0x0000  #: answers C-FIND with this failure
    hangs: bool = False  #: says nothing to C-FIND until it is stopped
    drops: Callable[[str], bool] = field(default=lambda _uid: False)  #: SOP Instance UIDs that C-GET and C-MOVE omit
    counts_in: bytes | None = None  #: these bytes for its number of instances, whatever they are
    fails: Callable[[str], bool] = field(default=lambda _uid: False)  #: SOP Instance UIDs that it cannot send
    ignores: set[str] = field(default_factory=set)  #: keywords that do not limit what it answers
    endless: bool = False  #: never stops answering C-FIND


class FakeArchive:
    """The archive; `files` are what it holds."""

    def __init__(self, files: Iterable[Path] = (), ae_title: str = "ARCHIVE") -> None:
        self.ae_title, self.port = ae_title, free_port()
        self.files: dict[str, Path] = {}
        self.behaviour = Behaviour()
        self.destinations: dict[str, int] = {}  #: AE titles that it can move to, with their ports on loopback
        self.asked: list[tuple[str, str]] = []  #: (C-FIND, C-GET or C-MOVE; level) in order
        self.sent: list[str] = []  #: SOP Instance UIDs that were fetched
        self._stopping = threading.Event()
        self._server: ThreadedAssociationServer | None = None
        self.hold(files)

    def hold(self, files: Iterable[Path]) -> None:
        """Keep these as well."""
        for path in files:
            self.files[str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path

    def peer(self, **changes: Any) -> dict[str, Any]:
        """Its entry for peers.toml."""
        return {"ae_title": self.ae_title, "host": "127.0.0.1", "port": self.port, "query": True, **changes}

    def __enter__(self) -> Self:
        self._stopping.clear()
        ae = AE(ae_title=self.ae_title)
        for model in (
            Verification,
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelGet,
            StudyRootQueryRetrieveInformationModelMove,
        ):
            ae.add_supported_context(model)
        ae.add_supported_context(CTImageStorage, list(TRANSFER_SYNTAXES), scu_role=False, scp_role=True)
        for syntax in TRANSFER_SYNTAXES:
            ae.add_requested_context(CTImageStorage, syntax)
        handlers = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get), (evt.EVT_C_MOVE, self._move)]
        self._server = ae.make_server(
            ("127.0.0.1", self.port), evt_handlers=handlers, server_class=ThreadedAssociationServer
        )
        quickly = {"poll_interval": 0.02}
        threading.Thread(target=self._server.serve_forever, kwargs=quickly, daemon=True).start()
        ae._servers.append(self._server)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._stopping.set()
        assert self._server is not None
        self._server.shutdown()

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        question = event.identifier
        self.asked.append(("C-FIND", question.QueryRetrieveLevel))
        if self.behaviour.hangs:
            self._stopping.wait(HANG_S)
        if self.behaviour.find_status:
            yield self.behaviour.find_status, None
            return
        if question.QueryRetrieveLevel == "IMAGE" and not self.behaviour.knows_images:
            yield 0xA900, None
            return
        answers = list(self._answers(question))
        while self.behaviour.endless and not self._stopping.is_set():
            yield 0xFF00, answers[0]
        for answer in answers:
            yield 0xFF00, answer

    def _answers(self, question: Dataset) -> Iterator[Dataset]:
        key = _LEVELS[question.QueryRetrieveLevel]
        held = [dcmread(path, stop_before_pixels=True) for path in self.files.values()]
        sizes = Counter(str(one[key].value) for one in held)
        limits = Dataset()
        limits.update({element.tag: element for element in question if element.keyword not in self.behaviour.ignores})
        for one in {str(each[key].value): each for each in held if _matches(each, limits)}.values():
            answer = Dataset()
            answer.QueryRetrieveLevel = question.QueryRetrieveLevel
            for element in question:
                if element.keyword in one and element.keyword != "QueryRetrieveLevel":
                    answer.add(one[element.keyword])
            if "NumberOfSeriesRelatedInstances" in question and self.behaviour.tells_count:
                told = self.behaviour.told_count
                answer.NumberOfSeriesRelatedInstances = sizes[str(one[key].value)] if told is None else told
            if self.behaviour.counts_in is not None:
                raw = self.behaviour.counts_in
                answer["NumberOfSeriesRelatedInstances"] = DataElement("NumberOfSeriesRelatedInstances", "OB", raw)
            yield answer

    def _get(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append(("C-GET", event.identifier.QueryRetrieveLevel))
        yield from self._send(event.identifier)

    def _move(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append(("C-MOVE", event.identifier.QueryRetrieveLevel))
        port = self.destinations.get(event.move_destination)
        if port is None:
            yield None, None
            return
        yield "127.0.0.1", port, {"ae_title": event.move_destination}
        yield from self._send(event.identifier)

    def _send(self, question: Dataset) -> Iterator[Any]:
        wanted = [
            (uid, path)
            for uid, path in self.files.items()
            if _matches(dcmread(path, stop_before_pixels=True), question) and not self.behaviour.drops(uid)
        ]
        yield len(wanted)
        for uid, path in wanted:
            self.sent.append(uid)
            sent = dcmread(path)
            if self.behaviour.fails(uid):
                sent.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"  # MR: nobody has agreed to take that
            yield 0xFF00, sent


def _matches(held: Dataset, question: Dataset) -> bool:
    """PS3.4 C.2.2.2: single values, wildcards, lists of UIDs and ranges of dates; empty matches everything."""
    for element in question:
        wanted = element.value
        if element.keyword in {"QueryRetrieveLevel", "NumberOfSeriesRelatedInstances"} or wanted in (None, ""):
            continue
        value = str(held.get(element.keyword, ""))
        if element.keyword == "ModalitiesInStudy":
            value = str(held.Modality)
        if element.VR == "DA" and "-" in str(wanted):
            begin, _, end = str(wanted).partition("-")
            if not (begin or "0") <= value <= (end or "9"):
                return False
        elif element.VR == "UI":
            if value not in ([str(wanted)] if isinstance(wanted, str) else [str(one) for one in wanted]):
                return False
        elif not fnmatchcase(value, str(wanted)):
            return False
    return True
