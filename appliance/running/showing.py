"""How cases, times and trails are shown to people on a terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from appliance.audit.trail import TrailEntry
from appliance.records.tables import Case, CaseState, CountSign, Delivery, DeliveryState, PartState, ResultKind
from appliance.segmentation.pace import in_words
from appliance.settings import Settings

_COLOURS = {
    CaseState.COMMITTED: "green",
    CaseState.DELIVERED: "green",
    CaseState.REFUSED: "red",
    CaseState.FAILED: "red",
    CaseState.INCOMPLETE: "yellow",
}
_PAST_COMPLETION = frozenset(
    {CaseState.QUEUED, CaseState.SEGMENTING, CaseState.SENDING, CaseState.DELIVERED, CaseState.COMMITTED}
)


def local(at: datetime) -> str:
    """An instant in the box's own time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def case_line(case: Case, settings: Settings, now: datetime, to_look_at: Sequence[str] = ()) -> tuple[str | Text, ...]:
    """One row of the list of cases, with the structures of its result that need a careful look."""
    state = Text(case.state, style=_COLOURS.get(case.state, "cyan"))
    number = f"{case.id}" if case.revision == 1 else f"{case.id} (rev. {case.revision})"
    words = what_now(case, settings, now)
    if to_look_at and case.result_sop_instance_uid is not None:
        words += f"; look carefully at {', '.join(to_look_at)}"
    return number, state, case.patient_id, case.description, str(case.slices), words


def what_now(case: Case, settings: Settings, now: datetime) -> str:
    """One sentence: what the case waits for, or why it ended."""
    words = _what_now(case, settings, now)
    if case.count_sign is CountSign.UNANSWERED and case.state in _PAST_COMPLETION:
        words += "; count not confirmed"
    return words


def _what_now(case: Case, settings: Settings, now: datetime) -> str:
    if case.state is CaseState.RECEIVING:
        left_s = countdown_s(case, settings, now)
        asking = case.count_wanted_at is not None and left_s <= 0
        return "asking for the PACS's count" if asking else f"complete if quiet for {left_s:.0f} s more"
    if case.state is CaseState.INCOMPLETE:
        return f"{case.sentence}, waiting {countdown_s(case, settings, now):.0f} s more ({case.reason})"
    if case.state is CaseState.SEGMENTING:
        return progress_words(case)
    if case.state in {CaseState.SENDING, CaseState.DELIVERED, CaseState.COMMITTED}:
        return "; ".join(_delivery_words(delivery) for delivery in case.deliveries)
    waiting = "waits for a worker" if case.state is CaseState.QUEUED else ""
    return f"{case.sentence or waiting} ({case.reason})" if case.reason else case.sentence or waiting


def _delivery_words(delivery: Delivery) -> str:
    what = "" if delivery.result.kind is ResultKind.RTSTRUCT else f"{delivery.result.kind.in_words} "
    if delivery.state is DeliveryState.PENDING and delivery.sentence:
        there = f"{what}to {delivery.destination}" if what else delivery.destination
        return f"{there}: {delivery.sentence}; next try {local(delivery.next_try_at)}"
    words = {DeliveryState.PENDING: "is being sent to", DeliveryState.ACCEPTED: "accepted by"}
    return f"{what}{words.get(delivery.state, f'{delivery.state} by')} {delivery.destination}"


def countdown_s(case: Case, settings: Settings, now: datetime) -> float:
    """Seconds until a quiet series is examined, or one that waits for slices is given up."""
    rules = settings.completion_rules(case.foreseen_protocol, case.source_ae)
    waits = case.state is CaseState.INCOMPLETE
    begin, wait_s = (case.entered_state_at, rules.incomplete_wait_s) if waits else (case.last_arrival_at, rules.quiet_s)
    return max(0.0, (begin + timedelta(seconds=wait_s) - now).total_seconds())


def progress_words(case: Case) -> str:
    """How far a worker is."""
    if not case.progress:
        return "a worker has taken it"
    models = case.progress.get("models", [])
    if not models:
        return f"{case.progress['step']}: {case.progress['done']} of {case.progress['total']}"
    if len(models) == 1:
        return run_words(models[0])
    return "; ".join(f"{one['model']}: {run_words(one)}" for one in models)


def run_words(model: Mapping[str, Any]) -> str:
    """How far one model is with a case, such as "fold 2 of 3, tile 14 of 36, about 10 s left"."""
    if model["state"] == PartState.WAITING:
        return "waits for a worker"
    if model["state"] == PartState.DONE:
        return "done"
    if "folds" not in model:
        return "a worker has begun"
    fold, folds = model["fold"], model["folds"]
    tiles = max(*folds, model["total"] // len(folds))
    return f"fold {fold} of {len(folds)}, tile {folds[fold - 1]} of {tiles}{left_words(model)}"


def left_words(model: Mapping[str, Any]) -> str:
    """How long a model will still take; empty when nobody can tell, or it is done."""
    eta_s = model.get("eta_s")
    return f", about {in_words(eta_s)} left" if eta_s else ""


def trail_table(entries: Sequence[TrailEntry], title: str) -> Table:
    """An audit trail as a table."""
    table = Table("Time", "Who", "What", title=title, title_justify="left")
    for entry in entries:
        table.add_row(local(entry.at), Text(_harmless(entry.actor)), Text(_harmless(entry.words)))
    return table


def _harmless(text: str) -> str:
    """A text that may hold what a stranger called itself: nothing in it moves a cursor or changes a colour."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
