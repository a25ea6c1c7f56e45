from typing import Any

import numpy as np
import pytest

from appliance.phantoms.anatomy.bones import core, grown
from appliance.phantoms.shapes import SHAPE, VOXEL_MM, capsule, ellipsoid, rotation, smooth_path, tube, union


def volume_mm3(mask: Any) -> Any:
    return mask.sum() * VOXEL_MM**3


def test_an_ellipsoid_has_its_volume() -> None:
    region = ellipsoid((0, 10, 40), (30, 24, 45))
    assert volume_mm3(region.mask) == pytest.approx(4 / 3 * np.pi * 30 * 24 * 45, rel=0.02)


def test_turning_an_ellipsoid_keeps_its_volume() -> None:
    turned = ellipsoid((0, 0, 0), (20, 30, 60), rotation(np.random.default_rng(1), 30))
    assert volume_mm3(turned.mask) == pytest.approx(4 / 3 * np.pi * 20 * 30 * 60, rel=0.02)


def test_a_rod_has_a_cylinder_and_two_half_balls() -> None:
    rod = capsule((0, 0, -30), (0, 0, 70), 15)
    assert volume_mm3(rod.mask) == pytest.approx(np.pi * 15**2 * 100 + 4 / 3 * np.pi * 15**3, rel=0.03)


def test_a_shape_beyond_the_grid_is_empty_and_one_across_its_edge_is_cut() -> None:
    assert not ellipsoid((900, 0, 0), (10, 10, 10)).mask.any()
    cut = ellipsoid((0, 0, -150), (30, 30, 30))
    assert volume_mm3(cut.mask) == pytest.approx(2 / 3 * np.pi * 30**3, rel=0.05)


def test_a_tube_knows_how_deep_and_how_far_along_each_voxel_lies() -> None:
    axis = smooth_path([(0, 0, 0), (0, 0, 50), (0, 0, 100)])
    swept = tube(axis, np.full(len(axis), 12.0), 12.0)
    inside = swept.depth < 1
    assert volume_mm3(inside) == pytest.approx(np.pi * 12**2 * 100 + 4 / 3 * np.pi * 12**3, rel=0.06)
    z = np.nonzero(inside)[0]
    assert swept.along[inside][z == z.max()].min() > swept.along[inside][z == z.min()].max()


def test_core_takes_one_layer_off_and_grown_puts_one_on() -> None:
    ball = union([ellipsoid((0, 0, 0), (30, 30, 30))])
    assert ball.shape == SHAPE
    assert (core(ball) & ~ball).sum() == 0
    assert volume_mm3(core(ball)) < volume_mm3(ball) < volume_mm3(grown(ball))
    assert (core(grown(ball)) & ball).sum() == ball.sum()
