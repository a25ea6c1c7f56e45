from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.segmentation.sliding_window import Tile, cover, spans
from appliance.segmentation.working_grid import WorkingGrid
from tests.support.ct_volumes import PATIENT_POSITIONS, series_grid

lengths = st.integers(1, 90)
sizes = st.integers(1, 32)
overlaps = st.floats(0.0, 0.75)


def grid_of(shape: tuple[int, int, int], position: str = "HFS") -> WorkingGrid:
    return WorkingGrid.over(series_grid(position, shape, (4.0, 4.0, 4.0)), (4.0, 4.0, 4.0))


def tiles_of(shape: tuple[int, int, int], tile: tuple[int, int, int], overlap: float) -> list[Tile]:
    return [tile for row in cover(grid_of(shape), tile, overlap) for tile in row.tiles]


@settings(max_examples=200, deadline=None)
@given(length=lengths, size=sizes, overlap=overlaps)
def test_weights_sum_to_one_and_every_voxel_has_one_owner(length: int, size: int, overlap: float) -> None:
    weights, owners = np.zeros(length), np.zeros(length, int)
    for span in spans(length, size, overlap):
        assert span.weights.min() > 0.0
        assert span.inside.start <= span.owned.start <= span.owned.stop <= span.inside.stop
        weights[span.inside] += span.weights
        owners[span.owned] += 1
    assert np.allclose(weights, 1.0, atol=1e-5)
    assert (owners == 1).all()


def test_a_small_volume_stands_in_the_middle_of_one_tile() -> None:
    (tile,) = tiles_of((4, 8, 6), (8, 8, 8), 0.5)
    assert tile.box == (slice(0, 4), slice(0, 8), slice(0, 6))
    assert tile.inset == (slice(2, 6), slice(0, 8), slice(1, 7))


def test_neighbouring_tiles_overlap_by_at_least_what_the_manifest_says() -> None:
    starts = sorted({tile.box[2].start for tile in tiles_of((8, 8, 100), (8, 8, 32), 0.5)})
    assert starts[0] == 0
    assert starts[-1] == 100 - 32
    assert max(np.diff(starts)) <= 16 + 1  # even spreading rounds by one voxel


def test_where_tiles_overlap_the_middle_of_a_tile_counts_more_and_owns_what_is_next_to_it() -> None:
    first, second = spans(12, 8, 0.5)
    assert first.weights[4] > second.weights[0]
    assert (first.owned, second.owned) == (slice(0, 6), slice(6, 12))


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_tiles_meet_the_same_anatomy_however_the_series_is_stored(position: str) -> None:
    def seen(way: str) -> Any:
        grid = grid_of((37, 37, 37), way)
        rows = cover(grid, (8, 10, 12), 0.5)
        here = np.zeros((len(rows) * len(rows[0].tiles), 37, 37, 37), np.int16)
        for index, tile in enumerate(tile for row in rows for tile in row.tiles):
            z, y, x = (span.weights for span in tile.spans)
            here[index][tile.box] = np.rint(1000 * np.einsum("z,y,x->zyx", z, y, x))
        turned = grid.to_network(here, np)
        return sorted(map(bytes, (np.ascontiguousarray(one) for one in turned)))

    assert seen(position) == seen("HFS")


def test_what_lies_below_the_next_row_of_tiles_is_finished() -> None:
    rows = cover(grid_of((40, 20, 20)), (16, 16, 16), 0.5)
    assert [row.first for row in rows] == [0, 8, 16, 24]
    assert [row.finished for row in rows] == [8, 16, 24, 40]
    assert all(tile.box[0].start == row.first for row in rows for tile in row.tiles)
