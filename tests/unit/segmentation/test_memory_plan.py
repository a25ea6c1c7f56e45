"""What a case will need: the figures are those of arrays that can be counted by hand."""

from typing import Any

import numpy as np
import pytest

from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.memory_plan import EngineNeeds, Free, Plan, Scan, plan_memory
from tests.support.ct_volumes import scan, series_grid
from tests.support.model_packages import manifest_of_classes

GB = 10**9
CPU = EngineNeeds("the CPU", on_host=True, fold_bytes=50_000_000, host_bytes=GB)
GPU = EngineNeeds("the GPU", on_host=False, fold_bytes=50_000_000, host_bytes=0, device_bytes=2 * GB)
WHOLE_BODY = Scan((800, 512, 512), (1.0, 0.977, 0.977), box=(533, 200, 280))
INPUT: dict[str, Any] = {
    "spacing_mm": [1.5, 1.5, 1.5],
    "tile": [128, 128, 128],
    "overlap": 0.5,
    "orientation": "LPS",
    "channels": [{"offset_hu": 0.0, "scale_hu": 1000.0, "clip": [-1.0, 2.0]}],
}


def manifest(classes: int = 117, **replaced: Any) -> Any:
    return manifest_of_classes(classes, **{"input": INPUT, **replaced})


def planned(free: Free, engines: Any = (CPU,), case: Scan = WHOLE_BODY, **replaced: Any) -> Plan:
    return plan_memory(manifest(**replaced), case, engines, free)


def test_a_whole_body_with_117_classes_is_planned_in_a_few_gigabytes() -> None:
    plan = planned(Free(64 * GB))
    accumulators = 117 * (128 + 8) * 200 * 280 * 4
    assert accumulators < plan.host_bytes < accumulators + 7 * GB
    assert (plan.engine, plan.batch, plan.accumulators) == (0, 1, "host")
    assert plan.words.startswith(f"the CPU: needs {plan.host_bytes / 1e9:.1f} GB of 64.4 GB free")


def test_half_precision_of_the_sums_halves_them() -> None:
    saved = planned(Free(64 * GB)).host_bytes - planned(Free(64 * GB), accumulate="float16").host_bytes
    assert saved == pytest.approx(1.1 * 117 * 136 * 200 * 280 * 2, rel=0.01)


@pytest.mark.parametrize(
    ("classes", "case"),
    [(118, WHOLE_BODY), (117, Scan((900, 512, 512), (1.0, 0.977, 0.977), WHOLE_BODY.box))],
    ids=["classes", "slices"],
)
def test_more_of_anything_needs_more(classes: int, case: Scan) -> None:
    assert planned(Free(64 * GB), classes=classes, case=case).host_bytes > planned(Free(64 * GB)).host_bytes


def test_each_voxel_of_the_ct_counts_with_its_value_its_class_its_certainty_and_masks_in_the_making() -> None:
    finer = Scan((800, 512, 1024), (1.0, 0.977, 0.4885), WHOLE_BODY.box)
    more = planned(Free(64 * GB), case=finer).host_bytes - planned(Free(64 * GB)).host_bytes
    assert more >= 1.1 * 6 * (finer.voxels - WHOLE_BODY.voxels)


def test_the_body_alone_needs_less_than_the_whole_scan() -> None:
    whole = Scan(WHOLE_BODY.shape, WHOLE_BODY.spacing_mm)
    assert planned(Free(64 * GB), case=whole).host_bytes > 1.3 * planned(Free(64 * GB)).host_bytes


def test_a_case_that_cannot_fit_is_refused_with_what_it_needs_and_what_there_is() -> None:
    with pytest.raises(SeriesRefused) as caught:
        planned(Free(2 * GB))
    assert caught.value.reason is Reason.MEMORY_TOO_SMALL
    least = planned(Free(64 * GB)).host_bytes
    assert f"needs {least / 1e9:.1f} GB of memory and 2.4 GB are free" in caught.value.sentence
    assert "more memory" in caught.value.sentence


def test_what_is_just_enough_is_taken_and_a_byte_less_is_not() -> None:
    enough = planned(Free(64 * GB)).host_bytes - WHOLE_BODY.held_bytes
    assert planned(Free(enough)).host_bytes == enough + WHOLE_BODY.held_bytes
    with pytest.raises(SeriesRefused):
        planned(Free(enough - 1))


def test_a_gpu_gives_up_the_batch_then_the_sums_then_itself_and_never_the_tile() -> None:
    tiles = {**INPUT, "tile": [96, 96, 96]}
    ladder = []
    for gigabytes in np.arange(30, 0, -0.1):
        plan = planned(Free(64 * GB, int(gigabytes * GB)), (GPU, CPU), input=tiles)
        step = ("the GPU", "the CPU")[plan.engine], plan.batch, plan.accumulators
        if step not in ladder:
            ladder.append(step)
    assert ladder[0] == ("the GPU", 4, "device")
    assert ladder[-2:] == [("the GPU", 1, "host"), ("the CPU", 1, "host")]
    assert ladder == sorted(ladder, key=lambda step: (step[0] == "the CPU", step[2] == "host", -step[1]))


def test_a_plan_on_a_gpu_says_what_it_needs_of_both_memories() -> None:
    plan = planned(Free(64 * GB, 24 * GB), (GPU, CPU))
    assert plan.words == (
        f"the GPU: needs {plan.host_bytes / 1e9:.1f} GB of 64.4 GB free and {plan.device_bytes / 1e9:.1f} GB of "
        "24.0 GB on the GPU, 2 tiles at once"
    )


def test_networks_that_are_loaded_already_are_not_asked_for_twice() -> None:
    loaded = EngineNeeds("the CPU", on_host=True, fold_bytes=50_000_000, host_bytes=GB, loaded=True)
    enough = planned(Free(64 * GB)).host_bytes - WHOLE_BODY.held_bytes
    assert planned(Free(enough - 100_000_000), (loaded,)).engine == 0


def test_what_nobody_measured_is_estimated_from_the_tile() -> None:
    unknown = EngineNeeds("the CPU", on_host=True, fold_bytes=50_000_000)
    assert planned(Free(64 * GB), (unknown,)).host_bytes > planned(Free(64 * GB)).host_bytes


@pytest.mark.parametrize("crop", ["body", "whole"])
def test_about_where_the_body_is_is_seen_in_the_scan(crop: str) -> None:
    volume = scan(
        lambda x, y, _z: np.where(np.hypot(x, y) < 60, 40, -1000), series_grid("HFS", (30, 128, 128), (4.0, 3.0, 3.0))
    )
    seen = Scan.of(volume, manifest(input={**INPUT, "spacing_mm": [3.0, 3.0, 3.0], "crop": crop}))
    assert (seen.shape, seen.spacing_mm) == ((30, 128, 128), (4.0, 3.0, 3.0))
    if crop == "whole":
        assert seen.box is None
        return
    assert seen.box is not None
    least = 2 * (60 + 20) / 3  # the body with the margin that the engine keeps around it
    assert seen.box[0] == 40
    assert all(least <= side <= least + 12 for side in seen.box[1:])


def test_a_scan_of_air_alone_is_taken_whole() -> None:
    air = scan(lambda x, _y, _z: np.full_like(x, -1000), series_grid("HFS", (8, 20, 20), (4.0, 4.0, 4.0)))
    assert Scan.of(air, manifest()).box == Scan.of(air, manifest()).working_shape(manifest())
