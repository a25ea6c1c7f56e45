"""`delineate account`, `reconcile` and `retention`: that nothing is lost, here or at the PACS, and what may go."""

import json
from dataclasses import asdict

import click

from appliance.clock import now_utc
from appliance.commands.asking import console, settings_of
from appliance.records import Database
from appliance.settings import Settings
from appliance.spool import Spool

_as_json = click.option("--json", "as_json", is_flag=True, help="Print it for programs.")


def _opened(ctx: click.Context) -> tuple[Settings, Database, Spool]:
    settings = settings_of(ctx)
    database = Database(settings.database_url)
    database.check()
    return settings, database, Spool(settings.data_dir / "spool")


@click.command("account")
@_as_json
@click.pass_context
def account_command(ctx: click.Context, *, as_json: bool) -> None:
    """Say what became of every object that was ever received; exits with 1 if anything cannot be accounted for."""
    from appliance.casework.stocktaking import take_stock
    from appliance.records.account import account

    _, database, spool = _opened(ctx)
    with database.reading() as tx:
        told = account(tx)
    waiting = len(spool.arrivals())
    residue = [*told.residue, *take_stock(database, spool, now_utc()).in_words()]
    if as_json:
        click.echo(json.dumps({**asdict(told), "waiting": waiting, "residue": residue}, indent=1))
    else:
        counts = {name: count for name, count in asdict(told).items() if name not in {"received", "residue"}}
        words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        console.print(f"{told.received} objects received: {words}; {waiting} more wait to be indexed.")
        for sentence in residue:
            console.print(f"[red]not accounted for[/]: {sentence}", soft_wrap=True)
        if not residue:
            console.print("Nothing is unaccounted for.")
    ctx.exit(1 if residue else 0)


@click.command()
@click.option("--days", type=click.IntRange(1, 365), help="How far back; delivery.reconcile_days when absent.")
@_as_json
@click.pass_context
def reconcile(ctx: click.Context, days: int | None, *, as_json: bool) -> None:
    """Compare every PACS that answers C-FIND with what is here, and send again what it has lost."""
    from appliance.delivery.reconciling import Reconciler

    settings, database, spool = _opened(ctx)
    found = Reconciler(settings, database, spool).run(now_utc(), days)
    if as_json:
        click.echo(json.dumps(found.fields(), indent=1))
    else:
        for sentence in found.in_words():
            console.print(sentence, soft_wrap=True, markup=False)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.pass_context
def retention(ctx: click.Context, *, dry_run: bool) -> None:
    """Remove files whose term in [retention] is over; the caretaker does so every night."""
    from appliance.casework.retention import Retention

    rule = Retention(*_opened(ctx))
    removed = rule.due(now_utc()) if dry_run else rule.run(now_utc())
    console.print(f"{'Would remove' if dry_run else 'Removed'}: {removed.in_words()}.")
