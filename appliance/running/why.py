"""Why did nothing come back? Each case of a patient, an accession number, a study or a series, told in sentences."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from appliance.casework.operating import BY_A_PERSON
from appliance.errors import Reason
from appliance.records import Transaction
from appliance.records.searches import last_event, newest_of, queued_before, seconds_of_work
from appliance.records.tables import Case, CaseState, CountSign, Delivery, DeliveryState, Proof, ResultKind
from appliance.running.advice import ADVICE
from appliance.running.showing import countdown_s, progress_words
from appliance.segmentation.pace import in_words
from appliance.settings import Settings

NOTHING = "nothing"
_A_WORKER_ANSWERS_WITHIN = timedelta(seconds=60)
_TIMED_CASES = 9


@dataclass(frozen=True, slots=True)
class Account:
    """What there is to say about one case.

    Attributes:
        happened: what has happened so far.
        next: what happens by itself.
        do: what a person can do about it.
    """

    case: int
    revision: int
    state: str
    series: str
    happened: str
    next: str
    do: str

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _View:
    """What the sentences are made of."""

    tx: Transaction
    case: Case
    settings: Settings
    now: datetime

    def at(self, instant: datetime) -> str:
        return short(instant, self.now)

    @property
    def since(self) -> str:
        return self.at(self.case.entered_state_at)


_Sentences = tuple[str, str, str]


def account_of(tx: Transaction, case: Case, settings: Settings, now: datetime) -> Account:
    """Tell about one case, as its row and its trail stand."""
    happened, coming, do = _TOLD[case.state](_View(tx, case, settings, now))
    if case.repeated_at is not None:
        happened += f"; the series was sent again at {short(case.repeated_at, now)}"
    return Account(case.id, case.revision, case.state, case.description, happened, coming, do)


def short(instant: datetime, now: datetime) -> str:
    """A time in the box's zone: the hour alone where it is of today."""
    there, here = instant.astimezone(), now.astimezone()
    return there.strftime("%H:%M" if there.date() == here.date() else "%Y-%m-%d %H:%M")


def _slices(view: _View) -> str:
    case = view.case
    peer = view.settings.completion_rules(case.foreseen_protocol, case.source_ae).peer or "PACS"
    said = f", {peer} says {case.expected_slices}" if case.expected_slices is not None else ""
    return f"{view.case.slices} slices received{said}"


def _receiving(view: _View) -> _Sentences:
    if view.case.forced_by is not None:
        by = view.case.forced_by.partition(":")[2]
        return f"{_slices(view)}; {by} asked to take them as complete", "that is done at once", NOTHING
    left_s = countdown_s(view.case, view.settings, view.now)
    waits = f"waiting {left_s:.0f} s more" if left_s > 0 else "quiet for long enough"
    coming = "without a new slice until then the series is examined" if left_s > 0 else "the series is examined now"
    if left_s <= 0 and view.case.count_wanted_at is not None:
        coming = "the PACS is being asked how many slices there are"
    return f"{_slices(view)}, {waits}", coming, _force(view)


def _incomplete(view: _View) -> _Sentences:
    left_s = countdown_s(view.case, view.settings, view.now)
    until = view.now + timedelta(seconds=left_s)
    happened = f"{_slices(view)}, waiting {left_s:.0f} s more: {view.case.sentence}"
    return happened, f"refused at {view.at(until)} if nothing comes until then", "send what is missing"


def _force(view: _View) -> str:
    return f"{NOTHING}; if no more will come, `delineate case force-complete {view.case.id}`"


def _queued(view: _View) -> _Sentences:
    case = view.case
    unsure = ", count not confirmed" if case.count_sign is CountSign.UNANSWERED else ""
    happened = f"complete with {case.slices} slices{unsure}, queued since {view.since} for {case.model}"
    if case.attempts:
        happened += f"; attempt {case.attempts} of {view.settings.worker.attempts} ended: {case.sentence}"
    before = queued_before(view.tx, case)
    place = "it is the next" if before == 0 else f"{before} {'case is' if before == 1 else 'cases are'} before it"
    wait_s = _wait_s(view, before)
    coming = place if wait_s is None else f"{place}, about {in_words(wait_s)} until it is begun"
    nobody = before == 0 and view.now - case.entered_state_at > _A_WORKER_ANSWERS_WITHIN
    return happened, coming, "if no worker takes it, `delineate doctor` says what is wrong" if nobody else NOTHING


def _wait_s(view: _View, before: int) -> float | None:
    """Seconds until a worker is free for it, judged by the last cases; None when there is nothing to judge by."""
    took_s = seconds_of_work(view.tx, _TIMED_CASES)
    if not took_s or before == 0:
        return None
    return median(took_s) * before / len(view.settings.worker.devices)


def _segmenting(view: _View) -> _Sentences:
    case = view.case
    attempt = f"attempt {case.attempts} of {view.settings.worker.attempts}"
    happened = f"a worker has it since {view.since}, {attempt}: {progress_words(case)}"
    if case.lease_until is not None and case.lease_until < view.now:
        silent = f"that worker has given no sign since {view.at(case.lease_until)}"
        return happened, f"{silent}; the case goes to another", NOTHING
    protocol = view.settings.protocols.get(case.protocol or "")
    where = ", ".join(protocol.destinations) if protocol is not None else "its destinations"
    return happened, f"the structure set is checked and sent to {where}", NOTHING


def _on_its_way(view: _View) -> _Sentences:
    happened = "; ".join(_delivery(view, one) for one in view.case.deliveries)
    if any(one.state is DeliveryState.PENDING and one.sentence for one in view.case.deliveries):
        return happened, "it is tried again by itself until it is taken", "mend what the destination says"
    return happened or "the result is made", "the destinations are asked to keep it, where they offer that", NOTHING


def _delivery(view: _View, delivery: Delivery) -> str:
    what = delivery.result.kind.in_words
    if delivery.state is DeliveryState.PENDING and delivery.sentence:
        answered = f" at {view.at(delivery.last_tried_at)}" if delivery.last_tried_at is not None else ""
        due = view.at(delivery.next_try_at)
        what = "" if delivery.result.kind is ResultKind.RTSTRUCT else f" (for the {what})"
        return f"{delivery.destination} answered{answered}{what}: {delivery.sentence}, next try {due}"
    words = {
        DeliveryState.PENDING: f"the {what} is being sent to {delivery.destination}",
        DeliveryState.ACCEPTED: f"{delivery.destination} has accepted the {what}",
        DeliveryState.COMMITTED: f"{delivery.destination} keeps the {what}{_proof(view, delivery)}",
        DeliveryState.REFUSED: f"{delivery.destination} will not take the {what}: {delivery.sentence}",
    }
    return words.get(delivery.state, f"the {what}: {delivery.state} by {delivery.destination}")


def _proof(view: _View, delivery: Delivery) -> str:
    """How that is known."""
    if delivery.proof is None or delivery.proved_at is None:
        return ""
    how = {Proof.COMMITMENT: "it committed to that", Proof.SIGHTING: "it was seen there"}[delivery.proof]
    return f", {how} at {view.at(delivery.proved_at)}"


def _arrived(view: _View) -> _Sentences:
    happened, _, _ = _on_its_way(view)
    do = "look for it there; to have it sent once more, send the series again"
    return f"{happened} (since {view.since})", NOTHING, do


def _refused(view: _View) -> _Sentences:
    happened = f"refused at {view.since}: {view.case.sentence} ({view.case.reason})"
    return happened, "nothing by itself; a series that is sent again is looked at afresh", _advice(view.case)


def _stopped(view: _View) -> _Sentences:
    case = view.case
    verb = "cancelled" if case.state is CaseState.CANCELLED else "parked"
    retry = f"`delineate case retry {case.id}`"
    if case.reason in BY_A_PERSON:
        event = last_event(view.tx, case.id, "case_parked", "case_cancelled")
        by = f" by {event.fields['by']}" if event is not None else ""
        do = f"{retry} lets it go on where it stood"
        return f"{verb}{by} at {view.since}: {case.sentence}", "nothing until somebody says so", do
    tries = f" after {case.attempts} attempts" if case.reason == Reason.WORKER_LOST else ""
    happened = f"{verb}{tries} at {view.since}: {case.sentence} ({case.reason})"
    return happened, "nothing by itself", _advice(case).replace("`delineate case retry CASE`", retry)


def _superseded(view: _View) -> _Sentences:
    newest = newest_of(view.tx, view.case.series_instance_uid)
    happened = f"superseded at {view.since}: {view.case.sentence}"
    return happened, f"revision {newest.revision} of the series is case {newest.id}", NOTHING


def _advice(case: Case) -> str:
    return ADVICE[Reason(case.reason)] if case.reason in {reason.value for reason in Reason} else NOTHING


_TOLD: dict[CaseState, Callable[[_View], _Sentences]] = {
    CaseState.RECEIVING: _receiving,
    CaseState.INCOMPLETE: _incomplete,
    CaseState.QUEUED: _queued,
    CaseState.SEGMENTING: _segmenting,
    CaseState.SENDING: _on_its_way,
    CaseState.DELIVERED: _arrived,
    CaseState.COMMITTED: _arrived,
    CaseState.REFUSED: _refused,
    CaseState.FAILED: _stopped,
    CaseState.CANCELLED: _stopped,
    CaseState.SUPERSEDED: _superseded,
}
