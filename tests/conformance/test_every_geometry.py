"""Structures of known shape come back exactly in every geometry that scanners make, or the series is refused.

The file is judged by code that shares nothing with the writer, against shapes that are known everywhere.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from appliance.dicom.contours import Drawing, rasterise, trace
from appliance.dicom.ct_series import CtSeries, assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiMask
from appliance.dicom.roi_elements import DrawnRoi
from appliance.dicom.structure_set import build_structure_set
from appliance.errors import Reason, SeriesRefused
from tests.support.analytic_phantom import structures, voxelise
from tests.support.contour_judge import judge_region, read_contours
from tests.support.ct_files import make_ct_series, read_series
from tests.support.image_planes import read_planes
from tests.support.phantom_series import VARIANTS, PhantomSeries, small
from tests.support.structure_sets import KEYHOLE, NESTED, PROVENANCE, structure_set_of, template

SMALL = {series.title: small(series, every=4) for series in VARIANTS}
XOR = PlanningSystem(holes="xor")
#: series that no protocol may use, and why
REFUSED = {"2 missing slices": Reason.SLICE_MISSING}


def assembled(paths: list[Path]) -> CtSeries:
    return assemble_series([parse_slice(path) for path in paths], uneven_gaps=True)


@pytest.mark.parametrize("probabilities", [False, True], ids=["masks", "probabilities"])
@pytest.mark.parametrize("title", [title for title in SMALL if title not in REFUSED])
def test_every_voxel_of_every_structure_comes_back(tmp_path: Path, title: str, probabilities: bool) -> None:
    variant: PhantomSeries = SMALL[title]
    paths = variant.write(tmp_path)
    planes, series = read_planes(paths), assembled(paths)
    shapes = structures(planes)
    truths, rois = {}, []
    for number, name in enumerate(variant.names, 1):
        voxels = voxelise(shapes[name], planes)
        mask = (
            RoiMask.from_probabilities(name, voxels.whole())
            if probabilities
            else RoiMask.from_volume(name, voxels.mask())
        )
        truths[name] = voxels.mask()
        contours = trace(mask, series.geometry, Drawing(keyhole=number % 2 == 0))
        rois.append(DrawnRoi(template=template(name, number), contours=contours))
    content = build_structure_set(series, rois, PROVENANCE).content
    written = read_contours(dcmread(DicomBytesIO(content)))
    for name, truth in truths.items():
        verdict = judge_region(written[name], truth, planes)
        assert (verdict.dice, verdict.dice_by_uid, verdict.volume_error) == (1.0, 1.0, 0.0), name
        assert (verdict.other_image, verdict.short_contours, verdict.long_decimals) == (0, 0, 0), name
        assert verdict.off_plane_mm < 0.002, name


@pytest.mark.parametrize("title", REFUSED)
@pytest.mark.parametrize("uneven_gaps", [False, True])
def test_what_cannot_be_right_is_refused(tmp_path: Path, title: str, uneven_gaps: bool) -> None:
    slices = [parse_slice(path) for path in SMALL[title].write(tmp_path)]
    with pytest.raises(SeriesRefused) as refused:
        assemble_series(slices, uneven_gaps=uneven_gaps)
    assert refused.value.reason is REFUSED[title]


def test_uneven_gaps_are_refused_unless_the_protocol_allows_them(tmp_path: Path) -> None:
    slices = [parse_slice(path) for path in SMALL["uneven gaps"].write(tmp_path)]
    with pytest.raises(SeriesRefused) as refused:
        assemble_series(slices)
    assert refused.value.reason is Reason.SLICE_GAPS_UNEVEN


RANDOM_SHAPE = (3, 9, 11)


@pytest.fixture(scope="module")
def random_series(tmp_path_factory: pytest.TempPathFactory) -> CtSeries:
    slices, rows, columns = RANDOM_SHAPE
    return read_series(make_ct_series(tmp_path_factory.mktemp("ct"), slices=slices, rows=rows, columns=columns))


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(density=st.floats(0.0, 1.0), seed=st.integers(0, 2**32 - 1), form=st.sampled_from([KEYHOLE, NESTED, XOR]))
def test_a_random_mask_of_any_density_is_the_same_after_the_round_trip(
    random_series: CtSeries, density: float, seed: int, form: PlanningSystem
) -> None:
    voxels: NDArray[np.bool_] = np.random.default_rng(seed).random(RANDOM_SHAPE) < density
    content = structure_set_of(random_series, {"Random": voxels}, form=form).content
    planes = read_planes([one.path for one in random_series.slices])
    verdict = judge_region(read_contours(dcmread(DicomBytesIO(content)))["Random"], voxels, planes)
    assert (verdict.dice, verdict.dice_by_uid) == (1.0, 1.0)


@settings(max_examples=100)
@given(voxels=arrays(np.bool_, RANDOM_SHAPE), probabilities=arrays(np.uint8, RANDOM_SHAPE))
def test_contours_of_masks_and_of_probabilities_fill_to_what_they_were_made_from(
    random_series: CtSeries, voxels: NDArray[np.bool_], probabilities: NDArray[np.uint8]
) -> None:
    geometry = random_series.geometry
    for mask, truth in (
        (RoiMask.from_volume("Mask", voxels), voxels),
        (RoiMask.from_probabilities("Probabilities", probabilities), probabilities > 127),
    ):
        np.testing.assert_array_equal(rasterise(trace(mask, geometry), geometry).in_grid(RANDOM_SHAPE), truth)
