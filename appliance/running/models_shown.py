"""Models in words: for `delineate models list` and `delineate models show`."""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from appliance.casework.warm_models import engine_record
from appliance.dicom.findings import amount
from appliance.errors import ModelRefused
from appliance.importing.importing import REPORT_FILE
from appliance.importing.report import ImportReport
from appliance.running.model_changes import protocols_with
from appliance.segmentation.manifest import Limits, Manifest, NetworkInput, QualityLimits, RoiRule
from appliance.segmentation.model_package import digest_of, read_manifest
from appliance.settings import Settings
from appliance.spool.model_store import ModelStore, StoredModel

_CROPS = {"body": "the box around the body", "whole": "the whole scan"}
_RESAMPLINGS = {"area": "means over what a voxel covers", "cubic": "cubic splines"}
_PADDINGS = {"air": "air", "zero": "zeros"}
_ENSEMBLES = {
    "mean_softmax": "the mean of their softmax",
    "mean_logits": "the mean of their logits",
    "majority": "the majority of their decisions",
}


def models_table(settings: Settings) -> Table:
    """Every version of every model on a line."""
    table = Table("Model", "Version", "State", "Structures", "Folds", "Size", "Runs on", "Source", "In protocols")
    for model in ModelStore.of(settings).models():
        naming = (
            ", ".join(protocol.name for protocol in protocols_with(settings, model.name)) if model.is_active else ""
        )
        table.add_row(*(Text(cell) for cell in (model.name, model.version, *_cells(settings, model), naming)))
    return table


def removed_table(settings: Settings) -> Table:
    """What was removed, the latest first."""
    table = Table("Model", "Version", "Where it is")
    for name, version, folder in ModelStore.of(settings).removed():
        table.add_row(Text(name), version, Text(str(folder)))
    return table


def _cells(settings: Settings, model: StoredModel) -> tuple[str, ...]:
    """State, structures, folds, size, engine and source of a version."""
    size = size_in_words(sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file()))
    try:
        manifest = read_manifest(model.folder)
    except ModelRefused:
        return "damaged", "", "", size, "", "bundled" if model.is_bundled else "imported"
    kind = "bundled" if model.is_bundled else "imported"
    source = manifest.source or ("this release" if model.is_bundled else "a package of our own form")
    state, engine = "active" if model.is_active else kind, _engine(settings, model).partition(";")[0]
    return state, str(len(manifest.rois)), str(len(manifest.folds)), size, engine, source


def _engine(settings: Settings, model: StoredModel) -> str:
    """What a model ran on when it was last loaded here; empty where nobody knows."""
    words = engine_record(settings).runs_on(digest_of(model.folder)) or ""
    return words.removeprefix("runs on ")


def size_in_words(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


def model_words(settings: Settings, model: StoredModel) -> Iterator[str]:
    """Everything that a version says about itself, in sentences; its card comes last.

    Raises:
        ModelRefused: its manifest cannot be read.
    """
    manifest = read_manifest(model.folder)
    yield f"{manifest.title}. {model.folder}"
    yield f"Intended use: {manifest.intended_use}"
    yield f"Training: {manifest.training}"
    yield f"Licence: {manifest.licence}." + (f" Source: {manifest.source}." if manifest.source else "")
    yield from _input_words(manifest.input)
    yield from _ensemble_words(manifest)
    yield f"Scans that it is for: {'; '.join(_limit_words(manifest.limits))}."
    yield from _rule_words(manifest)
    yield f"Runs on {_engine(settings, model) or 'an engine that is chosen when it is first loaded'}."
    yield f"Digest of the package: {digest_of(model.folder)}."
    for fold in manifest.folds:
        tensors = f", {fold.tensors} {fold.tensors_sha256}" if fold.tensors else ""
        yield f"  {fold.file} {fold.sha256}{tensors}"
    yield from _report_words(model.folder / REPORT_FILE)
    card = model.folder / "CARD.md"
    if card.is_file():
        yield f"\n{card.read_text(encoding='utf-8', errors='replace').strip()}"


def structures_of(manifest: Manifest) -> Table:
    """What a model draws: a line for each structure, with its rules and from where on it is flagged."""
    table = Table("Structure", "Made of", "Rules", "Flagged")
    for roi in manifest.rois:
        cells = (roi.name, " or ".join(roi.classes), "; ".join(_roi_words(roi)), "; ".join(_flag_words(roi.quality)))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _by(values: tuple[float, ...] | tuple[int, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _input_words(given: NetworkInput) -> Iterator[str]:
    yield (
        f"Works on {_by(given.spacing_mm)} mm (z, y, x), tiles of {_by(given.tile)} voxels that overlap by "
        f"{100 * given.overlap:.0f} %, in {_CROPS[given.crop]}, orientation {given.orientation}."
    )
    mirrored = f"; asked mirrored along {', '.join(given.mirror)} as well" if given.mirror else ""
    air = "tiles of air are background without asking" if given.skip_air else "tiles of air are asked as well"
    yield (
        f"Resampled by {_RESAMPLINGS[given.resampling]}, beyond the scan {_PADDINGS[given.padding]}; {air}{mirrored}."
    )
    for number, channel in enumerate(given.channels, 1):
        low, high = (channel.offset_hu + channel.scale_hu * end for end in channel.clip)
        yield f"Channel {number}: (HU - {channel.offset_hu:g}) / {channel.scale_hu:g}, from {low:g} to {high:g} HU."


def _ensemble_words(manifest: Manifest) -> Iterator[str]:
    words = [f"{amount(len(manifest.folds), 'network')} ({manifest.members}), {_ENSEMBLES[manifest.ensemble]}"]
    if manifest.early_exit is not None:
        words.append(f"the rest is not asked where the first two agree on {100 * manifest.early_exit:g} % of a tile")
    words.append(f"added up in {manifest.accumulate}")
    words.append(f"computed in {' or '.join(('float32', *manifest.precisions))}")
    yield f"Ensemble: {'; '.join(words)}."


def _limit_words(limits: Limits) -> Iterator[str]:
    warned = set(limits.warn)

    def told(name: str, words: str) -> str:
        return f"{words} (else a warning)" if name in warned else words

    low, high = limits.slice_spacing_mm
    yield told("slice_spacing_mm", f"slices {low:g} to {high:g} mm apart")
    yield told("min_extent_mm", f"at least {_by(limits.min_extent_mm)} mm (z, y, x)")
    if limits.pixel_spacing_mm:
        yield told("pixel_spacing_mm", "pixels of {:g} to {:g} mm".format(*limits.pixel_spacing_mm))
    for name, words in (("kernels", "kernel"), ("body_parts", "body part"), ("patient_positions", "position")):
        patterns = getattr(limits, name)
        if patterns:
            yield told(name, f"{words} {' or '.join(patterns)}")
    for one in limits.hu_percentiles:
        words = f"percentile {one.percentile:g} of the HU within the body {one.hu[0]:g} to {one.hu[1]:g}"
        yield told("hu_percentiles", words)


def _rule_words(manifest: Manifest) -> Iterator[str]:
    if manifest.max_draft_entropy is not None:
        yield f"Everything is flagged where the mean entropy of the structures is above {manifest.max_draft_entropy:g}."
    for one in manifest.slice_exclusions:
        winner = one.higher if one.higher_dominates else one.lower
        yield f"{one.higher} and {one.lower} never share a slice; it goes to {winner}."
    for rule in manifest.summed_probabilities:
        yield f"Where {rule.first} and {rule.second} together outweigh {rule.external}, the likelier of the two wins."


def _roi_words(roi: RoiRule) -> Iterator[str]:
    if roi.side:
        yield f"the patient's {roi.side} of the midline of {' and '.join(roi.midline_from)}"
    if roi.keep == "largest":
        yield "the largest part"
    elif roi.keep != "all":
        rule, _, share = roi.keep.partition(":")
        whole = {"min_fraction": "the largest", "min_share": "all parts together, and the largest"}[rule]
        yield f"parts of at least {100 * float(share):g} % of {whole}"
    if roi.fill_holes != "none":
        yield {"axial": "holes in slices filled", "all": "holes filled"}[roi.fill_holes]
    if roi.smooth_mm:
        yield f"smoothed over {roi.smooth_mm:g} mm"
    if roi.must_touch:
        yield f"touches {' and '.join(roi.must_touch)}"
    if roi.must_not_touch:
        yield f"does not touch {' or '.join(roi.must_not_touch)}"


def _flag_words(quality: QualityLimits) -> Iterator[str]:
    if quality.min_fold_dice is not None:
        yield f"Dice of the folds below {quality.min_fold_dice:g}"
    if quality.max_entropy is not None:
        yield f"entropy above {quality.max_entropy:g}"
    if quality.max_doubt is not None:
        yield f"doubt above {quality.max_doubt:g}"
    if quality.volume_cm3 is not None:
        yield "volume outside {:g} to {:g} cm³".format(*quality.volume_cm3)


def _report_words(path: Path) -> Iterator[str]:
    """How it was converted, where it was imported; its card says more."""
    if not path.is_file():
        return
    report = ImportReport.model_validate_json(path.read_bytes())
    yield f"Imported from {report.source} ({report.format}); what was read of it:"
    for name, digest in report.source_sha256.items():
        yield f"  {name} {digest}"
    yield f"Converted with {', '.join(f'{program} {version}' for program, version in report.tools.items())}."
    yield f"The conversion was kept in {'; '.join(report.confinement)}."
