"""Structures that only one sex has."""

from pathlib import Path

import pytest

from appliance.settings import load_settings
from tests.support.ct_files import all_slices, make_ct_series, read_series

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize(("sex", "drawn"), [("M", True), ("F", False), ("O", True), ("", True)])
def test_a_prostate_is_drawn_unless_the_patient_is_known_to_be_female(tmp_path: Path, sex: str, drawn: bool) -> None:
    series = read_series(make_ct_series(tmp_path, slices=3, mutate=all_slices(PatientSex=sex)))
    assert series.patient_sex == sex
    rois = load_settings(CONFIGS).rois
    assert rois["Prostate"].exists_in(series.patient_sex) is drawn
    assert rois["Bladder"].exists_in(series.patient_sex)
