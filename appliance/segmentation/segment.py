"""The pure middle: a CT volume to the regions of one model, and how far they can be trusted."""

from dataclasses import dataclass

from appliance.clock import Effort
from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.roi import RoiMask
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import ModelRefused, Reason
from appliance.segmentation.ensemble import Ensemble, OnTile
from appliance.segmentation.input_check import check_input
from appliance.segmentation.manifest import Manifest
from appliance.segmentation.quality import RoiQuality, assess
from appliance.segmentation.roi_rules import ClassLabels, apply_rules

AIR_HU = -900
"""Below this there is air, and no tissue of any organ but lung and gut."""


@dataclass(frozen=True, eq=False)
class Segmented:
    """What one model found in one scan.

    Attributes:
        masks: the ROIs that were found, in the manifest's order, in boxes of the CT's grid.
        quality: one for each of them.
        warnings: sentences about the scan: where it is not quite what the model was made for.
        network_effort: what each fold's network runs cost, without all that is around them.
    """

    masks: tuple[RoiMask, ...]
    quality: tuple[RoiQuality, ...]
    warnings: tuple[str, ...] = ()
    network_effort: tuple[Effort, ...] = ()


def segment(
    ensemble: Ensemble, volume: CtVolume, description: ScanDescription, on_tile: OnTile = lambda *_: None
) -> Segmented:
    """Ask a model about a scan.

    Args:
        ensemble: the model, warm.
        volume: the CT.
        description: what its header says beside that.
        on_tile: called after each network run; it may raise to stop.

    Raises:
        SeriesRefused: INPUT_OUTSIDE_MODEL_LIMITS, ORIENTATION_UNSUPPORTED.
        ModelRefused: MODEL_INVALID if a network answers with anything but numbers, or the same everywhere.
    """
    manifest = ensemble.package.manifest
    warnings = check_input(volume, description, manifest)
    labelled = ensemble.label(volume, on_tile)
    _refuse_one_answer(labelled.labels, volume, manifest)
    masks = tuple(apply_rules(labelled.labels, labelled.grid, manifest))
    quality = assess(masks, labelled, volume.geometry, manifest)
    return Segmented(masks, quality, warnings, labelled.network_effort)


def _refuse_one_answer(labels: ClassLabels, volume: CtVolume, manifest: Manifest) -> None:
    """Check that the answer depends on the scan: what alone fills all that was looked at, air and all, is no organ.

    A model that answers background everywhere is met later: nothing was found.

    Raises:
        ModelRefused: MODEL_INVALID.
    """
    for number, box in labels.boxes.items() if len(labels.boxes) == 1 else ():
        if (labels.voxels[box] == number).all() and (volume.hu[box] < AIR_HU).any():
            raise ModelRefused(
                Reason.MODEL_INVALID,
                f"model {manifest.name} {manifest.version} answers {manifest.classes[number]} whatever it is shown, "
                "air included; verify the model package",
            )
