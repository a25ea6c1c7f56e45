"""Fetching CT images from a PACS: by C-GET on our own association, or by C-MOVE to our listener (PS3.4 Annex C.4).

What C-GET brings is made durable before it is answered, as what the listener takes, and lies in the same queue.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from appliance.dicom.uid import is_valid_uid
from appliance.intake.calling import PLAIN, NoAnswer, Request, association, status_words
from appliance.intake.negotiation import TRANSFER_SYNTAXES
from appliance.intake.storage import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS
from appliance.settings import Peer, Settings
from appliance.spool import Spool
from appliance.spool.file_meta import file_meta

UIDS_AT_ONCE = 100
"""SOP Instance UIDs in one request: each is up to 64 bytes, and some archives take no long lists."""

_PENDING = 0xFF00


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fetched: a whole series, or some images of it.

    Attributes:
        sop_instance_uids: empty for the whole series.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...] = ()

    def questions(self) -> Iterable[Dataset]:
        """Identifiers of the requests, at the lowest level that is needed."""
        uids = self.sop_instance_uids
        for begin in range(0, max(1, len(uids)), UIDS_AT_ONCE):
            question = Dataset()
            question.QueryRetrieveLevel = "IMAGE" if uids else "SERIES"
            question.StudyInstanceUID, question.SeriesInstanceUID = self.study_instance_uid, self.series_instance_uid
            if uids:
                question.SOPInstanceUID = list(uids[begin : begin + UIDS_AT_ONCE])
            yield question


@dataclass(slots=True)
class Fetched:
    """What came of a request.

    Attributes:
        sent: sub-operations that the PACS says have gone well.
        failed: those that it says have not.
        kept: objects that were made durable here; those of C-MOVE come to the listener, and are not counted.
        problem: why there is less than was asked for, in words; empty when all is well.
    """

    sent: int = 0
    failed: int = 0
    kept: int = 0
    problem: str = ""

    @property
    def came(self) -> int:
        """Objects that came, or that the PACS says it has sent to the listener."""
        return max(self.sent, self.kept)


def retrieve(
    settings: Settings, spool: Spool, peer: Peer, wanted: Wanted, on_object: Callable[[int], None] = lambda _count: None
) -> Fetched:
    """Fetch what is wanted, in the way that the peer's settings say.

    Args:
        settings: of this box.
        spool: where C-GET puts what comes.
        peer: whom to fetch from.
        wanted: what.
        on_object: told how many objects have come or gone so far.

    Raises:
        NoAnswer: the PACS cannot be asked, or broke off; what came before that is kept.
    """
    fetched = Fetched()
    contexts: list[tuple[UID, list[str | UID]]] = []
    if peer.retrieve == "move":
        model, roles = StudyRootQueryRetrieveInformationModelMove, []
    else:
        model, roles = StudyRootQueryRetrieveInformationModelGet, [build_role(CTImageStorage, scp_role=True)]
        # a context for each transfer syntax: in one context the PACS would have to choose one for all images
        contexts = [(CTImageStorage, [syntax]) for syntax in TRANSFER_SYNTAXES]
    keeper = _Keeper(settings, spool, peer, fetched, on_object)
    request = Request(
        [(model, PLAIN), *contexts], settings.query.retrieve_timeout_s, roles, [(evt.EVT_C_STORE, keeper.keep)]
    )
    with association(settings, peer, request) as made:
        for question in wanted.questions():
            if peer.retrieve == "move":
                answers = made.send_c_move(question, settings.intake.ae_title, model)
            else:
                answers = made.send_c_get(question, model)
            try:
                _follow(answers, fetched, on_object if peer.retrieve == "move" else lambda _count: None)
            except (RuntimeError, ValueError) as broken:
                raise NoAnswer(f"the association broke while fetching ({broken})") from broken
    return fetched


def _follow(answers: Iterable[tuple[Dataset, Dataset | None]], fetched: Fetched, tell: Callable[[int], None]) -> None:
    """Read the answers to one request to their end, and count."""
    sent_before, failed_before = fetched.sent, fetched.failed
    for status, _ in answers:
        code = status.get("Status")
        done, failed = (_number(status, f"NumberOf{which}Suboperations") for which in ("Completed", "Failed"))
        fetched.sent = sent_before + max(done, fetched.sent - sent_before)
        fetched.failed = failed_before + max(failed, fetched.failed - failed_before)
        tell(fetched.sent)
        if code == _PENDING:
            continue
        if code in {SUCCESS, 0xB000}:
            if fetched.failed > failed_before:
                fetched.problem = fetched.problem or f"{fetched.failed} objects could not be sent"
            return
        raise NoAnswer(fetched.problem or f"the request was answered {status_words(code)}")


def _number(status: Dataset, keyword: str) -> int:
    value = status.get(keyword)
    return value if isinstance(value, int) else 0


@dataclass(frozen=True, slots=True)
class _Keeper:
    """Takes what C-GET brings, as the listener does; the sender is the PACS."""

    settings: Settings
    spool: Spool
    peer: Peer
    fetched: Fetched
    on_object: Callable[[int], None]

    def keep(self, event: evt.Event) -> int:
        """Make the object durable, then answer."""
        request = cast(C_STORE, event.request)
        uid = str(request.AffectedSOPInstanceUID or "")
        if not is_valid_uid(uid):
            self.fetched.problem = "an object with an invalid SOP Instance UID was not taken"
            return CANNOT_UNDERSTAND
        if self.spool.free_mb() < self.settings.intake.free_space_reserve_mb:
            self.fetched.problem = "the spool has less free space than its reserve; free some and fetch again"
            return OUT_OF_RESOURCES
        syntax = str(event.context.transfer_syntax)
        title = self.settings.intake.ae_title
        meta = file_meta(str(request.AffectedSOPClassUID), uid, syntax, self.peer.ae_title, title)
        try:
            self.spool.keep(meta, event.encoded_dataset(include_meta=False))
        except OSError as error:
            self.fetched.problem = f"the spool could not keep an object ({error.strerror}); fetch again"
            return OUT_OF_RESOURCES
        self.fetched.kept += 1
        self.on_object(self.fetched.kept)
        return SUCCESS
