"""A good series is delivered once, under one UID, however it comes and however often."""

from pathlib import Path

import pytest
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from appliance.dicom.ct_volume import input_digest, load_volume
from appliance.dicom.identity import read_identity
from appliance.records.tables import Case, CaseState, InstanceState
from tests.support.appliance_box import ApplianceBox
from tests.support.ct_files import compress, read_series
from tests.support.patients import BONE_HU, bony_hu, interleave, make_patient
from tests.support.waiting import wait_until

DONE = (CaseState.DELIVERED, CaseState.COMMITTED)
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A seed for UIDs that no other test uses."""
    return str(request.node.name)


def _digest(paths: list[Path]) -> str:
    series = read_series(paths)
    return input_digest(series, load_volume(series))


def _sent(box: ApplianceBox, case: Case) -> int:
    """How often the result of the case came to the PACS."""
    return box.pacs.received.count(case.result_sop_instance_uid or "nothing")


def test_series_and_studies_interleaved_in_one_association_are_a_case_each(
    box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    def other_study(_index: int, dataset: object) -> None:
        dataset.StudyInstanceUID = "1.2.826.0.1"  # type: ignore[attr-defined]

    a = make_patient(tmp_path / "a", f"{name} a")
    b = make_patient(tmp_path / "b", f"{name} b")
    c = make_patient(tmp_path / "c", f"{name} c", mutate=other_study)
    box.send(interleave(a, b, c))
    cases = [box.wait_for_case(paths[0], *DONE) for paths in (a, b, c)]
    for case, paths in zip(cases, (a, b, c), strict=True):
        assert {each.sop_instance_uid for each in box.instances(case)} == {
            read_identity(path).sop_instance_uid for path in paths
        }
        structure_set = box.pacs.structure_set(case.result_sop_instance_uid or "")
        assert structure_set.StudyInstanceUID == read_identity(paths[0]).study_instance_uid
    assert len({case.result_sop_instance_uid for case in cases}) == 3


def test_one_series_over_several_associations_in_any_order_is_one_case(
    box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    paths = make_patient(tmp_path / "ct", name)
    shuffled = [paths[(7 * k) % 12] for k in range(12)]
    for part in (shuffled[:5], shuffled[5:6], shuffled[6:]):
        box.send(part)
    case = box.wait_for_case(paths[0], *DONE)
    assert (case.slices, case.revision) == (12, 1)
    assert case.input_digest == _digest(paths)


def test_slices_sent_several_times_are_one_result(box: ApplianceBox, tmp_path: Path, name: str) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.send([*paths, *reversed(paths)])
    box.send(paths[:3])
    case = box.wait_for_case(paths[0], *DONE)
    assert len(box.cases(case.series_instance_uid)) == 1
    assert (case.slices, _sent(box, case)) == (12, 1)
    assert "slices_repeated" in box.events(case)


def test_every_lossless_transfer_syntax_gives_the_same_input(box: ApplianceBox, tmp_path: Path, name: str) -> None:
    series = {syntax: make_patient(tmp_path / syntax, f"{name} {syntax}", slices=5) for syntax in SYNTAXES}
    expected = {syntax: _digest(paths) for syntax, paths in series.items()}
    for syntax, paths in series.items():
        for path in paths if syntax != ExplicitVRLittleEndian else ():
            compress(path, syntax)
        box.send(paths)
    for syntax, paths in series.items():
        case = box.wait_for_case(paths[0], *DONE)
        assert {each.transfer_syntax_uid for each in box.instances(case)} == {syntax}, UID(syntax).name
        assert case.input_digest == expected[syntax], UID(syntax).name


def test_a_late_slice_opens_a_revision_with_a_result_of_its_own(box: ApplianceBox, tmp_path: Path, name: str) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.send(paths[:11])
    first = box.wait_for_case(paths[0], *DONE)
    box.send(paths[11:])
    second = box.wait_for_case(paths[0], *DONE, revision=2)
    assert (first.slices, second.slices) == (11, 12)
    assert first.result_sop_instance_uid != second.result_sop_instance_uid
    assert (_sent(box, first), _sent(box, second)) == (1, 1)
    referenced = box.pacs.stored[second.result_sop_instance_uid or ""]
    assert read_identity(paths[11]).sop_instance_uid.encode() in referenced


def test_a_series_sent_again_after_delivery_is_answered_with_the_same_result(
    box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.send(paths)
    first = box.wait_for_case(paths[0], CaseState.COMMITTED)
    before = box.pacs.stored[first.result_sop_instance_uid or ""]
    box.send(paths)
    wait_until(lambda: _sent(box, first) == 2, 15, "the result to come again")
    again = box.wait_for_case(paths[0], CaseState.COMMITTED)
    assert again.result_sop_instance_uid == first.result_sop_instance_uid
    assert box.pacs.stored[again.result_sop_instance_uid or ""] == before, "byte for byte"
    assert len(box.cases(first.series_instance_uid)) == 1
    assert "delivery_repeated" in box.events(again)


def test_the_same_images_recompressed_change_nothing(box: ApplianceBox, tmp_path: Path, name: str) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.send(paths)
    first = box.wait_for_case(paths[0], CaseState.COMMITTED)
    box.send([compress(path, JPEG2000Lossless) for path in paths])
    wait_until(lambda: _sent(box, first) == 2, 15, "the result to come again")
    again = box.wait_for_case(paths[0], *DONE)
    assert again.input_digest == first.input_digest
    assert again.result_sop_instance_uid == first.result_sop_instance_uid
    assert len(box.cases(first.series_instance_uid)) == 1
    assert {each.state for each in box.instances(again)} == {InstanceState.KEPT}


def test_other_pixels_under_a_known_uid_are_a_conflict_and_the_first_result_stands(
    box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.send(paths)
    first = box.wait_for_case(paths[0], *DONE)
    changed = bony_hu()
    changed[4, 0, 0] = BONE_HU
    box.send([make_patient(tmp_path / "other", name, hu=changed)[4]], answer="0x0111")
    second = box.wait_for_case(paths[0], CaseState.REFUSED, revision=2)
    assert second.reason == "instance_conflict"
    assert second.result_sop_instance_uid is None
    assert _sent(box, first) == 1
    assert box.cases(first.series_instance_uid)[0].state in DONE


def test_the_structure_set_names_only_what_was_in_its_input(box: ApplianceBox, tmp_path: Path, name: str) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.send(paths)
    case = box.wait_for_case(paths[0], *DONE)
    result = box.pacs.structure_set(case.result_sop_instance_uid or "")
    source = [read_identity(path) for path in paths]
    frame = result.ReferencedFrameOfReferenceSequence[0]
    images = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence
    assert [image.ReferencedSOPInstanceUID for image in images] == [one.sop_instance_uid for one in source]
    assert result.PatientID == source[0].patient_id
    assert result.StudyInstanceUID == source[0].study_instance_uid
    assert [roi.ROIName for roi in result.StructureSetROISequence] == ["External", "Bone_Pelvic"]
    assert result.ApprovalStatus == "UNAPPROVED"


def test_everything_that_was_received_is_accounted_for(box: ApplianceBox, tmp_path: Path, name: str) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.send(paths)
    box.wait_for_case(paths[0], *DONE)
    assert box.spool.arrivals() == []
    on_disk = {path.stem for path in (box.spool.root / "instances").rglob("*.dcm")}
    aside = {path.stem for path in (box.spool.root / "quarantine").rglob("*.dcm")}
    in_rows = {instance.digest for instance in box.all_instances()}
    assert on_disk | aside == in_rows
    without_a_case = {each.sop_instance_uid for each in box.all_instances() if each.state is InstanceState.KEPT} - {
        each.sop_instance_uid for case in box.cases() for each in box.instances(case)
    }
    assert without_a_case == set()
