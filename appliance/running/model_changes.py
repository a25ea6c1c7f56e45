"""What an operator does with models: verify, activate, remove, restore, each with its event in the trail.

None of it needs a database. The event is left as a durable note in the spool, as the listener's are, and the
assembler writes it into the trail with the time when it happened; so a box can get its models before its first start.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from appliance.clock import now_utc
from appliance.errors import ModelRefused, Reason
from appliance.records import Database, queries
from appliance.records.tables import CaseState
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.model_package import ModelPackage, load_package, read_manifest
from appliance.segmentation.opening import open_ensemble
from appliance.segmentation.trial import Trial, try_out
from appliance.settings import Protocol, Settings
from appliance.spool import Spool
from appliance.spool.model_store import ModelStore, StoredModel


@dataclass(frozen=True)
class Verified:
    """A package that may work: every digest is the manifest's, and every network answered."""

    package: ModelPackage
    trial: Trial


def verify(model: StoredModel, threads: int) -> Verified:
    """Look at everything that can be wrong with a package before a patient's scan does.

    Raises:
        ModelRefused: with the fold that is missing, altered or does not answer.
    """
    package = load_package(model.folder)
    if not model.is_bundled and (package.manifest.name, package.manifest.version) != (model.name, model.version):
        says = f"{package.manifest.name} {package.manifest.version}"
        sentence = f"{model.folder} holds model {says}, not the one that it is named for; remove and import it again"
        raise ModelRefused(Reason.MODEL_INVALID, sentence)
    return Verified(package, try_out(open_ensemble(package, threads)))


def protocols_with(settings: Settings, name: str) -> list[Protocol]:
    """The protocols that name a model."""
    return [protocol for protocol in settings.protocols.values() if name in protocol.models]


def what_changes(settings: Settings, model: StoredModel, after: Manifest) -> Iterator[str]:
    """In sentences, what activating a version means for the protocols that name the model."""
    before = _manifest_before(settings, model.name)
    drawn = {roi.name for roi in after.rois}
    if before is None:
        yield f"{model.name} {after.version} becomes the first active version; it draws {len(drawn)} structures."
    else:
        drew = {roi.name for roi in before.rois}
        yield f"{model.name} {after.version} takes the place of {before.version}."
        yield f"Structures gained: {_listed(drawn - drew)}; lost: {_listed(drew - drawn)}."
    for protocol in protocols_with(settings, model.name):
        others = {other: _manifest_before(settings, other) for other in protocol.models if other != model.name}
        of_all = {other: set() if one is None else set(one.roi_names) for other, one in others.items()}
        missing = set(protocol.asked_of_model) - protocol.drawn_by({**of_all, model.name: drawn}).keys()
        if missing:
            yield f"Protocol {protocol.name} asks for {_listed(missing)}: its cases will be refused as long as it does."
    if not protocols_with(settings, model.name):
        yield f"No protocol names {model.name} yet; put it into one in protocols/."


def activate(settings: Settings, model: StoredModel) -> None:
    """Let a version work from the next case on.

    Raises:
        ModelRefused: MODEL_MISSING, it is not there any more.
    """
    store = ModelStore.of(settings)
    before = _manifest_before(settings, model.name)
    store.activate(model.name, model.version)
    fields = {"name": model.name, "version": model.version, "before": before.version if before else "none"}
    note_event(settings, "model_activated", **fields)


def remove(settings: Settings, model: StoredModel) -> None:
    """Take a version away, where nothing needs it; `restore` brings it back.

    Raises:
        ModelRefused: MODEL_INVALID, it came with the release, a protocol needs it, or cases wait for its model.
        DatabaseUnavailable: nobody can tell whether cases wait for it.
    """
    naming = ", ".join(protocol.name for protocol in protocols_with(settings, model.name))
    if model.is_active and naming and not model.is_bundled:
        sentence = (
            f"protocol {naming} needs {model.name} {model.version}, which is active; activate another version first"
        )
        raise ModelRefused(Reason.MODEL_INVALID, sentence)
    waiting = _cases_waiting_for(settings, model.name)
    if waiting:
        cases = ", ".join(map(str, waiting))
        sentence = f"case {cases} waits for model {model.name}; remove {model.version} when that is done"
        raise ModelRefused(Reason.MODEL_INVALID, sentence)
    ModelStore.of(settings).remove(model.name, model.version, now_utc())
    note_event(settings, "model_removed", name=model.name, version=model.version)


def restore(settings: Settings, name: str, version: str) -> StoredModel:
    """Bring back a version that was removed; it has to be activated again.

    Raises:
        ModelRefused: nothing such was removed, or it is there again.
    """
    model = ModelStore.of(settings).restore(name, version)
    note_event(settings, "model_restored", name=name, version=version)
    return model


def note_event(settings: Settings, event: str, **fields: str | int) -> None:
    """Leave an event for the trail, with the time of now."""
    told = {"event": event, "actor": "operator", "at": now_utc().isoformat(), **fields}
    Spool(settings.data_dir / "spool").leave_note("audit", dict(told))


def _manifest_before(settings: Settings, name: str) -> Manifest | None:
    """What the active version says about itself; None where none is active, or it cannot be read."""
    try:
        return read_manifest(ModelStore.of(settings).active(name))
    except ModelRefused:
        return None


def _cases_waiting_for(settings: Settings, name: str) -> list[int]:
    """Cases that are queued for a model, or in work with it; none before the first start."""
    if settings.database.url is None and not (settings.data_dir / "delineate.sqlite").exists():
        return []
    database = Database(settings.database_url)
    database.check()
    naming = {protocol.name for protocol in protocols_with(settings, name)}
    with database.reading() as tx:
        cases = queries.cases_in(tx, CaseState.QUEUED, CaseState.SEGMENTING)
        return [case.id for case in cases if name in (case.model or "").split(", ") or case.protocol in naming]


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
