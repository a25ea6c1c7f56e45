"""Structures of known shape come back exactly in every geometry that scanners make, or the series is refused.

The file is judged by code that shares nothing with the writer, against shapes that are known everywhere.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from appliance.dicom.contours import Drawing, trace
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


PIXELS = {
    "as usual": {},
    "small": {"pixel_spacing_mm": (0.25, 0.3)},
    "just large enough for two decimals": {"pixel_spacing_mm": (0.7, 0.7)},
    "oblique": {"orientation": (0.984807753012, 0.173648177667, 0, -0.171010071663, 0.969846310393, 0.173648177667)},
}


@pytest.mark.parametrize("pixels", PIXELS.values(), ids=PIXELS)
def test_random_probabilities_are_the_same_voxels_after_the_round_trip(
    tmp_path: Path, pixels: dict[str, object]
) -> None:
    """Contours then come as close to the centres of voxels as they may; rounding must not matter."""
    slices, rows, columns = shape = (60, 9, 11)
    paths = make_ct_series(tmp_path, slices=slices, rows=rows, columns=columns, **pixels)
    series, planes = read_series(paths), read_planes(paths)
    probabilities = np.random.default_rng(7).integers(0, 256, shape, np.uint8)
    mask = RoiMask.from_probabilities("Random", probabilities)
    for number, drawing in enumerate((Drawing(), Drawing(keyhole=True), Drawing(smooth_mm=1.0)), 1):
        contours = trace(mask, series.geometry, drawing)
        roi = DrawnRoi(template=template("Random", number), contours=contours)
        content = build_structure_set(series, [roi], PROVENANCE).content
        written = read_contours(dcmread(DicomBytesIO(content)))["Random"]
        assert judge_region(written, probabilities > 127, planes).dice == 1.0
