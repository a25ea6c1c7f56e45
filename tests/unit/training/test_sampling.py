from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from appliance.phantoms.tissues import Structure
from appliance.training.classes import CLASS_INDEX, CLASSES
from appliance.training.dataset import PhantomStore
from appliance.training.sampling import TileDataset, to_channels
from appliance.training.spoiling import spoil


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = PhantomStore(tmp_path_factory.mktemp("phantoms"))
    made.make_missing([1000], lambda _done, _total: None)
    return made


@pytest.fixture
def tiles(store: Any, config: Any) -> Any:
    network = config.network.model_copy(update={"spacing_mm": 8.0})
    return TileDataset(store, (1000,), network, (16, 40, 56), (7, 0))


def test_a_tile_depends_on_its_number_alone(tiles: Any) -> None:
    (first, truth), (again, _), (other, _) = tiles[3], tiles[3], tiles[4]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (2, 16, 40, 56)
    assert truth.shape == (16, 40, 56)


def test_tiles_show_the_organs_and_stay_inside_their_windows(tiles: Any) -> None:
    seen = set()
    for number in range(12):
        channels, classes = (part.numpy() for part in tiles[number])
        seen |= set(np.unique(classes).tolist())
        assert np.isfinite(channels).all()
        assert channels[0].min() >= -1.2
        assert channels[0].max() <= 1.6
    assert {CLASSES.index(name) for name in ("Bladder", "hip", "femur", "sacrum", "Bowel")} <= seen


def test_left_and_right_femur_are_one_class_and_outside_is_background() -> None:
    assert CLASS_INDEX[Structure.FEMUR_LEFT] == CLASS_INDEX[Structure.FEMUR_RIGHT] == CLASSES.index("femur")
    assert CLASS_INDEX[Structure.OUTSIDE] == 0


def test_what_lies_outside_a_spoilt_scan_is_air_and_background() -> None:
    shortened = 0
    for seed in range(30):
        hu, classes = np.zeros((20, 60, 60), np.float32), np.ones((20, 60, 60), np.uint8)
        spoil(hu, classes, 8.0, np.random.default_rng(seed))
        gone = classes == 0
        shortened += bool(gone.any())
        assert (hu[gone] == -1000).all()
        assert (classes[hu < -900] == 0).all()
    assert 5 < shortened < 30


def test_a_window_is_scaled_and_clipped(config: Any) -> None:
    channel = config.network.channels[0]
    hu = np.array([channel.offset_hu, channel.offset_hu + channel.scale_hu, 3000.0, -1000.0], np.float32)
    np.testing.assert_allclose(to_channels(hu, (channel,))[0], [0.0, 1.0, channel.clip[1], channel.clip[0]])


def test_an_anatomy_in_the_store_is_not_made_again(store: Any) -> None:
    path = store.folder / "001000.npy"
    before = path.stat().st_mtime_ns
    store.make_missing([1000], lambda _done, _total: None)
    assert path.stat().st_mtime_ns == before
