"""A model from elsewhere, or a package of our own from another box, taken in: whole and checked, or not at all."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

from appliance.errors import ApplianceError, ModelRefused, Reason
from appliance.importing.converted import ImportRequest
from appliance.importing.importing import import_model
from appliance.running.model_changes import note_event
from appliance.segmentation.model_package import digest_of, load_package, read_manifest
from appliance.settings import Settings
from appliance.spool.model_store import ModelStore, StoredModel


def import_package(
    settings: Settings, source: Path, request: ImportRequest, on_step: Callable[[str], None]
) -> StoredModel:
    """Take a model in under a name and version that are free; it is not active by that.

    Args:
        settings: where models are kept.
        source: a package of our own form, or a model of any format that can be imported.
        request: what the person who imports adds; a package of our own form takes nothing.
        on_step: hears of each step.

    Raises:
        ModelRefused: it cannot be used, or its name and version are taken.
        ApplianceError: this installation cannot convert models.
    """
    store = ModelStore.of(settings)
    if request.name:
        store.refuse_taken(request.name, request.version)
    with store.incoming() as folder:
        package = folder / "package"
        if is_package(source):
            on_step("Copying a package of our own form")
            _copy(source, package, request)
        else:
            _refuse_without_torch()
            import_model(source, package, request, on_step)
        on_step("Taking it into the store")
        model = store.take_in(package)
    fields = {"name": model.name, "version": model.version, "digest": digest_of(model.folder), "source": source.name}
    note_event(settings, "model_imported", **fields)
    return model


def is_package(source: Path) -> bool:
    """Whether a folder has a manifest of ours, digests and all."""
    try:
        read_manifest(source)
    except ModelRefused:
        return False
    return True


def _copy(source: Path, package: Path, request: ImportRequest) -> None:
    """Copy what belongs to a package, and check the copy.

    Raises:
        ModelRefused: MODEL_MISSING or MODEL_ALTERED; MODEL_INVALID, it was to be changed on the way.
    """
    manifest = read_manifest(source)
    asked = (request.name or manifest.name, request.version if request.name else manifest.version)
    if request.manifest or request.licence or asked != (manifest.name, manifest.version):
        sentence = f"{source.name} is a package of {manifest.name} {manifest.version} already; import it as it is"
        raise ModelRefused(Reason.MODEL_INVALID, f"{sentence}, without --name, --licence and --settings")
    load_package(source)
    package.mkdir()
    names = {"manifest.json", "CARD.md", "import_report.json"}
    names |= {file for fold in manifest.folds for file in (fold.file, fold.tensors) if file}
    for name in sorted(names):
        if (source / name).is_file():
            shutil.copyfile(source / name, package / name)
    load_package(package)


def _refuse_without_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise ApplianceError("converting models needs torch; install it with `pip install delineate[import]`")
