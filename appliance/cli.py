"""The command line: `delineate`. Reads the settings, wires a role or a question to them, and speaks to people."""

import logging
from functools import partial
from pathlib import Path

import click

from appliance import __version__
from appliance.commands.asking import console, settings_of
from appliance.commands.audit import audit
from appliance.commands.backup import backup, restore
from appliance.commands.cases import case
from appliance.commands.fetch import fetch
from appliance.commands.models import models
from appliance.commands.safekeeping import account_command, reconcile, retention
from appliance.commands.segment import segment
from appliance.dicom.roi import RoiTemplate
from appliance.errors import ApplianceError, SettingsError
from appliance.settings import Settings, load_settings


class _Words(click.Group):
    """A group whose commands end in one clear sentence, not in a traceback, when the appliance says no."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ApplianceError as problem:
            raise click.ClickException(str(problem)) from problem


@click.group(cls=_Words, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="delineate")
@click.option(
    "--config",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("configs"),
    show_default=True,
    help="Folder with appliance.toml, peers.toml, rois.toml, planning_systems.toml and protocols/.",
)
@click.pass_context
def main(ctx: click.Context, folder: Path) -> None:
    """Contours CT for radiotherapy: CT series in over DICOM, RTSTRUCT back to the PACS."""
    ctx.obj = partial(load_settings, folder)


@main.command()
@click.pass_context
def up(ctx: click.Context) -> None:
    """Start and supervise everything on this box."""
    from appliance.running.log_lines import log_to_stderr
    from appliance.running.supervisor import Supervisor

    log_to_stderr()
    Supervisor(settings_of(ctx)).run()


_under_supervisor = click.option("--leave-with-parent", is_flag=True, hidden=True)


def _role_command(role: str, words: str) -> None:
    @main.command(role, help=words)
    @_under_supervisor
    @click.pass_context
    def _command(ctx: click.Context, *, leave_with_parent: bool) -> None:
        _run_role(role, settings_of(ctx), leave_with_parent=leave_with_parent)


def _run_role(role: str, settings: Settings, *, leave_with_parent: bool) -> None:
    from appliance.running import roles
    from appliance.running.log_lines import log_to_stderr

    log_to_stderr()
    if leave_with_parent:
        roles.leave_with_parent()
    roles.ROLES[role](settings)


_role_command("listen", "Receive only: the DICOM listener.")
_role_command("assemble", "Complete series and ring for workers only.")
_role_command("deliver", "Send results only.")
_role_command("tend", "Only what is done from time to time: sign the trail, reconcile, fetch, make room.")


@main.command()
@click.option("--device", help="Where its networks run: auto, cpu, cuda or cuda:1; that of worker.devices when absent.")
@_under_supervisor
@click.pass_context
def work(ctx: click.Context, device: str | None, *, leave_with_parent: bool) -> None:
    """Segment only: a Celery worker with warm models."""
    from appliance.running.roles import on_device

    _run_role("work", on_device(settings_of(ctx), device), leave_with_parent=leave_with_parent)


@main.command(hidden=True)
@click.option("--device", required=True)
@click.option("--name", required=True)
@click.pass_context
def bench(ctx: click.Context, device: str, name: str) -> None:
    """Run the networks for the worker that starts this, and for nobody else."""
    from appliance.running import roles
    from appliance.running.log_lines import log_to_stderr

    log_to_stderr()
    roles.bench(roles.on_device(settings_of(ctx), device), name)


@main.command()
@click.pass_context
def migrate(ctx: click.Context) -> None:
    """Bring the database schema to this release's version."""
    from appliance.records import Database

    database = Database(settings_of(ctx).database_url)
    database.migrate()
    console.print(f"{database.display_url}: schema {database.check()}")


@main.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check configuration, disk, models, GPU, ports, database, broker and every peer, in words."""
    from appliance.running.doctor import Verdict, examine

    marks = {
        Verdict.GOOD: "[green]good [/]",
        Verdict.NOTE: "[yellow]note [/]",
        Verdict.WRONG: "[red]WRONG[/]",
    }
    wrong = 0
    for finding in examine(settings_of(ctx)):
        wrong += finding.verdict is Verdict.WRONG
        console.print(f"{marks[finding.verdict]}  [bold]{finding.subject}[/]: {finding.words}", soft_wrap=True)
    if wrong:
        raise click.ClickException(f"{wrong} of the checks found something wrong")
    console.print("All is well.")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option("--ct", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder with its CT series.")
@click.option("--json", "as_json", is_flag=True, help="Print the report for programs.")
@click.pass_context
def check(ctx: click.Context, file: Path, ct: Path | None, *, as_json: bool) -> None:
    """Examine the structure set FILE, whoever wrote it; exits with 1 if it finds an error."""
    from appliance.running import checking

    report = checking.check_file(file, ct, _known_structures(ctx))
    if as_json:
        click.echo(checking.as_json(report))
    else:
        console.print(checking.structures_table(report) if report.structures else "No structures.")
        for finding in report.findings:
            console.print(checking.finding_line(finding), soft_wrap=True)
        console.print(f"{file.name}: {report.summary}", soft_wrap=True, markup=False)
    ctx.exit(1 if report.has_errors else 0)


def _known_structures(ctx: click.Context) -> dict[str, RoiTemplate]:
    """The structures of rois.toml; none where this is no installation, as a file can be checked anywhere."""
    try:
        return settings_of(ctx).rois
    except SettingsError as problem:
        click.echo(f"Names are not compared with rois.toml: {problem}", err=True)
        return {}


main.add_command(backup)
main.add_command(audit)
main.add_command(case)
main.add_command(fetch)
main.add_command(models)
main.add_command(restore)
main.add_command(segment)
main.add_command(account_command)
main.add_command(reconcile)
main.add_command(retention)


@main.group()
def protocol() -> None:
    """Protocols: which series get which structures, in which form."""


@protocol.command("list")
@click.pass_context
def protocol_list(ctx: click.Context) -> None:
    """Print every protocol, in the order in which they are tried."""
    from appliance.running.protocols_shown import protocols_table

    console.print(protocols_table(settings_of(ctx)))


@protocol.command("show")
@click.argument("name")
@click.pass_context
def protocol_show(ctx: click.Context, name: str) -> None:
    """Print what protocol NAME will write: each structure, and the form of the whole."""
    from appliance.running.protocols_shown import find_protocol, form_words, structures_table

    settings = settings_of(ctx)
    shown = find_protocol(settings, name)
    console.print(structures_table(settings, shown))
    for sentence in form_words(settings, shown):
        console.print(sentence, markup=False, soft_wrap=True)


@main.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the package.")
def train(config: Path, out: Path) -> None:
    """Train an ensemble as CONFIG says and publish it as a model package; goes on where it was interrupted."""
    try:
        from appliance.training.config import load_training_config
        from appliance.training.trainer import train as run
    except ModuleNotFoundError as missing:
        message = f"training needs {missing.name}; install it with `pip install delineate[train]`"
        raise click.ClickException(message) from missing

    def show(stage: str, done: int, total: int, loss: float) -> None:
        console.print(f"{stage}: {done} of {total}" + (f", loss {loss:.3f}" if loss else ""))

    package = run(load_training_config(config), out, on_progress=show)
    console.print(f"Model package: {package}", soft_wrap=True)


@main.command()
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True)
@click.option("--ct", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Your own CT series.")
@click.option("--keep", is_flag=True, help="Leave the appliance and the small PACS running until Ctrl-C.")
@click.pass_context
def demo(ctx: click.Context, folder: Path, ct: Path | None, *, keep: bool) -> None:
    """Show the whole line at work: a CT series in, a structure set back, and its proof."""
    from appliance.running.demo.show import run_demo

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    run_demo(settings_of(ctx), folder, ct, console, keep=keep)
