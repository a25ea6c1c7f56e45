import json
from pathlib import Path

import numpy as np
import pytest

from appliance.casework.reference_tiles import COUNT, reference_tiles
from appliance.segmentation.model_package import ModelPackage, load_package
from tests.support.model_packages import make_threshold_package


def package(folder: Path, **network_input: object) -> ModelPackage:
    made = make_threshold_package(folder, tile=(8, 16, 24))
    raw = json.loads((made / "manifest.json").read_text())
    raw["input"] |= {"spacing_mm": [9.0, 9.0, 9.0], **network_input}
    (made / "manifest.json").write_text(json.dumps(raw))
    return load_package(made)


def test_reference_tiles_have_the_models_own_form_and_hold_tissue_and_bone(tmp_path: Path) -> None:
    tiles = reference_tiles(package(tmp_path))
    assert (tiles.shape, tiles.dtype) == ((COUNT, 1, 8, 16, 24), np.float32)
    assert (tiles > -0.3).mean() > 0.3
    assert (tiles > 0.25).mean() > 0.005
    assert not np.array_equal(tiles[0], tiles[1])


def test_they_are_the_same_every_time(tmp_path: Path) -> None:
    assert np.array_equal(reference_tiles(package(tmp_path)), reference_tiles(package(tmp_path)))


def test_a_model_that_looks_the_other_way_gets_them_turned(tmp_path: Path) -> None:
    whole = {"tile": [64, 48, 64]}
    seen = reference_tiles(package(tmp_path / "a", **whole))
    turned = reference_tiles(package(tmp_path / "b", **whole, orientation="RAS"))
    assert (seen[0] != turned[0]).any()
    assert np.sort(seen[0], axis=None) == pytest.approx(np.sort(turned[0], axis=None))


def test_a_tile_larger_than_the_phantom_is_filled_with_air(tmp_path: Path) -> None:
    tiles = reference_tiles(package(tmp_path, tile=[64, 64, 64]))
    assert tiles.shape[2:] == (64, 64, 64)
    assert tiles.min() == -1.0
