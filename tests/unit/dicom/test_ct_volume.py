"""Pixels become the same Hounsfield units, whatever transfer syntax and number format they came in."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.ct_volume import CtVolume, input_digest, load_volume, same_image
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.pixel_layout import ACCEPTED_SYNTAXES, COMPRESSED_SYNTAXES
from appliance.errors import Reason, SliceRefused
from tests.support.ct_files import (
    Mutation,
    all_slices,
    compress,
    make_ct_series,
    read_series,
    sample_hu,
    truncate,
)

SHAPE = (4, 32, 40)


def load(paths: list[Path]) -> tuple[CtSeries, CtVolume]:
    series = read_series(paths)
    return series, load_volume(series)


def stored_as(bits: int, *, signed: bool, junk: int = 0) -> Mutation:
    """Make a mutation that stores the pixels in another number format, with something in the bits above."""

    def mutate(_index: int, dataset: Dataset) -> None:
        hu = np.frombuffer(dataset.PixelData, dtype="<u2").astype(np.int32) - 1024
        intercept = 0 if signed else -1024
        cells = ((hu - intercept) & ((1 << bits) - 1)) | junk << bits
        dataset.PixelData = (cells & 0xFFFF).astype("<u2").tobytes()
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
        dataset.RescaleIntercept = intercept

    return mutate


def test_hounsfield_units_are_in_order_z_y_x(tmp_path: Path) -> None:
    _, volume = load(make_ct_series(tmp_path, slices=4))
    assert volume.hu.dtype == np.int16
    np.testing.assert_array_equal(volume.hu, sample_hu(SHAPE))


@pytest.mark.parametrize(("bits", "signed"), [(12, False), (16, False), (12, True), (13, True), (16, True)])
@pytest.mark.parametrize("syntax", [None, *COMPRESSED_SYNTAXES])
def test_every_number_format_gives_the_same_units_in_every_syntax(
    tmp_path: Path, bits: int, signed: bool, syntax: str | None
) -> None:
    paths = make_ct_series(tmp_path, slices=4, mutate=stored_as(bits, signed=signed))
    if syntax is not None:
        compress(paths[1], syntax)
    _, volume = load(paths)
    np.testing.assert_array_equal(volume.hu, sample_hu(SHAPE))


def test_bits_above_those_stored_are_no_part_of_the_value(tmp_path: Path) -> None:
    for signed in (False, True):
        _, volume = load(make_ct_series(tmp_path, slices=4, mutate=stored_as(12, signed=signed, junk=0b1010)))
        np.testing.assert_array_equal(volume.hu, sample_hu(SHAPE))


def test_a_fractional_rescale_is_rounded_to_the_nearest_unit(tmp_path: Path) -> None:
    _, volume = load(make_ct_series(tmp_path, slices=4, mutate=all_slices(RescaleSlope=0.5, RescaleIntercept=-512.25)))
    np.testing.assert_array_equal(volume.hu, np.rint((sample_hu(SHAPE) + 1024) * 0.5 - 512.25))


def test_units_beyond_the_range_stay_at_its_end_and_never_wrap(tmp_path: Path) -> None:
    for slope, intercept in ((1, 40000), (30, -1024), (1.5, 40000.5)):
        changes = all_slices(RescaleSlope=slope, RescaleIntercept=intercept)
        _, volume = load(make_ct_series(tmp_path, slices=4, mutate=changes))
        exact = np.rint((sample_hu(SHAPE).astype(float) + 1024) * slope + intercept)
        np.testing.assert_array_equal(volume.hu, exact.clip(-32768, 32767))


def test_progress_is_told_after_every_slice(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    load_volume(
        read_series(make_ct_series(tmp_path, slices=3)), on_slice=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_digest_is_the_same_in_every_syntax_and_order(tmp_path: Path) -> None:
    digests = set()
    for index, syntax in enumerate((None, *ACCEPTED_SYNTAXES[1:])):
        paths = make_ct_series(tmp_path / str(index), slices=3)
        if syntax is not None:
            compress(paths[index % 3], syntax)
        digests.add(input_digest(*load(paths[::-1] if index % 2 else paths)))
    assert len(digests) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"RescaleIntercept": -1023},
        {"PixelSpacing": [0.9, 1.30001]},
    ],
)
def test_the_digest_changes_with_anything_that_the_result_depends_on(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    one = input_digest(*load(make_ct_series(tmp_path / "one", slices=3)))
    other = input_digest(*load(make_ct_series(tmp_path / "other", slices=3, mutate=all_slices(**changes))))
    assert one != other


def test_the_digest_changes_with_the_instances(tmp_path: Path) -> None:
    one = input_digest(*load(make_ct_series(tmp_path / "one", slices=3)))
    other = input_digest(*load(make_ct_series(tmp_path / "other", slices=3, series="other")))
    assert one != other


def test_one_image_in_two_syntaxes_is_the_same_and_another_image_is_not(tmp_path: Path) -> None:
    one = parse_slice(make_ct_series(tmp_path / "one", slices=1)[0])
    packed = parse_slice(compress(make_ct_series(tmp_path / "packed", slices=1)[0], "1.2.840.10008.1.2.4.80"))
    brighter = make_ct_series(tmp_path / "brighter", slices=1, mutate=all_slices(RescaleIntercept=-1000))[0]
    moved = make_ct_series(tmp_path / "moved", slices=1, origin_mm=(0.0, 0.0, 0.0))[0]
    assert same_image(one, packed)
    assert not same_image(one, parse_slice(brighter))
    assert not same_image(one, parse_slice(moved))


def test_a_file_that_shrinks_between_parsing_and_loading_is_refused(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, slices=3)
    series = read_series(paths)
    truncate(paths[1], keep=0.8)
    with pytest.raises(SliceRefused) as refusal:
        load_volume(series)
    assert refusal.value.reason is Reason.PIXELS_TRUNCATED


def test_values_that_do_not_fit_the_grid_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shape"):
        CtVolume(np.zeros((2, 3, 4), dtype=np.int16), SeriesGeometry.axial((2, 4, 3), (1.0, 1.0, 1.0)))
