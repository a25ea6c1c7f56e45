import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from appliance.phantoms import Phantom, make_phantom
from appliance.phantoms.ct_files import write_ct_series


@pytest.fixture(scope="module")
def phantom() -> Any:
    return make_phantom(5, spacing_mm=(20.0, 6.0, 7.5), shape=(6, 50, 60))


def test_one_file_per_slice_holds_the_phantom_voxel_for_voxel(phantom: Phantom, tmp_path: Path) -> None:
    slices = [pydicom.dcmread(path) for path in write_ct_series(phantom, tmp_path)]
    assert [s.InstanceNumber for s in slices] == [1, 2, 3, 4, 5, 6]
    for index, slice_ in enumerate(slices):
        hu = slice_.pixel_array * float(slice_.RescaleSlope) + float(slice_.RescaleIntercept)
        np.testing.assert_array_equal(hu, phantom.hu[index])
        assert list(slice_.PixelSpacing) == [6.0, 7.5]
        x, y, z = phantom.origin_mm
        np.testing.assert_allclose(slice_.ImagePositionPatient, (x, y, z + 20 * index), atol=1e-4)


def test_a_series_has_one_patient_one_study_and_one_frame_of_reference(phantom: Phantom, tmp_path: Path) -> None:
    slices = [pydicom.dcmread(path) for path in write_ct_series(phantom, tmp_path, patient_id="P1")]
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({slice_[keyword].value for slice_ in slices}) == 1
    assert len({slice_.SOPInstanceUID for slice_ in slices}) == len(slices)
    assert slices[0].PatientID == "P1"


def test_writing_again_gives_the_same_bytes(phantom: Phantom, tmp_path: Path) -> None:
    first, second = (write_ct_series(phantom, tmp_path / name) for name in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_identifiers_and_body_part_can_be_chosen(phantom: Phantom, tmp_path: Path) -> None:
    path = write_ct_series(phantom, tmp_path, study_uid="2.25.1", series_uid="2.25.2", body_part="ABDOMEN")[0]
    slice_ = pydicom.dcmread(path)
    assert (slice_.StudyInstanceUID, slice_.SeriesInstanceUID) == ("2.25.1", "2.25.2")
    assert slice_.BodyPartExamined == "ABDOMEN"


def test_an_independent_validator_finds_no_error(phantom: Phantom, tmp_path: Path) -> None:
    validator = shutil.which("dciodvfy") or Path(sys.executable).with_name("dciodvfy")
    if not Path(validator).exists():
        pytest.skip("dciodvfy is not installed")
    path = write_ct_series(phantom, tmp_path)[2]
    report = subprocess.run([str(validator), str(path)], capture_output=True, text=True, check=False)
    assert "Error" not in report.stdout + report.stderr
