"""The whole answer to "why did nothing come back?": cases, what lies in the spool, and what may be related."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from appliance.audit.trail import EVENTS
from appliance.dicom.findings import amount
from appliance.dicom.identity import InstanceIdentity
from appliance.errors import SliceRefused
from appliance.records import Database, Transaction
from appliance.records.searches import cases_about, events_of_box, nobody_knows_whose, senders, set_aside
from appliance.records.tables import Case, Instance
from appliance.running.why import Account, account_of, short
from appliance.settings import Settings
from appliance.spool import Spool

MOST_CASES = 10
MOST_LINES = 5
MOST_READ = 2000
"""Of a long backlog in the spool only the oldest are read."""

LATELY = timedelta(days=7)
TURNED_AWAY = ("association_refused", "association_aborted", "object_refused")

Read = Callable[[Sequence[Path]], Sequence[InstanceIdentity | SliceRefused]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known about an identifier.

    Attributes:
        cases: the newest first.
        waiting: what has arrived for it and is not indexed yet.
        aside: objects of its series that do not count.
        related: where there is no case, what may have to do with it.
    """

    asked: str
    cases: tuple[Account, ...]
    waiting: tuple[str, ...]
    aside: tuple[str, ...]
    related: tuple[str, ...]

    def as_json(self) -> str:
        """For programs."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    def lines(self) -> list[str]:
        """For people."""
        told = []
        for one in self.cases:
            revision = f", revision {one.revision}" if one.revision > 1 else ""
            told.append(f"Case {one.case}{revision} ({one.series}) is {one.state}.")
            told += [
                f"  What happened: {one.happened}.",
                f"  What comes next: {one.next}.",
                f"  What to do: {_end(one)}",
            ]
        return [*told, *self.waiting, *self.aside, *self.related]


def _end(account: Account) -> str:
    return account.do if account.do.endswith(".") else f"{account.do}."


def explain(
    identifier: str, settings: Settings, rows_and_files: tuple[Database, Spool], read: Read, now: datetime
) -> Answer:
    """Answer for a patient ID, an accession number, a Study or Series Instance UID, or the number of a case.

    Args:
        identifier: whichever of them; a number that is none of the others is taken for a case's.
        settings: of this box.
        rows_and_files: its database and its spool.
        read: reads who arrivals are.
        now: the time.
    """
    database, spool = rows_and_files
    waiting = _in_spool(spool, identifier, read, now)
    with database.reading() as tx:
        cases = list(cases_about(tx, identifier, MOST_CASES)) or _by_number(tx, identifier)
        accounts = tuple(account_of(tx, case, settings, now) for case in cases)
        series = {case.series_instance_uid for case in cases} | {identifier}
        aside = tuple(_aside(instance, now) for instance in set_aside(tx, series, MOST_LINES))
        unknown = not (accounts or waiting or aside)
        related = tuple(_related(tx, identifier, settings, now)) if unknown else ()
    return Answer(identifier, accounts, waiting, aside, related)


def _by_number(tx: Transaction, identifier: str) -> list[Case]:
    if not (identifier.isascii() and identifier.isdigit() and len(identifier) < 10):
        return []
    case = tx.get(Case, int(identifier))
    return [case] if case is not None else []


def _in_spool(spool: Spool, identifier: str, read: Read, now: datetime) -> tuple[str, ...]:
    """What of it has arrived and is not indexed, however the assembler is."""
    arrivals = spool.arrivals(MOST_READ)
    try:
        read_ones = read([arrival.path for arrival in arrivals])
    except OSError:  # the assembler has just indexed some: what is left shows when somebody asks again
        return ()
    found = [arrival.at for arrival, one in zip(arrivals, read_ones, strict=True) if identifier in _names(one)]
    if not found:
        return ()
    since = f"the first at {short(min(found), now)}"
    return (f"{amount(len(found), 'object')} of it arrived ({since}) and wait to be indexed; the assembler does that.",)


def _names(one: InstanceIdentity | SliceRefused) -> set[str]:
    if isinstance(one, SliceRefused):
        return set()
    return {one.patient_id, one.accession_number, one.study_instance_uid, one.series_instance_uid}


def _aside(instance: Instance, now: datetime) -> str:
    sentence = instance.sentence or "another object has the same SOP Instance UID and other content; both are kept"
    reason = f" ({instance.reason})" if instance.reason else ""
    return f"An object of this series was set aside at {short(instance.received_at, now)}: {sentence}{reason}."


def _related(tx: Transaction, identifier: str, settings: Settings, now: datetime) -> Iterable[str]:
    since = now - LATELY
    yield f"Nothing was ever received for {identifier!r}."
    for event in events_of_box(tx, TURNED_AWAY, since, MOST_LINES):
        yield f"Turned away at {short(event.at, now)}: {EVENTS[event.event].format(**event.fields)}."
    for instance in nobody_knows_whose(tx, since, MOST_LINES):
        when = short(instance.received_at, now)
        yield f"Set aside at {when}, nobody can read whose it is: {instance.sentence} ({instance.reason})."
    known = senders(tx, since)
    for sender in known:
        ae_title = sender.ae_title or "somebody who cannot be read"
        last = f"the last at {short(sender.last_at, now)}"
        yield f"{ae_title} has sent {amount(sender.objects, 'object')} in the last 7 days, {last}."
    if not known:
        intake = settings.intake
        here = f"{intake.ae_title} on port {intake.port}"
        yield f"Nobody has sent anything in the last 7 days; see whether the sender calls {here}."
