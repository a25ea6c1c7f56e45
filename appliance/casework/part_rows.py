"""The rows of parts: which are free, and what becomes of those that a worker holds. Loads nothing of what draws."""

from datetime import datetime

from appliance.records import Transaction, queries
from appliance.records.tables import Part, PartState


def is_free(part: Part, now: datetime) -> bool:
    """Whether a worker may take it: it waits, or whoever had it fell silent."""
    silent = part.state is PartState.WORKING and part.lease_until is not None and part.lease_until < now
    return part.state is PartState.WAITING or silent


def put_back(part: Part) -> None:
    """Let it wait again, as if nobody had begun."""
    part.state, part.progress = PartState.WAITING, {}
    part.lease_owner = part.lease_until = None


def put_back_all(tx: Transaction, worker: str) -> None:
    """Let everything wait again that this worker was at."""
    for part in queries.parts_in_work(tx, worker):
        put_back(part)


def renew_all(tx: Transaction, worker: str, until: datetime) -> None:
    """Hold everything for longer that this worker is at."""
    for part in queries.parts_in_work(tx, worker):
        part.lease_until = until
