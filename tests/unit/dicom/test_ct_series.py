"""Which series become a volume: every rule of the geometry, broken once."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from appliance.dicom.ct_series import assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.uid import derive_uid
from appliance.errors import Reason, SeriesRefused
from tests.support.ct_files import ORIENTATIONS, Mutation, make_ct_series, only_slice, read_series


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


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path: Path) -> None:
    shift_mm = 3.0 * np.tan(np.radians(15.0))
    refusal = refusal_of(make_ct_series(tmp_path, mutate=moved(-1, (0.0, shift_mm, 0.0))))
    assert refusal.reason is Reason.ORIENTATION_UNSUPPORTED
    assert "15.0 degrees" in refusal.sentence


def test_a_slice_that_is_shifted_sideways_is_refused(tmp_path: Path) -> None:
    refusal = refusal_of(make_ct_series(tmp_path, mutate=moved(6, (1.0, 0.0, 0.0))))
    assert refusal.reason is Reason.ORIENTATION_UNSUPPORTED


def test_a_coronal_series_is_refused(tmp_path: Path) -> None:
    refusal = refusal_of(make_ct_series(tmp_path, orientation=(1, 0, 0, 0, 0, -1)))
    assert refusal.reason is Reason.ORIENTATION_UNSUPPORTED
    assert "90 degrees" in refusal.sentence


def test_a_slightly_oblique_stack_along_its_own_normal_is_accepted(tmp_path: Path) -> None:
    c, s = np.cos(np.radians(8.0)), np.sin(np.radians(8.0))
    series = read_series(make_ct_series(tmp_path, orientation=(1, 0, 0, 0, c, s)))
    assert series.geometry.slice_gap_mm == pytest.approx(3.0, abs=1e-4)


def test_slices_of_two_series_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path / "a") + make_ct_series(tmp_path / "b", series="other")
    with pytest.raises(ValueError, match="several series"):
        read_series(paths)
