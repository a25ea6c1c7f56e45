"""`delineate audit`: what happened, in words, as a file, and proven."""

from datetime import UTC, datetime
from pathlib import Path

import click

from appliance.clock import now_utc
from appliance.commands.asking import console, login_name, settings_of
from appliance.records import Database
from appliance.running import showing

_INSTANT = click.DateTime(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


def _database(ctx: click.Context) -> Database:
    database = Database(settings_of(ctx).database_url)
    database.check()
    return database


@click.group()
def audit() -> None:
    """The audit trail: what happened, in words, as a file, and proven."""


@audit.command("show")
@click.argument("case_id", metavar="CASE", type=int)
@click.pass_context
def show(ctx: click.Context, case_id: int) -> None:
    """Print everything that happened to CASE."""
    from appliance.audit import trail
    from appliance.records import queries

    database = _database(ctx)
    with database.reading() as tx:
        if queries.case_by_id(tx, case_id) is None:
            raise click.ClickException(f"there is no case {case_id}; `delineate case list` shows those there are")
        entries = trail.trail_of(tx, case_id)
    with database.transaction() as tx:
        what = f"case {case_id}"
        trail.record(tx, "trail_read", at=now_utc(), actor="operator", what=what, user=login_name())
    console.print(showing.trail_table(entries, f"Audit trail of case {case_id}"))


@audit.command("box")
@click.option("--limit", default=50, show_default=True, help="How many of the newest events to show.")
@click.pass_context
def box(ctx: click.Context, limit: int) -> None:
    """Print what happened to this box: starts, stops, refused associations, models exchanged."""
    from appliance.audit import trail

    database = _database(ctx)
    with database.reading() as tx:
        entries = trail.trail_of_box(tx, limit)
    with database.transaction() as tx:
        trail.record(tx, "trail_read", at=now_utc(), actor="operator", what="the box", user=login_name())
    console.print(showing.trail_table(entries, "What happened to this box"))


@audit.command("sign")
@click.pass_context
def sign(ctx: click.Context) -> None:
    """Sign the end of the trail now; it is signed once a day anyway."""
    from appliance.audit.signing import HeadSigner

    head = HeadSigner(settings_of(ctx), _database(ctx)).sign(now_utc())
    folder = settings_of(ctx).data_dir / "audit"
    console.print(f"Signed: {head.events} events, hash {head.hash}. Keep a copy of {folder} elsewhere.", soft_wrap=True)


@audit.command("verify")
@click.option(
    "--heads",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Signed heads that were kept elsewhere; those of this box when absent.",
)
@click.option(
    "--public-key",
    "key_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Whose signatures count, kept elsewhere; may be given again. The keys of this box when absent.",
)
@click.pass_context
def verify(ctx: click.Context, folder: Path | None, key_files: tuple[Path, ...]) -> None:
    """Prove that no event was changed, removed, added or moved; exits with 1 if one was."""
    from appliance.audit import signing, verifying

    folders = signing.AuditFolders(settings_of(ctx).data_dir)
    keys = [signing.public_key(path) for path in key_files or sorted(folders.public_keys.glob("*.pem"))]
    database = _database(ctx)
    heads = signing.signed_heads(database, folder or folders.heads)
    verdict = verifying.verify(database, heads, {signing.fingerprint(key): key for key in keys})
    if verdict.broken is not None:
        broken = verdict.broken
        raise click.ClickException(
            f"the trail was altered ({broken.fault}): {broken.words}. In order before that: {verdict.events} events."
        )
    signed = f"signed heads: {verdict.heads}" if verdict.heads else "no signed head yet (`delineate audit sign`)"
    console.print(f"The trail is whole: {verdict.events} events, {signed}.")


@audit.command("export")
@click.option("--from", "since", type=_INSTANT, help="From this day or instant on, UTC.")
@click.option("--to", "until", type=_INSTANT, help="Before this day or instant, UTC.")
@click.option("--case", "case_id", type=int, help="Of this case alone.")
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.pass_context
def export(ctx: click.Context, since: datetime | None, until: datetime | None, case_id: int | None, file: Path) -> None:
    """Write the trail to FILE, one line of JSON for each event, so that anyone can verify it (docs/audit.md)."""
    from appliance.audit import trail
    from appliance.audit.export import Extent, export_lines

    database = _database(ctx)
    count = 0
    with database.reading() as tx, file.open("w", encoding="utf-8") as lines:
        for line in export_lines(tx, Extent(_in_utc(since), _in_utc(until), case_id)):
            lines.write(line)
            count += 1
    with database.transaction() as tx:
        trail.record(tx, "trail_exported", at=now_utc(), actor="operator", count=count, user=login_name())
    console.print(f"{count} events written to {file}", soft_wrap=True)


def _in_utc(instant: datetime | None) -> datetime | None:
    return None if instant is None else instant.replace(tzinfo=UTC)
