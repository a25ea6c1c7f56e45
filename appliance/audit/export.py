"""The trail as a file that anyone can verify without this appliance: JSON lines (docs/audit.md)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from appliance.records import Transaction
from appliance.records.chain import link_of, links
from appliance.records.tables import AuditEvent


@dataclass(frozen=True, slots=True)
class Extent:
    """Which events are wanted.

    Attributes:
        since: those at this instant or later.
        until: those before this instant.
        case_id: those of one case.
    """

    since: datetime | None = None
    until: datetime | None = None
    case_id: int | None = None


def export_lines(tx: Transaction, extent: Extent) -> Iterator[str]:
    """The events as they are stored, oldest first, one line of JSON each."""
    query = links()
    if extent.since is not None:
        query = query.where(AuditEvent.at >= extent.since)
    if extent.until is not None:
        query = query.where(AuditEvent.at < extent.until)
    if extent.case_id is not None:
        query = query.where(AuditEvent.case_id == extent.case_id)
    for row in tx.execute(query.execution_options(yield_per=1000)):
        link = link_of(row)
        told = {
            "seq": link.seq,
            "at": link.at,
            "case": link.case_id,
            "event": link.event,
            "actor": link.actor,
            "fields": link.fields,
            "previous": link.previous,
            "hash": link.hash,
        }
        yield json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n"
