import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.segmentation.sliding_window import cover, cut

sides = st.tuples(*[st.integers(1, 40)] * 3)
tile_sides = st.tuples(*[st.integers(1, 16)] * 3)


@settings(max_examples=60, deadline=None)
@given(shape=sides, tile=tile_sides, overlap=st.floats(0.0, 0.75))
def test_weights_of_all_tiles_sum_to_one_at_every_voxel(
    shape: tuple[int, int, int], tile: tuple[int, int, int], overlap: float
) -> None:
    total = np.zeros(shape)
    for piece in cover(shape, tile, overlap):
        assert piece.weights.min() > 0.0
        total[piece.box] += piece.weights
    assert np.allclose(total, 1.0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(shape=sides, tile=tile_sides, overlap=st.floats(0.0, 0.75))
def test_what_is_cut_out_and_put_back_is_the_volume_itself(
    shape: tuple[int, int, int], tile: tuple[int, int, int], overlap: float
) -> None:
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    again = np.zeros(shape)
    for piece in cover(shape, tile, overlap):
        cropped = cut(volume, piece, tile, -1000.0)
        assert cropped.shape == tile
        again[piece.box] += cropped[piece.inset] * piece.weights
    assert np.allclose(again, volume, atol=1e-4)


def test_a_small_volume_stands_in_the_middle_of_one_tile_of_padding() -> None:
    (piece,) = cover((4, 8, 6), (8, 8, 8), 0.5)
    cropped = cut(np.ones((4, 8, 6), np.float32), piece, (8, 8, 8), -1000.0)
    assert (cropped[2:6, :, 1:7] == 1.0).all()
    assert np.count_nonzero(cropped == -1000.0) == 8 * 8 * 8 - 4 * 8 * 6


def test_neighbouring_tiles_overlap_by_at_least_what_the_manifest_says() -> None:
    starts = sorted({piece.box[2].start for piece in cover((8, 8, 100), (8, 8, 32), 0.5)})
    assert starts[0] == 0
    assert starts[-1] == 100 - 32
    assert max(np.diff(starts)) <= 16 + 1  # even spreading rounds by one voxel


def test_where_tiles_overlap_the_middle_of_a_tile_counts_more_than_its_edge() -> None:
    first, second = cover((1, 1, 12), (1, 1, 8), 0.5)
    assert first.weights[0, 0, 4] > second.weights[0, 0, 0]
