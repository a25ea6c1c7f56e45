"""`delineate case`: where cases stand, why nothing came back, and what an operator may do with one."""

import time
from collections.abc import Callable

import click
from rich.table import Table

from appliance.casework import operating
from appliance.casework.operating import Operator
from appliance.clock import monotonic_s, now_utc
from appliance.commands.asking import console, settings_of
from appliance.records import Database, Transaction, queries
from appliance.records.tables import Case, CaseState
from appliance.running import showing
from appliance.running.operator_here import operator_here

_ASSEMBLER_ANSWERS_WITHIN_S = 15.0
_IN_WORDS = {
    CaseState.QUEUED: "is queued again",
    CaseState.SENDING: "is on its way to its destinations again",
    CaseState.RECEIVING: "waits for slices again",
}
_number = click.argument("case_id", metavar="CASE", type=int)
_why = click.option("--reason", "why", default="", help="Why, for the audit trail; no patient's name.")
_yes = click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")


@click.group()
def case() -> None:
    """Cases: one CT series each, on its way."""


@case.command("list")
@click.option("--limit", default=50, show_default=True, help="How many of the newest cases.")
@click.pass_context
def case_list(ctx: click.Context, limit: int) -> None:
    """Print the state of every case, and what was set aside."""
    from appliance.audit.trail import structures_to_look_at

    settings = settings_of(ctx)
    with database_of(ctx).reading() as tx:
        cases, aside = queries.recent_cases(tx, limit), queries.quarantined(tx, limit)
        flagged = structures_to_look_at(tx, [case.id for case in cases])
        lines = [showing.case_line(case, settings, now_utc(), flagged.get(case.id, ())) for case in cases]
    table = Table("Case", "State", "Patient", "Series", "Slices", "What now", title="Cases", title_justify="left")
    for line in lines:
        table.add_row(*line)
    console.print(table if lines else "No case yet.")
    for instance in aside:
        received = showing.local(instance.received_at)
        console.print(f"Set aside at {received}: {instance.sentence} ({instance.reason}, {instance.digest[:12]}…)")


@case.command("retry")
@_number
@_why
@click.pass_context
def case_retry(ctx: click.Context, case_id: int, why: str) -> None:
    """Let a parked or cancelled CASE go on where it stood, once what stopped it is mended."""
    state = _act(ctx, case_id, why, operating.retry)
    _say(f"Case {case_id} {_IN_WORDS[state]}.")


@case.command("park")
@_number
@_why
@_yes
@click.pass_context
def case_park(ctx: click.Context, case_id: int, why: str, *, yes: bool) -> None:
    """Stop CASE until somebody tries it again; what it has is kept."""
    _ask_first(ctx, case_id, "Park", yes=yes)
    _act(ctx, case_id, why, operating.park)
    _say(f"Case {case_id} is parked; `delineate case retry {case_id}` lets it go on where it stood.")


@case.command("cancel")
@_number
@_why
@_yes
@click.pass_context
def case_cancel(ctx: click.Context, case_id: int, why: str, *, yes: bool) -> None:
    """End CASE without a result; a destination keeps what it has taken already."""
    _ask_first(ctx, case_id, "Cancel", yes=yes)
    _act(ctx, case_id, why, operating.cancel)
    _say(f"Case {case_id} is cancelled; `delineate case retry {case_id}` takes that back.")


@case.command("force-complete")
@_number
@_why
@_yes
@click.pass_context
def case_force_complete(ctx: click.Context, case_id: int, why: str, *, yes: bool) -> None:
    """Take the slices of CASE as all there are, if they make a volume without a gap."""
    _ask_first(ctx, case_id, "Take as complete", yes=yes)
    _act(ctx, case_id, why, operating.ask_to_complete)
    answer = _heard(database_of(ctx), case_id)
    if answer is None:
        _say(f"Case {case_id}: noted, but no assembler has seen to it yet; `delineate doctor` says whether one runs.")
    elif answer.state in {CaseState.RECEIVING, CaseState.INCOMPLETE}:
        raise click.ClickException(
            f"case {case_id} cannot be taken as complete; `delineate audit show {case_id}` says why"
        )
    else:
        _say(f"Case {case_id} is taken as complete with {answer.slices} slices; it is {answer.state}.")


@case.command("why")
@click.argument("identifier", metavar="PATIENT|ACCESSION|STUDY|SERIES")
@click.option("--json", "as_json", is_flag=True, help="Print the answer for programs.")
@click.pass_context
def case_why(ctx: click.Context, identifier: str, *, as_json: bool) -> None:
    """Say why nothing came back: what happened, what comes next, and what to do."""
    from appliance.intake.limited_reading import LimitedReading
    from appliance.running.why_nothing import explain
    from appliance.spool import Spool

    settings = settings_of(ctx)
    rows_and_files = database_of(ctx), Spool(settings.data_dir / "spool")
    reading = LimitedReading()
    answer = explain(identifier, settings, rows_and_files, reading.identities, now_utc())
    reading.stop()
    if as_json:
        click.echo(answer.as_json())
    else:
        for line in answer.lines():
            _say(line)


def existing(case: Case | None, case_id: int) -> Case:
    """The case, or a sentence that says where to look.

    Raises:
        ClickException: there is none.
    """
    if case is None:
        raise click.ClickException(f"there is no case {case_id}; `delineate case list` shows those there are")
    return case


def database_of(ctx: click.Context) -> Database:
    """The database of this box.

    Raises:
        DatabaseUnavailable: it does not answer, or has another release's schema.
    """
    database = Database(settings_of(ctx).database_url)
    database.check()
    return database


def _act(
    ctx: click.Context, case_id: int, why: str, what: Callable[[Transaction, Case, Operator], CaseState | None]
) -> CaseState:
    """Do it in one transaction; the state that the case is in then."""
    with database_of(ctx).transaction() as tx:
        case = existing(queries.case_by_id(tx, case_id), case_id)
        what(tx, case, operator_here(now_utc(), why))
        return case.state


def _ask_first(ctx: click.Context, case_id: int, verb: str, *, yes: bool) -> None:
    with database_of(ctx).reading() as tx:
        case = existing(queries.case_by_id(tx, case_id), case_id)
        now_words = showing.what_now(case, settings_of(ctx), now_utc())
    if not yes:
        _say(f"Case {case_id}, {case.description}, {case.slices} slices, is {case.state}: {now_words}.")
        click.confirm(f"{verb}?", abort=True)


def _heard(database: Database, case_id: int) -> Case | None:
    """The case once the assembler has answered what was asked of it; None when it does not."""
    deadline_s = monotonic_s() + _ASSEMBLER_ANSWERS_WITHIN_S
    while monotonic_s() < deadline_s:
        with database.reading() as tx:
            case = tx.get_one(Case, case_id)
            if case.forced_by is None:
                return case
        time.sleep(0.2)
    return None


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, soft_wrap=True)
