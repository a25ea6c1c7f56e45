"""The audit trail: `record` adds an event inside the transaction of the row that changed; `trail_of` reads it back.

Events are only ever added, and become readable when their transaction commits (records/chain.py). `EVENTS` is the whole
vocabulary: what each event means in words, with the fields that the words use. No field holds a patient's name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from appliance.records import chain
from appliance.records.session import Transaction
from appliance.records.tables import AuditEvent, ResultKind

EVENTS: dict[str, str] = {
    "process_started": "{process} started, version {version}",
    "process_stopped": "{process} stopped",
    "process_restarted": "{process} died with exit code {exit_code} and was started again",
    "trail_signed": "the trail was signed up to event {seq}, hash {hash:.12}…, for {day}",
    "trail_read": "the trail of {what} was shown to {user}",
    "trail_exported": "{count} events of the trail were exported by {user}",
    "model_imported": "model {name} {version} imported from {source}, digest {digest:.12}…",
    "model_calibrated": "model {name} {version} made of {before}, its flags calibrated on {cases} cases",
    "model_activated": "model {name}: version {version} is active now, before it {before}",
    "model_removed": "model {name} {version} removed",
    "model_restored": "model {name} {version} restored",
    "association_refused": "an association from {source_ae} was refused: {sentence}",
    "association_aborted": "the association from {source_ae} was aborted after {stored} stored objects",
    "object_refused": "an object from {source_ae} was answered {status}: {sentence}",
    "repeated_from_address": "{what} came {count} more times within a minute, from {source_ae} at {address}",
    "storage_low": "the spool has {free_mb} MiB left, less than its reserve of {reserve_mb}: images are turned away",
    "storage_recovered": "the spool has {free_mb} MiB left again: images are taken",
    "case_opened": "revision {revision} opened by the first slice of the series, from {source_ae}",
    "slices_received": "slices received: {count}, in all {total}",
    "slices_repeated": "slices that came again with the same content: {count}; nothing changed",
    "instance_quarantined": "an object was set aside: {sentence}",
    "instance_conflict": "a slice came with other content under a known SOP Instance UID; both are kept",
    "series_incomplete": "the series is not whole, waiting up to {wait_s:g} s for the rest: {sentence}",
    "count_answered": "{peer} says that the series has {expected} slices; here are {here}",
    "count_unanswered": "{peer} did not say how many slices the series has: {sentence}",
    "missing_fetched": "{peer} was asked for {count} missing slices; {came} came",
    "peer_queried": "{peer} was asked what it has: {found} series, {wanted} of them wanted",
    "series_fetched": "{objects} objects of a series were fetched from {peer} by {how}",
    "fetch_failed": "fetching from {peer} failed: {sentence}",
    "series_complete": "series complete: {slices} slices over {extent_mm:.0f} mm, quiet {quiet_s:.0f} s; by {signs}",
    "protocol_chosen": "protocol {protocol} fits; model {model}",
    "case_refused": "refused ({reason}): {sentence}",
    "work_started": "worker {worker} took the case, attempt {attempt}",
    "volume_loaded": "volume of {shape} voxels read, input digest {input_digest:.12}…",
    "part_taken": "worker {worker} took the part of model {model}, attempt {attempt}",
    "part_lost": "worker {worker} lost the part of model {model}: {sentence}",
    "memory_planned": "planned: {words}",
    "stepped_down": "memory ran out or an engine failed, and the case went on: {words}",
    "segmented": "segmented by {model} {version} ({folds} folds) in {seconds:.1f} s",
    "masks_decided": "structures: {volumes}",
    "quality_assessed": "{words}",
    "contours_traced": "{contours} contours with {points} points traced",
    "segmentation_written": "segmentation {sop_instance_uid} written and checked, {frames} frames, {size_kb} kB",
    "structure_set_replaces": "to take the place of structure set {sop_instance_uid} of case {earlier_case}",
    "structure_set_examined": "worth a look before use: {words}",
    "structure_set_written": "structure set {sop_instance_uid} written and checked, {size_kb} kB",
    "completion_asked": "{by} asked to take the series as complete: {sentence}",
    "completion_forced": "taken as complete, as {by} asked ({asked_because}): {slices} slices over {extent_mm:.0f} mm",
    "completion_not_forced": "cannot be taken as complete, as {by} asked: {sentence}",
    "case_parked": "parked by {by}: {sentence}",
    "case_cancelled": "cancelled by {by}: {sentence}",
    "receiving_resumed": "waits for slices again: {sentence}",
    "sending_resumed": "on its way to the destinations again: {sentence}",
    "alarm_raised": "ALARM: {sentence}",
    "work_lost": "worker {worker} lost the case: {sentence}",
    "case_requeued": "queued again: {sentence}",
    "case_failed": "parked after {attempts} attempts: {sentence}",
    "case_superseded": "superseded: {sentence}",
    "delivery_tried": "{destination} did not take the {object}: {sentence}; next try in {wait_s:.0f} s",
    "delivery_accepted": "{destination} accepted the {object} (C-STORE status {status})",
    "delivery_refused": "{destination} will not take the {object}: {sentence}",
    "commitment_requested": "{destination} was asked for storage commitment to the {object}",
    "commitment_reported": "{destination} committed to keep the {object}",
    "commitment_failed": "{destination} did not commit: {sentence}; the {object} is sent again",
    "commitment_answered": "{caller} was told that {kept} of {count} objects that it asked about are kept here",
    "commitment_unanswered": "{caller} could not be told whether what it asked about is kept here: {sentence}",
    "delivery_overdue": "ALARM: {destination} has not taken or confirmed the {object} after {attempts} attempts",
    "delivery_seen": "{destination} has the {object}: it was seen there by C-FIND",
    "delivery_unseen": "{destination} said success, but does not have the {object}; it is sent again",
    "result_missing": "{destination} does not have the {object} any more; it is sent again",
    "result_damaged": "the file of the {object} is damaged or gone; it is made again",
    "reconciled": "{words}",
    "images_removed": "{count} images were removed, their term being over; their digests stay",
    "result_removed": "the file of the {object} was removed, its term being over; its digest stays",
    "aside_removed": "{count} objects that had been set aside were removed, their term being over",
    "retention_kept": "retention removed {words}",
    "delivery_repeated": "the series was sent again; the same result is sent again",
    "case_delivered": "delivered to {destinations}",
    "case_committed": "kept by {destinations}",
}

_AT_FIRST = {"object": ResultKind.RTSTRUCT.in_words, "signs": "quiet time and geometry"}
"""What older events do not say, because there was nothing else."""


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """One event as people read it."""

    at: datetime
    event: str
    actor: str
    words: str


def record(tx: Transaction, event: str, *, at: datetime, actor: str, case_id: int | None = None, **fields: Any) -> None:
    """Add one event to the trail, in the transaction of the change that it explains.

    Raises:
        KeyError: the event is not in the vocabulary, or a field that its words need is missing.
    """
    EVENTS[event].format(**{**_AT_FIRST, **fields})
    chain.append(tx, at, case_id, event, actor, fields)


def trail_of(tx: Transaction, case_id: int) -> list[TrailEntry]:
    """The events of one case in the order in which they were committed."""
    rows = tx.scalars(select(AuditEvent).where(AuditEvent.case_id == case_id).order_by(AuditEvent.id))
    return [_entry(row) for row in rows]


def trail_of_box(tx: Transaction, limit: int) -> list[TrailEntry]:
    """The newest events that belong to no case (starts, stops, refused associations), oldest first."""
    query = select(AuditEvent).where(AuditEvent.case_id.is_(None)).order_by(AuditEvent.id.desc()).limit(limit)
    return [_entry(row) for row in reversed(tx.scalars(query).all())]


def structures_to_look_at(tx: Transaction, case_ids: Sequence[int]) -> dict[int, list[str]]:
    """The structures of some cases that were flagged, as they are written, by case; the latest assessment counts."""
    query = (
        select(AuditEvent)
        .where(AuditEvent.case_id.in_(case_ids), AuditEvent.event == "quality_assessed")
        .order_by(AuditEvent.id)
    )
    return {row.case_id: row.fields["to_look_at"] for row in tx.scalars(query) if row.case_id is not None}


def words_of(event: str, fields: dict[str, Any]) -> str:
    """What an event says, whichever release recorded it."""
    try:
        return EVENTS[event].format(**{**_AT_FIRST, **fields})
    except (KeyError, ValueError, TypeError):  # a release that said more, or less, or otherwise
        return str(fields)


def _entry(row: AuditEvent) -> TrailEntry:
    return TrailEntry(row.at, row.event, row.actor, words_of(row.event, row.fields))
