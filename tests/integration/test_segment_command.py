"""`delineate segment` as a process of its own, with the bundled model on a phantom whose true structures are known."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.dicom.ct_series import assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.rasterising import rasterise
from appliance.dicom.structure_reader import read_contours
from appliance.phantoms import make_phantom
from appliance.phantoms.ct_files import write_ct_series
from appliance.segmentation.agreement import dice

ROOT = Path(__file__).parents[2]


def delineate(*words: object) -> subprocess.CompletedProcess[str]:
    """The command as an operator gives it, with the shipped configuration."""
    command = [sys.executable, "-m", "appliance", "--config", ROOT / "configs", *words]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.timeout(300)
def test_the_bundled_model_finds_the_organs_of_a_phantom_and_the_checker_agrees(tmp_path: Path) -> None:
    phantom = make_phantom(34, spacing_mm=(4.0, 3.0, 3.0), shape=(75, 170, 170), sex="male")
    paths = write_ct_series(phantom, tmp_path / "ct", patient_name="Phantom^Secret", patient_id="PHANTOM-1")
    done = delineate("segment", tmp_path / "ct", "--model", "pelvis-demo", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    series = assemble_series([parse_slice(path) for path in paths])
    contours = read_contours(tmp_path / "out" / "structure_set.dcm", series)
    for name in ("Bladder", "Femur_L", "Femur_R", "Bone_Pelvic"):
        found = rasterise(contours[name], series.geometry).in_grid(series.geometry.shape)
        assert dice(found, phantom.truth[name]) > 0.8, name
    assert {one["name"] for one in report["structures"]} == set(contours)
    assert "Secret" not in done.stdout + done.stderr
    checked = delineate("check", tmp_path / "out" / "structure_set.dcm", "--ct", tmp_path / "ct")
    assert checked.returncode == 0, checked.stdout
