"""`delineate models`: which models there are, what each one is, and which version works."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from appliance.commands.asking import console, settings_of
from appliance.dicom.findings import amount
from appliance.spool.model_store import ModelStore, StoredModel


@click.group()
def models() -> None:
    """Models: those that came with the release, and your own."""


def _named(command: Callable[..., None]) -> Callable[..., None]:
    return click.argument("name")(click.argument("version", required=False)(command))


def _find(ctx: click.Context, name: str, version: str | None) -> StoredModel:
    return ModelStore.of(settings_of(ctx)).find(name, version)


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, soft_wrap=True)


@models.command("list")
@click.option("--removed", is_flag=True, help="Show what was removed instead.")
@click.pass_context
def models_list(ctx: click.Context, *, removed: bool) -> None:
    """Print every version of every model."""
    from appliance.running.models_shown import models_table, removed_table

    settings = settings_of(ctx)
    console.print(removed_table(settings) if removed else models_table(settings))


@models.command("show")
@_named
@click.pass_context
def models_show(ctx: click.Context, name: str, version: str | None) -> None:
    """Print what model NAME says about itself: its active version, or VERSION."""
    from appliance.running.models_shown import model_words, structures_of
    from appliance.segmentation.model_package import read_manifest

    model = _find(ctx, name, version)
    console.print(structures_of(read_manifest(model.folder)))
    for sentence in model_words(settings_of(ctx), model):
        _say(sentence)


@models.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--name", default="", help="What the model is called here; made from SOURCE when left out.")
@click.option("--version", default="1.0.0", show_default=True, help="Which version of it this is.")
@click.option("--licence", default="", help="Licence of the weights, where SOURCE does not say.")
@click.option(
    "--settings",
    "changes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with what the manifest shall say beside or instead of what SOURCE says.",
)
@click.pass_context
def models_import(
    ctx: click.Context, source: Path, name: str, version: str, licence: str, changes: Path | None
) -> None:
    """Take in SOURCE, a model of another program or a package of our own; nothing that it holds is executed."""
    from appliance.importing.converted import ImportRequest
    from appliance.running.model_imports import import_package

    request = ImportRequest(name, version, None if changes is None else _toml(changes), licence)
    model = import_package(settings_of(ctx), source, request, lambda step: _say(f"{step} …"))
    named = f"{model.name} {model.version}"
    _say(f"{named} is imported, and not active yet. Next:")
    _say(f"  delineate models show {named}       what it says about itself, and how it was converted")
    _say(f"  delineate models activate {named}   verifies it and lets it work")
    _say(f'  model = "{model.name}" in a file of protocols/, and `delineate doctor`')


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken TOML, or bytes that are no text
        raise click.ClickException(f"{path}: {error}; correct the file") from error


@models.command("verify")
@_named
@click.pass_context
def models_verify(ctx: click.Context, name: str, version: str | None) -> None:
    """Check NAME's files against their digests, open its networks and ask each about a tile; changes nothing."""
    _say(_verified_in_words(ctx, _find(ctx, name, version)))


def _verified_in_words(ctx: click.Context, model: StoredModel) -> str:
    from appliance.running.model_changes import verify

    verified = verify(model, settings_of(ctx).worker.threads)
    manifest = verified.package.manifest
    tile = " x ".join(map(str, manifest.input.tile))
    return (
        f"{manifest.name} {manifest.version}: digests verified ({verified.package.digest[:12]}…), "
        f"{amount(len(manifest.folds), 'fold')} asked about a tile of {tile}, {verified.trial.seconds:.2f} s each, "
        f"run by {' and '.join(verified.trial.engines)}."
    )


@models.command("activate")
@click.argument("name")
@click.argument("version")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def models_activate(ctx: click.Context, name: str, version: str, *, yes: bool) -> None:
    """Let VERSION of model NAME work from the next case on; an older version is the undo."""
    from appliance.running.model_changes import activate, what_changes
    from appliance.segmentation.model_package import read_manifest

    model = _find(ctx, name, version)
    if model.is_active:
        _say(f"{name} {version} is active already.")
        return
    _say(_verified_in_words(ctx, model))
    for sentence in what_changes(settings_of(ctx), model, read_manifest(model.folder)):
        _say(sentence)
    if not yes:
        click.confirm("Activate it?", abort=True)
    activate(settings_of(ctx), model)
    _say(f"{name} {version} is active from the next case on; nothing has to be restarted.")


@models.command("remove")
@click.argument("name")
@click.argument("version")
@click.pass_context
def models_remove(ctx: click.Context, name: str, version: str) -> None:
    """Take VERSION of model NAME away, where nothing needs it."""
    from appliance.running.model_changes import remove

    remove(settings_of(ctx), _find(ctx, name, version))
    _say(f"{name} {version} is removed; `delineate models restore {name} {version}` brings it back.")


@models.command("restore")
@click.argument("name")
@click.argument("version")
@click.pass_context
def models_restore(ctx: click.Context, name: str, version: str) -> None:
    """Bring back VERSION of model NAME that was removed; it is not active by that."""
    from appliance.running.model_changes import restore

    restore(settings_of(ctx), name, version)
    _say(f"{name} {version} is there again; `delineate models activate {name} {version}` lets it work.")


@models.command("calibrate")
@_named
@click.option(
    "--cases",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Your own cases: a folder for each, with its CT and the structure set that a person drew.",
)
@click.option("--phantoms", default=30, show_default=True, help="How many synthetic pelves, where no cases are given.")
@click.option("--first-seed", default=1, show_default=True, help="Of the phantoms; never one that was trained on.")
@click.pass_context
def models_calibrate(
    ctx: click.Context, name: str, version: str | None, folder: Path | None, phantoms: int, first_seed: int
) -> None:
    """Choose from where on NAME's structures are flagged, on scans whose truth is known; makes a new version of it."""
    from appliance.running.models_calibrated import calibrate, calibration_table, calibration_words

    def show(done: int, total: int, case: str) -> None:
        _say(f"{done} of {total}: {case}")

    source = folder if folder is not None else range(first_seed, first_seed + phantoms)
    made, report = calibrate(settings_of(ctx), _find(ctx, name, version), source, show)
    console.print(calibration_table(report))
    for sentence in calibration_words(report):
        _say(sentence)
    _say(f"{name} {made.version} is there; `delineate models activate {name} {made.version}` lets it work.")
