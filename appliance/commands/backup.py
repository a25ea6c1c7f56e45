"""`delineate backup` and `delineate restore`."""

from pathlib import Path

import click

from appliance.commands.asking import console, settings_of


@click.command()
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--database-is-done", is_flag=True, help="TARGET/database.dump was written just before, by pg_dump.")
@click.pass_context
def backup(ctx: click.Context, target: Path, *, database_is_done: bool) -> None:
    """Copy rows and files of this box to the folder TARGET; the box goes on working."""
    from appliance.running.backup import back_up

    console.print(back_up(settings_of(ctx), target, database_is_done=database_is_done), soft_wrap=True, markup=False)


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.pass_context
def restore(ctx: click.Context, source: Path) -> None:
    """Make a box of the backup in SOURCE; data_dir and the database have to be empty."""
    from appliance.running.backup import restore as bring_back

    restored = bring_back(settings_of(ctx), source)
    for sentence in restored.missing:
        console.print(sentence, soft_wrap=True, markup=False)
    again = f"{restored.queued_again} objects that came later are queued again"
    console.print(f"rows as of {restored.of}; {again}; {len(restored.missing)} files are missing", soft_wrap=True)
