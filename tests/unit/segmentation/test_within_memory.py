"""A scan on a device whose memory goes away: it ends with the masks of one that had enough, or is refused in words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.arrays import Arrays, host_arrays
from appliance.segmentation.backends import here
from appliance.segmentation.backends.engine import Engine
from appliance.segmentation.backends.network import OutOfMemory
from appliance.segmentation.free_memory import host_free_bytes
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.segmentation.opening import Examined, WarmModel
from appliance.segmentation.parity import Candidate, Outcome
from appliance.segmentation.within_memory import segment_within_memory
from tests.support.ct_volumes import scan, series_grid
from tests.support.model_packages import make_threshold_package

ROOM = 10**12


class FullDevice:
    """Arrays of a device that is full as soon as anything large is asked for, and numpy's otherwise."""

    def __init__(self, holds: int) -> None:
        self.holds = holds

    def __getattr__(self, name: str) -> Any:
        return getattr(host_arrays().xp, name)

    def zeros(self, shape: Any, **words: Any) -> Any:
        if np.prod(shape) > self.holds:
            raise MemoryError
        return np.zeros(shape, dtype=words["dtype"])


class Moody:
    """A fold of a device that holds so many tiles at once."""

    def __init__(self, fold: Any, holds: int) -> None:
        self.engine, self._fold, self._holds = "a device", fold, holds
        self.input_shape, self.output_shape = fold.input_shape, fold.output_shape

    def run(self, tiles: Any) -> Any:
        if len(tiles) > self._holds:
            raise OutOfMemory("full")
        return self._fold.run(tiles)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return load_package(make_threshold_package(tmp_path_factory.mktemp("thresholds"), tile=(8, 12, 12)))


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    return scan(
        lambda x, y, z: np.where(np.hypot(x, y) < 50, np.where(np.hypot(x, y) < 20, 400 + z, 40), -1000),
        series_grid("HFS", (20, 40, 40), (4.0, 4.0, 4.0)),
    )


def on_host(package: ModelPackage) -> Examined:
    return Examined(here.reference(package, 1), Outcome(seconds=1.0, host_bytes=1000))


def on_device(package: ModelPackage, tiles: int, values: int, free: int = ROOM) -> Examined:
    reference = here.reference(package, 1)
    arrays: Arrays = replace(host_arrays(), xp=FullDevice(values), device="cpu")
    device = Candidate(
        Engine("torch", "1", "cuda:0"), arrays, lambda fold: Moody(reference.open(fold), tiles), lambda: free
    )
    return Examined(device, Outcome(seconds=0.1, host_bytes=1000, device_bytes=1000))


def masks_and_words(model: WarmModel, volume: CtVolume) -> tuple[list[Any], list[str]]:
    words: list[str] = []
    found = segment_within_memory(model, volume, ScanDescription(), on_plan=words.append)
    return [(mask.name, mask.voxels.tobytes()) for mask in found.masks], words


@pytest.fixture(scope="module")
def expected(package: ModelPackage, volume: CtVolume) -> list[Any]:
    masks, _ = masks_and_words(WarmModel(package, [on_host(package)]), volume)
    assert {name for name, _ in masks} >= {"External", "Bone_Pelvic"}
    return masks


@pytest.mark.parametrize(
    ("room", "plans", "step"),
    [
        ((99, ROOM), 1, None),
        ((3, ROOM), 1, "8 tiles at once do not fit, went on with 4"),
        ((0, ROOM), 1, "one tile does not fit, went on with ONNX Runtime on the CPU"),
        ((99, 10), 2, None),
        ((0, 10), 2, "one tile does not fit, went on with ONNX Runtime on the CPU"),
    ],
    ids=["enough", "fewer tiles", "no tile", "no room for the classes", "no room at all"],
)
def test_whatever_has_to_be_given_up_the_masks_are_the_same(
    package: ModelPackage,
    volume: CtVolume,
    expected: list[Any],
    room: tuple[int, int],
    plans: int,
    step: str | None,
) -> None:
    model = WarmModel(package, [on_device(package, *room), on_host(package)])
    masks, words = masks_and_words(model, volume)
    assert masks == expected
    assert len(words) == plans
    assert "8 tiles at once" in words[0]
    assert plans == 1 or words[1].endswith("the GPU was full, so the classes are added up in the host's memory")
    assert [each for each in model.steps_taken if step is not None and step in each] or step is None


def test_where_the_device_is_too_small_from_the_start_it_is_not_begun_on(
    package: ModelPackage, volume: CtVolume, expected: list[Any]
) -> None:
    model = WarmModel(package, [on_device(package, 0, 0, free=1000), on_host(package)])
    masks, words = masks_and_words(model, volume)
    assert masks == expected
    assert words[0].startswith("ONNX Runtime on the CPU: needs ")
    assert model.steps_taken == []


def test_memory_that_goes_away_on_the_last_rung_refuses_the_case_in_words(
    package: ModelPackage, volume: CtVolume
) -> None:
    reference = here.reference(package, 1)
    tiny = replace(reference, open=lambda fold: Moody(reference.open(fold), 0))
    model = WarmModel(package, [Examined(tiny, Outcome(host_bytes=1000))])
    with pytest.raises(SeriesRefused) as caught:
        masks_and_words(model, volume)
    assert caught.value.reason is Reason.MEMORY_TOO_SMALL
    assert "close what else runs" in caught.value.sentence


def test_a_case_that_cannot_fit_is_refused_before_any_network_runs(package: ModelPackage, volume: CtVolume) -> None:
    reference = here.reference(package, 1)
    model = WarmModel(package, [Examined(reference, Outcome(host_bytes=host_free_bytes() * 3))])
    with pytest.raises(SeriesRefused) as caught:
        segment_within_memory(model, volume, ScanDescription(), on_tile=lambda *_: pytest.fail("a network ran"))
    assert caught.value.reason is Reason.MEMORY_TOO_SMALL


def test_a_worker_plans_with_its_share_of_the_memory_alone(package: ModelPackage, volume: CtVolume) -> None:
    reference = here.reference(package, 1)
    ladder = [Examined(reference, Outcome(host_bytes=host_free_bytes() // 2))]
    assert masks_and_words(WarmModel(package, ladder), volume)[0]
    with pytest.raises(SeriesRefused) as caught:
        masks_and_words(WarmModel(package, ladder, memory_share=0.25), volume)
    assert caught.value.reason is Reason.MEMORY_TOO_SMALL
