"""Telling the collector what happened: the trail itself is the spool, and a cursor says how far the collector read.

Whatever happens to the collector, the network or this process, no message is lost and their order is kept; some may
come twice, to the byte the same.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from appliance.audit.message_xml import Outcome
from appliance.audit.messages import MAPPED, CaseFacts, Happening, MessageWriter
from appliance.audit.syslog import Collector, CollectorAway, syslog_message
from appliance.clock import monotonic_s
from appliance.records import Database
from appliance.records.tables import AuditCursor, AuditEvent, AuditHead, Case
from appliance.settings import Peer, Settings
from appliance.settings.tls import calling_context

CURSOR = "collector"
_AT_ONCE = 100
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 300.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Batch:
    """Messages of some events in a row; `last` is the number of the last."""

    messages: Sequence[bytes]
    last: int


class CollectorFeed:
    """Sends what the collector has not read yet."""

    def __init__(self, settings: Settings, database: Database, steady_s: Callable[[], float] = monotonic_s) -> None:
        self._settings = settings
        self._database = database
        self._writer = MessageWriter(settings)
        self._host = socket.gethostname()
        self._steady_s = steady_s
        self._at_once = _AT_ONCE
        self._wait_s = 0.0  # nothing went wrong lately
        self._next_try_s = 0.0

    def send_waiting(self, _now: datetime) -> int:
        """One round: send until nothing waits any more, or until the collector does not answer.

        Returns:
            How many messages the collector has read.

        Raises:
            SettingsError: a file of [tls] cannot be used.
        """
        if self._settings.audit.collector is None or self._steady_s() < self._next_try_s:
            return 0
        collector = collector_of(self._settings)  # anew each time: certificates are renewed without a restart
        sent = 0
        while (batch := self._next_batch()) is not None:
            try:
                if batch.messages:
                    collector.deliver(batch.messages)
            except CollectorAway as away:
                self._back_off(str(away))
                return sent
            self._advance(batch.last)
            sent += len(batch.messages)
            if batch.messages:
                self._go_on()
        return sent

    def _back_off(self, words: str) -> None:
        """Wait longer each time, and send less at once: it may only be slow."""
        if not self._wait_s:
            log.warning("collector_away", words=words, waiting=waiting(self._database))
        self._wait_s = min(max(2 * self._wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
        self._next_try_s = self._steady_s() + self._wait_s
        self._at_once = max(1, self._at_once // 2)

    def _go_on(self) -> None:
        if self._wait_s:
            log.info("collector_back", waiting=waiting(self._database))
        self._wait_s = 0.0
        self._at_once = min(2 * self._at_once, _AT_ONCE)

    def _next_batch(self) -> _Batch | None:
        with self._database.reading() as tx:
            after = tx.scalar(select(AuditCursor.seq).where(AuditCursor.name == CURSOR)) or 0
            query = select(AuditEvent).where(AuditEvent.id > after).order_by(AuditEvent.id).limit(self._at_once)
            events = tx.scalars(query).all()
            numbers = {event.case_id for event in events if event.event in MAPPED}
            found = select(Case).options(selectinload(Case.deliveries)).where(Case.id.in_(numbers))
            cases: dict[int | None, CaseFacts] = {case.id: _facts(case) for case in tx.scalars(found)}
        if not events:
            return None
        told = [Happening(row.id, row.at, row.event, row.actor, row.fields, cases.get(row.case_id)) for row in events]
        return _Batch([message for happening in told for message in self._messages(happening)], events[-1].id)

    def _messages(self, happening: Happening) -> list[bytes]:
        return [
            syslog_message(
                message.as_xml(self._writer.station),
                at=happening.at,
                host=self._host,
                process=happening.actor,
                warning=message.outcome is not Outcome.SUCCESS,
            )
            for message in self._writer.messages_of(happening)
        ]

    def _advance(self, seq: int) -> None:
        with self._database.transaction() as tx:
            cursor = tx.get(AuditCursor, CURSOR) or AuditCursor(name=CURSOR)
            cursor.seq = seq
            tx.add(cursor)


def collector_of(settings: Settings) -> Collector:
    """The collector of the settings, which must name one.

    Raises:
        SettingsError: a file of [tls] cannot be used.
    """
    audit = settings.audit
    host, _, port = (audit.collector or "").rpartition(":")
    host, context = host.strip("[]"), None
    if audit.collector_tls and settings.tls_files is not None:
        expected = audit.collector_certificate
        called = Peer(ae_title="COLLECTOR", host=host, port=int(port), tls=True, certificate=expected)
        context = calling_context(settings.tls_files, called)
    return Collector(host, int(port), audit.collector_timeout_s, context)


def waiting(database: Database) -> int:
    """How many events the collector has not read yet."""
    with database.reading() as tx:
        read = tx.scalar(select(AuditCursor.seq).where(AuditCursor.name == CURSOR)) or 0
        return (tx.scalar(select(AuditHead.seq)) or 0) - read


def _facts(case: Case) -> CaseFacts:
    destinations = tuple(dict.fromkeys(delivery.destination for delivery in case.deliveries))
    return CaseFacts(
        patient_id=case.patient_id,
        study_instance_uid=case.study_instance_uid,
        series_instance_uid=case.series_instance_uid,
        accession_number=case.accession_number,
        source_ae=case.source_ae,
        slices=case.slices,
        destinations=destinations,
    )
