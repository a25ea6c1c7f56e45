"""Which series become a volume: every rule of the geometry, broken once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from appliance.dicom.ct_series import assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.uid import derive_uid
from appliance.errors import Reason, SeriesRefused
from tests.support.ct_files import ORIENTATIONS, Mutation, make_ct_series, make_tilted_series, only_slice, read_series


def refusal_of(paths: list[Path]) -> SeriesRefused:
    slices = [parse_slice(path) for path in paths]
    with pytest.raises(SeriesRefused) as refusal:
        assemble_series(slices)
    return refusal.value


def moved(index: int, by_mm: tuple[float, float, float]) -> Mutation:
    """Make a mutation that moves one slice; with index -1, all of them by multiples of their number."""

    def mutate(current: int, dataset: Dataset) -> None:
        times = current if index == -1 else int(current == index)
        moved_mm = np.array(dataset.ImagePositionPatient, dtype=float) + times * np.array(by_mm)
        dataset.ImagePositionPatient = [f"{coordinate_mm:.6f}" for coordinate_mm in moved_mm]

    return mutate


@pytest.mark.parametrize("position", ORIENTATIONS)
def test_a_series_is_sorted_along_its_normal_whatever_order_it_came_in(tmp_path: Path, position: str) -> None:
    paths = make_ct_series(tmp_path, orientation=position)
    series = read_series([paths[index * 5 % 12] for index in range(12)])
    assert [one.path for one in series.slices] == paths
    assert series.geometry.shape == (12, 32, 40)
    np.testing.assert_allclose(series.geometry.spacing_mm, (3.0, 0.9, 1.3))


def test_instance_numbers_do_not_decide_the_order(tmp_path: Path) -> None:
    def reverse(index: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = 12 - index

    paths = make_ct_series(tmp_path, mutate=reverse)
    assert [one.path for one in read_series(paths).slices] == paths


def test_a_missing_slice_is_refused_with_its_position(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path)
    del paths[5]
    refusal = refusal_of(paths)
    assert refusal.reason is Reason.SLICE_MISSING
    assert refusal.sentence == (
        "gap of 6.00 mm after slice 5 (z = -800.0 mm) where 3.00 mm is usual: 1 slice is missing; "
        "send the whole series again"
    )


def test_slices_missing_in_several_places_are_all_counted(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path)
    refusal = refusal_of([paths[index] for index in (0, 1, 2, 3, 6, 7, 8, 10, 11)])
    assert refusal.reason is Reason.SLICE_MISSING
    assert "3 slices are missing" in refusal.sentence


def test_a_missing_slice_is_noticed_in_the_shortest_series(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, slices=4)
    del paths[1]
    assert refusal_of(paths).reason is Reason.SLICE_MISSING


def test_gaps_that_no_missing_slice_explains_are_refused(tmp_path: Path) -> None:
    refusal = refusal_of(make_ct_series(tmp_path, mutate=moved(6, (0.0, 0.0, 0.5))))
    assert refusal.reason is Reason.SLICE_GAPS_UNEVEN
    assert "from 2.50 to 3.50 mm" in refusal.sentence


def test_positions_rounded_to_hundredths_of_a_millimetre_are_accepted(tmp_path: Path) -> None:
    def rounded(_index: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [round(float(coordinate), 2) for coordinate in dataset.ImagePositionPatient]

    series = read_series(make_ct_series(tmp_path, gap_mm=0.625, mutate=rounded))
    assert series.geometry.slice_gap_mm == pytest.approx(0.625, abs=0.01)


@pytest.mark.parametrize("gap_mm", [0.5, 0.625, 1.0, 5.0, 10.0])
def test_any_usual_slice_gap_is_accepted(tmp_path: Path, gap_mm: float) -> None:
    assert read_series(make_ct_series(tmp_path, gap_mm=gap_mm)).geometry.slice_gap_mm == pytest.approx(gap_mm)


def test_two_slices_at_one_position_are_refused(tmp_path: Path) -> None:
    refusal = refusal_of(make_ct_series(tmp_path, mutate=moved(6, (0.0, 0.0, -3.0))))
    assert refusal.reason is Reason.POSITION_DUPLICATE
    assert "slice 6 (z = -797.0 mm)" in refusal.sentence


def test_two_phases_in_one_series_are_refused(tmp_path: Path) -> None:
    first = make_ct_series(tmp_path / "first")
    other = {"SeriesInstanceUID": derive_uid("test", "series")}
    second = make_ct_series(
        tmp_path / "second", series="second", mutate=lambda _index, dataset: dataset.update(_elements(other))
    )
    assert refusal_of(first + second).reason is Reason.POSITION_DUPLICATE


def _elements(changes: dict[str, str]) -> Dataset:
    dataset = Dataset()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"FrameOfReferenceUID": "1.2.3"}, Reason.FRAME_OF_REFERENCE_MIXED),
        ({"StudyInstanceUID": "1.2.3"}, Reason.STUDY_MIXED),
        ({"PatientID": "OTHER"}, Reason.PATIENT_MIXED),
        ({"PatientName": "Other^Name"}, Reason.PATIENT_MIXED),
        ({"PatientBirthDate": "19500103"}, Reason.PATIENT_MIXED),
        ({"PixelSpacing": [0.9, 1.31]}, Reason.SPACING_MIXED),
        ({"Rows": 31}, Reason.SPACING_MIXED),
        ({"RescaleSlope": 2}, Reason.RESCALE_MIXED),
        ({"RescaleIntercept": -1000}, Reason.RESCALE_MIXED),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, Reason.ORIENTATION_MIXED),
        ({"ImageOrientationPatient": [0.9998, 0.02, 0, -0.02, 0.9998, 0]}, Reason.ORIENTATION_MIXED),
        ({"SOPInstanceUID": derive_uid("test", "series", "instance", "3")}, Reason.INSTANCE_CONFLICT),
    ],
)
def test_one_slice_that_differs_refuses_the_series(tmp_path: Path, changes: dict[str, object], reason: Reason) -> None:
    def mutate(index: int, dataset: Dataset) -> None:
        only_slice(6, **changes)(index, dataset)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    refusal = refusal_of(make_ct_series(tmp_path, mutate=mutate))
    assert refusal.reason is reason
    assert "Other" not in refusal.sentence


def test_padding_and_a_changed_description_do_not_make_another_patient(tmp_path: Path) -> None:
    changes = only_slice(6, PatientID=b"TEST-0001 \0", StudyDescription="changed on the way")
    assert len(read_series(make_ct_series(tmp_path, mutate=changes)).slices) == 12


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices_are_refused(tmp_path: Path, count: int) -> None:
    assert refusal_of(make_ct_series(tmp_path, slices=count)).reason is Reason.TOO_FEW_SLICES


@pytest.mark.parametrize("degrees", [-15.0, 5.0, 15.0, 25.0])
def test_the_slices_of_a_tilted_gantry_keep_their_own_places(tmp_path: Path, degrees: float) -> None:
    """A gantry turns the planes; the table still moves along z."""
    series = read_series(make_tilted_series(tmp_path, degrees))
    positions_mm = series.geometry.positions_mm
    np.testing.assert_allclose(np.diff(positions_mm, axis=0), [(0.0, 0.0, 3.0)] * 11, atol=1e-9)
    assert series.geometry.slice_gap_mm == pytest.approx(3.0 * np.cos(np.radians(degrees)), abs=1e-4)


def test_a_stack_that_leans_more_than_a_gantry_tilts_is_refused_with_its_angle(tmp_path: Path) -> None:
    shift_mm = 3.0 * np.tan(np.radians(35.0))
    refusal = refusal_of(make_ct_series(tmp_path, mutate=moved(-1, (0.0, shift_mm, 0.0))))
    assert refusal.reason is Reason.ORIENTATION_UNSUPPORTED
    assert "35.0 degrees" in refusal.sentence


@pytest.mark.parametrize("shift_mm", [(1.0, 0.0, 0.0), (0.0, 0.2, 0.0)])
def test_a_slice_that_is_shifted_sideways_is_refused(tmp_path: Path, shift_mm: tuple[float, float, float]) -> None:
    refusal = refusal_of(make_ct_series(tmp_path, mutate=moved(6, shift_mm)))
    assert refusal.reason is Reason.ORIENTATION_UNSUPPORTED
    assert "slice 7" in refusal.sentence


def test_a_table_that_moved_in_the_middle_of_the_scan_is_refused(tmp_path: Path) -> None:
    def mutate(index: int, dataset: Dataset) -> None:
        moved(index if index > 5 else 99, (0.0, 2.0, 0.0))(index, dataset)

    assert refusal_of(make_ct_series(tmp_path, mutate=mutate)).reason is Reason.ORIENTATION_UNSUPPORTED


def test_a_coronal_series_is_refused(tmp_path: Path) -> None:
    refusal = refusal_of(make_ct_series(tmp_path, orientation=(1, 0, 0, 0, 0, -1)))
    assert refusal.reason is Reason.ORIENTATION_UNSUPPORTED
    assert "90 degrees" in refusal.sentence


@pytest.mark.parametrize("degrees", [8.0, 25.0])
def test_an_oblique_stack_along_its_own_normal_is_accepted(tmp_path: Path, degrees: float) -> None:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    series = read_series(make_ct_series(tmp_path, orientation=(1, 0, 0, 0, c, s)))
    assert series.geometry.slice_gap_mm == pytest.approx(3.0, abs=1e-4)
    np.testing.assert_allclose(series.geometry.shear, 0.0, atol=1e-4)


#: positions along z, and what becomes of them where uneven gaps are allowed
UNEVEN = {
    "thicker at the end": ([0, 3, 6, 9, 14, 19, 24], None),
    "thicker in the middle": ([0, 3, 6, 12, 18, 24, 27, 30], None),
    "growing": ([0, 2, 4.5, 7.5, 11, 15], None),
    "one missing": ([0, 3, 6, 9, 15, 18, 21], Reason.SLICE_MISSING),
    "one missing where it is thick": ([0, 3, 6, 11, 16, 26, 31], Reason.SLICE_MISSING),
    "one missing at the start": ([0, 6, 9, 12], Reason.SLICE_MISSING),
    "two at one place": ([0, 3, 3.005, 8, 13], Reason.POSITION_DUPLICATE),
}


@pytest.mark.parametrize(("positions_mm", "reason"), UNEVEN.values(), ids=UNEVEN)
def test_uneven_gaps_are_exact_where_they_are_allowed_and_refused_elsewhere(
    tmp_path: Path, positions_mm: list[float], reason: Reason | None
) -> None:
    def mutate(index: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [-185, -311, positions_mm[index]]

    paths = make_ct_series(tmp_path, slices=len(positions_mm), mutate=mutate)
    assert refusal_of(paths).reason in {Reason.SLICE_GAPS_UNEVEN, Reason.SLICE_MISSING, Reason.POSITION_DUPLICATE}
    slices = [parse_slice(path) for path in reversed(paths)]
    if reason is None:
        assembled = assemble_series(slices, uneven_gaps=True)
        np.testing.assert_array_equal(assembled.geometry.positions_mm[:, 2], positions_mm)
        return
    with pytest.raises(SeriesRefused) as refused:
        assemble_series(slices, uneven_gaps=True)
    assert refused.value.reason is reason


@pytest.mark.parametrize("numbers", [range(12, 0, -1), [7] * 12, [None] * 12])
def test_instance_numbers_say_nothing_about_where_a_slice_lies(tmp_path: Path, numbers: Sequence[int | None]) -> None:
    def mutate(index: int, dataset: Dataset) -> None:
        if numbers[index] is None:
            del dataset.InstanceNumber
        else:
            dataset.InstanceNumber = numbers[index]

    series = read_series(make_ct_series(tmp_path, mutate=mutate))
    np.testing.assert_allclose(series.geometry.positions_mm[:, 2], -812.0 + 3.0 * np.arange(12))


def test_slices_of_two_series_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path / "a") + make_ct_series(tmp_path / "b", series="other")
    with pytest.raises(ValueError, match="several series"):
        read_series(paths)


def test_a_series_says_of_itself_only_what_all_its_slices_agree_on(tmp_path: Path) -> None:
    def kernels(current: int, dataset: Dataset) -> None:
        dataset.ConvolutionKernel = ["Br40d", "3"]
        dataset.BodyPartExamined = "PELVIS" if current else "ABDOMEN"
        dataset.PatientPosition = "HFS"

    description = read_series(make_ct_series(tmp_path, slices=4, mutate=kernels)).description
    assert (description.kernel, description.body_part, description.patient_position) == ("Br40d\\3", "", "HFS")
