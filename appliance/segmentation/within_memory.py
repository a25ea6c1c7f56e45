"""A scan through a warm model within the memory that there is: planned before, stepped down meanwhile."""

from collections.abc import Callable
from dataclasses import replace

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.backends.network import OutOfMemory
from appliance.segmentation.ensemble import OnTile
from appliance.segmentation.memory_plan import Scan, in_gb
from appliance.segmentation.opening import WarmModel
from appliance.segmentation.segment import Segmented, segment


def segment_within_memory(
    model: WarmModel,
    volume: CtVolume,
    description: ScanDescription,
    on_tile: OnTile = lambda *_: None,
    on_plan: Callable[[str], None] = lambda _: None,
) -> Segmented:
    """Segment a scan as planned; where the GPU is fuller than it looked, once more with the classes on the host.

    Args:
        model: loaded.
        volume: the CT.
        description: what its header says beside that.
        on_tile: called after each network run; it may raise to stop.
        on_plan: called with each plan in words, before it is followed.

    Raises:
        SeriesRefused: MEMORY_TOO_SMALL before the first run if nothing fits, or if memory went away meanwhile; and
            what `segment` raises.
        ModelRefused: as `segment` does.
    """
    plan = model.plan(Scan.of(volume, model.package.manifest))
    on_plan(plan.words)
    while True:
        ensemble = model.ensemble(plan)
        no_room: tuple[type[Exception], ...] = (OutOfMemory, *ensemble.arrays.memory_errors)
        try:
            return segment(ensemble, volume, description, on_tile)
        except no_room as error:
            if plan.accumulators == "host":
                raise SeriesRefused(
                    Reason.MEMORY_TOO_SMALL,
                    f"memory ran out on the way, though {in_gb(plan.host_bytes)} were free before; close what else "
                    "runs on the box, and send the series again",
                ) from error
            words = f"{plan.words}: the GPU was full, so the classes are added up in the host's memory"
            plan = replace(plan, accumulators="host", batch=1, words=words)
            on_plan(plan.words)
