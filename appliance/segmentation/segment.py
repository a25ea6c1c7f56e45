"""The pure middle: a CT volume to the regions of one model, and how far they can be trusted."""

from dataclasses import dataclass

from appliance.clock import Effort
from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.roi import RoiMask
from appliance.dicom.scan_description import ScanDescription
from appliance.segmentation.ensemble import Ensemble, OnTile
from appliance.segmentation.preprocess import refuse_outside_limits
from appliance.segmentation.quality import RoiQuality
from appliance.segmentation.roi_rules import apply_rules


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
        ModelRefused: MODEL_INVALID if a network answers with anything but numbers.
    """
    del description
    manifest = ensemble.package.manifest
    refuse_outside_limits(volume.geometry, manifest)
    labelled = ensemble.label(volume, on_tile)
    masks = tuple(apply_rules(labelled.labels, labelled.grid, manifest))
    quality = tuple(RoiQuality(mask.name, None, None, mask.volume_cm3(volume.geometry)) for mask in masks)
    return Segmented(masks, quality, network_effort=labelled.network_effort)
