"""The PACS compared with the rows, both ways: what fits a protocol and never came, what we sent and they lack."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from appliance.audit import trail
from appliance.casework.case import Move, move
from appliance.casework.protocols import choose_protocol
from appliance.delivery.settling import ACTOR, what_and_where
from appliance.delivery.sighting import Inquiry, inquiring
from appliance.delivery.store_scu import Caller, NotDelivered, series_of_file
from appliance.dicom.identity import InstanceIdentity
from appliance.dicom.uid import is_valid_uid
from appliance.errors import SeriesRefused
from appliance.records import Database, queries
from appliance.records.tables import CaseState, Delivery, DeliveryState
from appliance.settings import Settings
from appliance.spool import Spool

MOST_SENT_AGAIN = 50
"""Results that one destination is sent again in one night; where it lacks more, a person should look first."""

OVERDUE = timedelta(hours=1)
"""A case that has stood in one state for longer than this, without having ended, is told."""


@dataclass(frozen=True, slots=True)
class Missed:
    """A series at a PACS that a protocol would take, and of which nothing is here."""

    peer: str
    study_instance_uid: str
    series_instance_uid: str
    protocol: str


@dataclass
class Reconciliation:
    """What a comparison found.

    Attributes:
        asked: peers that answered.
        silent: peers that could not be asked, with what they said.
        series: CT series that were looked at.
        missed: those that a protocol would take and that are not here.
        overdue: cases that have neither ended nor moved for a while, and failed ones, a sentence each.
        results: results that were looked for.
        sent_again: results that were not there, as (destination, case, SOP Instance UID).
        damaged: results that are there, or not, and whose own file is not what was made; a sentence each.
        unsure: what was not done, and why.
    """

    asked: list[str] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)
    series: int = 0
    missed: list[Missed] = field(default_factory=list)
    overdue: list[str] = field(default_factory=list)
    results: int = 0
    sent_again: list[tuple[str, int, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)

    def in_words(self) -> Iterator[str]:
        """One sentence for each finding, the summary first."""
        yield self.summary
        for name, sentence in self.silent.items():
            yield f"{name} could not be asked: {sentence}"
        for one in self.missed:
            series, protocol = one.series_instance_uid, one.protocol
            yield f"{one.peer} has series {series}, which fits protocol {protocol}; none of it came here"
        for destination, case_id, uid in self.sent_again:
            yield f"{destination} lacks {uid} of case {case_id}; it is sent again"
        yield from (*self.overdue, *self.damaged, *self.unsure)

    @property
    def summary(self) -> str:
        """The counts, in a sentence."""
        who = ", ".join(self.asked) or "nobody (no peer has query = true)"
        return (
            f"compared with {who}: {self.results} results looked for, {len(self.sent_again)} sent again; "
            f"{self.series} CT series seen, {len(self.missed)} fit a protocol and have no result"
        )

    def fields(self) -> dict[str, Any]:
        """For programs, and for the event; lists are cut where an event must stay readable."""
        return {
            "asked": self.asked,
            "silent": self.silent,
            "series": self.series,
            "results": self.results,
            "missed": [
                {"peer": one.peer, "series": one.series_instance_uid, "protocol": one.protocol} for one in self.missed
            ],
            "sent_again": [
                {"destination": destination, "case": case_id, "sop_instance_uid": uid}
                for destination, case_id, uid in self.sent_again
            ],
            "overdue": self.overdue,
            "damaged": self.damaged,
            "unsure": self.unsure,
        }


class Reconciler:
    """Compares every PACS that answers C-FIND with what the rows say was sent to it, and with what came from it."""

    def __init__(self, settings: Settings, database: Database, spool: Spool) -> None:
        self._settings = settings
        self._database = database
        self._spool = spool
        self._caller = Caller.of(settings, settings.delivery.network_timeout_s)

    def run(self, now: datetime, days: int | None = None) -> Reconciliation:
        """Compare the last days, see to what is missing, and leave the event."""
        since = now - timedelta(days=days or self._settings.delivery.reconcile_days)
        found = Reconciliation()
        for name, peer in self._settings.peers.items():
            if not peer.query:
                continue
            try:
                with inquiring(self._caller, peer) as inquiry:
                    self._look_for_series(inquiry, name, since, found)
                    self._look_for_results(inquiry, name, since, now, found)
                found.asked.append(name)
            except NotDelivered as problem:
                found.silent[name] = str(problem)
        found.overdue = self._overdue(since, now)
        with self._database.transaction() as tx:
            trail.record(tx, "reconciled", at=now, actor=ACTOR, words=found.summary, **found.fields())
        return found

    def _look_for_series(self, inquiry: Inquiry, name: str, since: datetime, found: Reconciliation) -> None:
        """Series that a protocol would take, of which nothing is here."""
        candidates: dict[str, Missed] = {}
        peer = self._settings.peers[name]
        for study, series in inquiry.series_since(since.astimezone().date()):
            uid = str(series.get("SeriesInstanceUID", ""))
            if not is_valid_uid(uid):
                continue
            found.series += 1
            identity = _identity(
                source_ae=peer.ae_title,
                body_part=str(series.get("BodyPartExamined", "") or ""),
                series_description=str(series.get("SeriesDescription", "") or ""),
                study_description=str(study.get("StudyDescription", "") or ""),
            )
            try:
                protocol = choose_protocol(identity, self._settings.protocols.values())
            except SeriesRefused:
                continue
            candidates[uid] = Missed(name, str(study.get("StudyInstanceUID", "")), uid, protocol.name)
        with self._database.reading() as tx:
            known = queries.known_series(tx, list(candidates))
        found.missed += [one for uid, one in candidates.items() if uid not in known]

    def _look_for_results(
        self, inquiry: Inquiry, name: str, since: datetime, now: datetime, found: Reconciliation
    ) -> None:
        """Results that were accepted there: those that are gone are sent again, if their file is what was made."""
        with self._database.reading() as tx:
            deliveries = queries.delivered_since(tx, name, since)
        missing = []
        for delivery in deliveries:
            found.results += 1
            content = self._spool.result(delivery.result.file)
            intact = content is not None and hashlib.sha256(content).hexdigest() == delivery.result.digest
            if not intact:
                found.damaged.append(
                    f"case {delivery.case_id}: {delivery.result.file} is damaged or gone here, so that it cannot be "
                    f"sent to {name} again; restore it from a backup, or send the series again"
                )
                continue
            series_uid = series_of_file(self._spool.root / "results" / delivery.result.file)
            if not inquiry.has(delivery.case.study_instance_uid, series_uid, delivery.result.sop_instance_uid):
                missing.append(delivery)
        if len(missing) > MOST_SENT_AGAIN:
            found.unsure.append(
                f"{name} says that it lacks {len(missing)} results; {MOST_SENT_AGAIN} are sent again, find out why"
            )
        self._send_again(missing[:MOST_SENT_AGAIN], now, found)

    def _send_again(self, missing: Sequence[Delivery], now: datetime, found: Reconciliation) -> None:
        for delivery in missing:
            with self._database.transaction() as tx:
                locked = queries.delivery_by_id(tx, delivery.id)
                if locked is None or locked.state not in {DeliveryState.ACCEPTED, DeliveryState.COMMITTED}:
                    continue
                fields = what_and_where(locked)
                if locked.case.state is CaseState.SENDING:  # another of its results was missed already
                    trail.record(tx, "result_missing", at=now, actor=ACTOR, case_id=locked.case_id, **fields)
                else:
                    move(tx, locked.case, Move.MISS, at=now, actor=ACTOR, **fields)
                locked.state, locked.next_try_at, locked.attempts = DeliveryState.PENDING, now, 0
                locked.proof, locked.proved_at, locked.unseen = None, None, 0
                locked.sentence = "it was there and is not any more; it is sent again"
            found.sent_again.append((delivery.destination, delivery.case_id, delivery.result.sop_instance_uid))

    def _overdue(self, since: datetime, now: datetime) -> list[str]:
        with self._database.reading() as tx:
            cases = queries.cases_without_result(tx, since, now - OVERDUE)
        return [f"case {case.id} is {case.state} since {case.entered_state_at:%Y-%m-%d %H:%M} UTC" for case in cases]


def _identity(**known: str) -> InstanceIdentity:
    """What a PACS says of a series, as far as protocols look at it."""
    fields = dict.fromkeys(InstanceIdentity.__dataclass_fields__, "")
    return InstanceIdentity(**{**fields, **known})
