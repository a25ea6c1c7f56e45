"""Limits are chosen so that what failed is flagged, and are put into a version of their own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.errors import ModelRefused, Reason, SeriesRefused
from appliance.phantoms.faults import Fault
from appliance.segmentation.model_package import load_package
from appliance.segmentation.opening import open_ensemble
from appliance.segmentation.quality import RoiQuality, doubt_of
from appliance.training.calibrate import next_version, observe_all, report_on, write_calibrated
from appliance.training.calibration import calibration_of, judged_by
from appliance.training.observing import (
    FAULTS,
    PERCENTILES,
    Case,
    CaseObservation,
    Observation,
    hospital_cases,
    observe,
    with_faults,
)
from appliance.training.performance import Judged, area_under_curve, performance_of
from tests.support.ct_files import make_ct_series, read_series
from tests.support.foreign_structure_sets import foreign_structure_set
from tests.support.model_packages import make_threshold_package

HU = (-120.0, -60.0, 20.0, 50.0, 200.0)


def observed(
    case: str, dice: float, fold_dice: float, *, entropy: float = 0.1, volume: float = 100.0, fault: Fault = Fault.CLEAN
) -> CaseObservation:
    quality = RoiQuality("Bladder", fold_dice, entropy, volume, doubt=doubt_of(fold_dice, entropy, 0.2))
    return CaseObservation(case, fault, 0.2, HU, (), (Observation(case, fault, "Bladder", dice, quality),))


CASES = [
    *(observed(f"good {number}", 0.9, 0.95 + number / 1000) for number in range(10)),
    observed("bad", 0.5, 0.9, fault=Fault.NOISE),
    observed("hard", 0.79, 0.945, fault=Fault.BLUR),
    observed("odd", 0.3, 0.99, volume=500.0, fault=Fault.STREAKS),
]


def test_every_failure_of_the_calibration_is_flagged_and_no_good_one_that_need_not_be() -> None:
    calibration = calibration_of(CASES)
    verdicts = {one.what: one.flagged for one in judged_by(calibration, CASES)}
    assert [what for what, flagged in verdicts.items() if flagged] == [
        "bad, noise: Bladder",
        "hard, blur: Bladder",
        "odd, streaks: Bladder",
    ]
    limits = calibration.quality["Bladder"]
    assert limits.max_doubt is not None
    assert max(doubt_of(0.95 + n / 1000, 0.1, 0.2) or 0 for n in range(10)) < limits.max_doubt
    assert limits.volume_cm3 == pytest.approx((100 / 1.3, 130), abs=0.1)
    assert limits.min_fold_dice == pytest.approx(1 - 0.05 * 1.25)


def test_what_just_passes_in_the_calibration_is_taken_for_a_failure() -> None:
    narrow = [*CASES[:10], observed("narrow", 0.81, 0.949)]
    (verdict,) = judged_by(calibration_of(narrow), narrow[-1:])
    assert verdict.flagged


def test_a_draft_that_is_as_unsure_as_no_clean_scan_is_flagged_whole() -> None:
    upside_down = CaseObservation("turned", Fault.TURNED, 0.5, HU, (), CASES[0].rois)
    assert judged_by(calibration_of(CASES), [upside_down])[0].flagged


def test_what_was_not_found_counts_as_told_and_as_the_most_suspicious() -> None:
    lost = CaseObservation("lost", Fault.BLUR, 0.2, HU, (), (Observation("lost", Fault.BLUR, "Bladder", 0.0, None),))
    (verdict,) = judged_by(calibration_of(CASES), [lost])
    assert (verdict.flagged, verdict.score) == (True, float("inf"))


def test_the_hounsfield_units_of_clean_scans_become_the_usual_ones() -> None:
    ranges = calibration_of(CASES).hu_percentiles
    assert [one.percentile for one in ranges] == list(PERCENTILES)
    assert all(low < hu < high for (low, high), hu in zip((one.hu for one in ranges), HU, strict=True))


def test_the_area_under_the_curve_is_the_chance_of_being_told_apart() -> None:
    score, bad = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    assert area_under_curve(score, bad) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert np.isnan(area_under_curve(score, bad & False))


def test_a_silent_failure_is_named_and_risk_falls_with_what_is_trusted() -> None:
    judged = [
        Judged("fine", clean=True, dice=0.9, score=0.1, flagged=False),
        Judged("alarm", clean=True, dice=0.85, score=0.3, flagged=True),
        Judged("silent", clean=False, dice=0.5, score=0.2, flagged=False),
        Judged("told", clean=False, dice=0.1, score=0.9, flagged=True),
    ]
    done = performance_of(judged)
    assert (done.failed, done.silent, done.sensitivity, done.specificity, done.false_alarms) == (
        2, ("silent",), 0.5, 0.5, 0.5,
    )  # fmt: skip
    assert done.risk == pytest.approx((0.3, 0.4125))


@pytest.fixture(scope="module")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_threshold_package(
        tmp_path_factory.mktemp("packages") / "bone",
        thresholds_hu={"bone": 250.0},
        rois=[{"name": "Bone_Pelvic", "classes": ["bone"], "keep": "largest", "must_touch": []}],
        tile=(16, 20, 24),
    )


def test_a_calibrated_package_has_the_same_networks_other_limits_and_another_digest(
    package_folder: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in package_folder.iterdir()}
    package = load_package(package_folder)
    cases = [replace(one, rois=(replace(one.rois[0], roi="Bone_Pelvic"),)) for one in CASES]
    report = report_on(cases)
    made = write_calibrated(package, tmp_path, "1.1.0", report)
    assert {path.name: path.read_bytes() for path in package_folder.iterdir()} == before
    assert made.digest != package.digest
    assert made.manifest.folds == package.manifest.folds
    assert made.manifest.rois[0].quality == report.calibration.quality["Bone_Pelvic"]
    assert made.manifest.max_draft_entropy == report.calibration.max_draft_entropy
    assert made.manifest.limits.hu_percentiles == report.calibration.hu_percentiles
    plain: Any = {"quality", "limits", "max_draft_entropy", "version"}
    kept = {"rois": {0: {"quality"}}, **dict.fromkeys(plain - {"quality"}, True)}
    assert made.manifest.model_dump(exclude=kept) == package.manifest.model_dump(exclude=kept)
    assert json.loads((tmp_path / "calibration.json").read_text())["cases"] == len(CASES)


def test_the_next_version_is_one_that_is_free() -> None:
    assert next_version("1.0.0", []) == "1.1.0"
    assert next_version("1.9.3", ["1.10.0", "1.9.3"]) == "1.11.0"


def test_cases_without_any_structure_of_the_model_calibrate_nothing() -> None:
    with pytest.raises(ModelRefused) as caught:
        report_on([CaseObservation("a", Fault.CLEAN, 0.2, HU, (), ())])
    assert "nothing can be calibrated" in caught.value.sentence


def small_case() -> Case:
    hu = np.full((16, 30, 32), -1000, np.int16)
    hu[2:14, 4:26, 4:28] = 40
    bone = np.zeros(hu.shape, np.bool_)
    bone[4:10, 8:20, 6:14] = True
    hu[bone] = 700
    volume = CtVolume(hu, SeriesGeometry.axial(hu.shape, (4.0, 4.0, 4.0)))
    return Case("one", Fault.CLEAN, volume, {"BONE_PELVIC": bone, "Heart": bone})


def test_a_case_comes_clean_and_with_faults_and_the_truth_goes_where_the_fault_puts_it() -> None:
    cases = list(with_faults(small_case(), 1, np.random.default_rng(5)))
    again = list(with_faults(small_case(), 1, np.random.default_rng(5)))
    assert [one.fault for one in cases] == [Fault.CLEAN, Fault.UPSIDE_DOWN, Fault.TURNED, Fault.NOISE, Fault.BLUR]
    for one, other in zip(cases, again, strict=True):
        assert np.array_equal(one.volume.hu, other.volume.hu)
    clean, _, turned, noisy, _ = cases
    assert np.array_equal(turned.truth["Heart"], clean.truth["Heart"][:, ::-1, ::-1])
    assert np.array_equal(turned.volume.hu, clean.volume.hu[:, ::-1, ::-1])
    assert not np.array_equal(noisy.volume.hu, clean.volume.hu)
    assert np.array_equal(noisy.truth["Heart"], clean.truth["Heart"])


def test_all_faults_come_equally_often() -> None:
    seen = [one.fault for index in range(7) for one in with_faults(small_case(), index, np.random.default_rng(index))]
    assert {fault: seen.count(fault) for fault in FAULTS} == dict.fromkeys(FAULTS, 4)
    assert Fault.MIRRORED not in seen


def a_hospitals_case(folder: Path, name: str) -> None:
    paths = make_ct_series(folder, slices=6, rows=40, columns=48)
    series = read_series(paths)
    voxels = np.zeros((6, 40, 48), np.bool_)
    voxels[1:5, 10:30, 10:30] = True
    (folder / "drawn.dcm").write_bytes(foreign_structure_set(paths, series, {name: voxels}))


def test_a_hospitals_own_cases_are_read_with_what_a_person_drew(tmp_path: Path) -> None:
    a_hospitals_case(tmp_path / "Doe^Jane", "bone_pelvic")
    (clean, *faulty) = hospital_cases(tmp_path)
    assert (clean.name, clean.fault, len(faulty)) == ("case 1", Fault.CLEAN, 4)
    assert int(clean.truth["bone_pelvic"].sum()) == 4 * 20 * 20
    assert clean.volume.geometry.shape == (6, 40, 48)


def test_a_case_without_a_structure_set_is_refused_without_the_name_of_its_folder(tmp_path: Path) -> None:
    make_ct_series(tmp_path / "Doe^Jane", slices=4)
    with pytest.raises(SeriesRefused) as caught:
        list(hospital_cases(tmp_path))
    assert caught.value.reason is Reason.STRUCTURE_SET_UNCLEAR
    assert "Jane" not in caught.value.sentence


def test_what_the_model_finds_is_compared_whatever_the_case_of_the_letters(package_folder: Path) -> None:
    ensemble = open_ensemble(load_package(package_folder), 1)
    case = small_case()
    seen = observe(ensemble, case)
    (only,) = seen.rois
    assert (only.roi, only.dice > 0.9) == ("Bone_Pelvic", True)
    assert only.quality is not None
    assert observe_all(ensemble, [case]) == [seen]
