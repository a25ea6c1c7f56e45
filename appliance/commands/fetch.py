"""`delineate fetch`: CT series from a PACS, as if it had sent them."""

from functools import partial

import click
from rich.status import Status

from appliance.commands.asking import console, settings_of

_HELP = """Fetch CT series from PEER of peers.toml: those that a protocol would take and that are not here yet.

Say which by at least one of the options. What is fetched becomes cases, as if PEER had sent it.
"""


@click.command(help=_HELP)
@click.argument("peer")
@click.option("--patient", metavar="ID", default="", help="Patient ID, whole and exact.")
@click.option("--accession", metavar="NUMBER", default="", help="Accession Number, whole and exact.")
@click.option("--study", metavar="UID", default="", help="Study Instance UID.")
@click.option("--series", metavar="UID", default="", help="Series Instance UID; with --study where PEER wants that.")
@click.option("--all", "take_all", is_flag=True, help="Also CT series that no protocol takes.")
@click.option("--dry-run", is_flag=True, help="Only show what there is and what would be fetched.")
@click.pass_context
def fetch(  # noqa: PLR0913  # one argument for each option
    ctx: click.Context,
    peer: str,
    *,
    patient: str,
    accession: str,
    study: str,
    series: str,
    take_all: bool,
    dry_run: bool,
) -> None:
    """Ask, show, fetch."""
    from appliance.clock import now_utc
    from appliance.intake.fetching import Fetcher, Question, Verdict
    from appliance.records import Database
    from appliance.running.fetch_shown import question_keys, series_words
    from appliance.running.operator_here import operator_here
    from appliance.spool import Spool

    settings = settings_of(ctx)
    keys = question_keys(patient=patient, accession=accession, study=study, series=series)
    database = Database(settings.database_url)
    database.check()
    actor = operator_here(now_utc(), "").actor
    fetcher = Fetcher(settings, database, Spool(settings.data_dir / "spool"), peer, actor)
    protocols = None if take_all else tuple(settings.protocols.values())
    choices = fetcher.plan(Question(keys, series, protocols))
    wanted = [choice for choice in choices if choice.verdict is Verdict.FETCH]
    for choice in choices:
        _say(f"{series_words(choice.series)}: {choice.verdict}, {choice.words}")
    if not choices:
        _say(f"{peer} has no CT series that matches.")
    if dry_run:
        _say(f"{len(wanted)} of {len(choices)} series would be fetched.")
        return
    short = 0
    for number, choice in enumerate(wanted, 1):
        begun = f"Fetching series {number} of {len(wanted)}"
        with console.status(begun) as status:
            fetched = fetcher.fetch(choice, partial(_show, status, begun))
        short += bool(fetched.problem)
        problem = f"; {fetched.problem}" if fetched.problem else ""
        _say(f"{series_words(choice.series)}: {fetched.came} objects fetched{problem}")
    if short:
        raise click.ClickException(f"{short} of {len(wanted)} series did not come whole; fetch again")
    if wanted:
        _say("`delineate case list` shows what becomes of them.")


def _show(status: Status, begun: str, count: int) -> None:
    status.update(f"{begun}: {count} objects")


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, soft_wrap=True)
