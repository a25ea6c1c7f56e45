"""A Segmentation beside the structure set, all the way to a PACS: the fake one, and a real Orthanc."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.seg import segread
from pydicom import dcmread

from appliance.clock import now_utc
from appliance.dicom.structure_file import read_structure_file
from appliance.records.tables import Case, CaseState, DeliveryState, ResultKind
from appliance.running.showing import what_now
from tests.support.appliance_box import ApplianceBox
from tests.support.ct_files import all_slices
from tests.support.fake_pacs import FakePacs
from tests.support.free_ports import free_port
from tests.support.orthanc import Orthanc
from tests.support.patients import make_patient
from tests.support.waiting import wait_until


@pytest.fixture
def paths(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    """A series for the protocol that asks for both."""
    name = request.node.name
    return make_patient(tmp_path / "ct", name, slices=6, mutate=all_slices(BodyPartExamined="HIP"))


def _uids(case: Case) -> list[str]:
    return [result.sop_instance_uid for result in case.results]


def _states(case: Case) -> list[DeliveryState]:
    return [delivery.state for delivery in case.deliveries]


def test_both_reach_the_pacs_and_are_committed(box: ApplianceBox, paths: list[Path]) -> None:
    box.send(paths)
    case = box.wait_for_case(paths[0], CaseState.COMMITTED)
    assert [result.kind for result in case.results] == list(ResultKind)
    assert _states(case) == [DeliveryState.COMMITTED] * 2
    structure_set, segmentation = (box.pacs.structure_set(uid) for uid in _uids(case))
    assert (structure_set.Modality, segmentation.Modality) == ("RTSTRUCT", "SEG")
    assert structure_set.StudyInstanceUID == segmentation.StudyInstanceUID
    assert structure_set.FrameOfReferenceUID == segmentation.FrameOfReferenceUID
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == ["External", "Bone_Pelvic"]
    assert "segmentation_written" in box.events(case)
    assert {(each,) for each in _uids(case)} <= {asked.sop_instance_uids for asked in box.pacs.asked}


def test_sent_again_both_come_again_as_the_same_objects(box: ApplianceBox, paths: list[Path]) -> None:
    box.send(paths)
    first = box.wait_for_case(paths[0], CaseState.COMMITTED)
    before = [box.pacs.stored[uid] for uid in _uids(first)]
    box.send(paths)
    wait_until(lambda: [box.pacs.received.count(uid) for uid in _uids(first)] == [2, 2], 15, "both to come again")
    again = box.wait_for_case(paths[0], CaseState.COMMITTED)
    assert _uids(again) == _uids(first)
    assert [box.pacs.stored[uid] for uid in _uids(again)] == before, "byte for byte"
    assert len(box.cases(first.series_instance_uid)) == 1


def test_a_pacs_that_takes_no_segmentation_gets_the_structure_set(box: ApplianceBox, paths: list[Path]) -> None:
    box.pacs.stop()
    box.pacs.takes_segmentations = False
    box.pacs.start()
    try:
        box.send(paths)
        case = box.wait_for_case(paths[0], CaseState.COMMITTED)
    finally:
        box.pacs.stop()
        box.pacs.takes_segmentations = True
        box.pacs.start()
    assert _states(case) == [DeliveryState.COMMITTED, DeliveryState.REFUSED]
    assert [uid in box.pacs.stored for uid in _uids(case)] == [True, False]
    words = [entry.words for entry in box.trail(case)]
    refusal = "it does not accept Segmentation Storage; enable that at the destination"
    assert f"pacs will not take the segmentation: {refusal}" in words
    assert what_now(case, box.settings, now_utc()) == "committed by pacs; segmentation refused by pacs"


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[Orthanc, int]]:
    """Orthanc, and the port at which it expects the appliance."""
    listen = free_port()
    orthanc = Orthanc(tmp_path / "orthanc", dicom_port=free_port(), http_port=free_port(), appliance_port=listen)
    orthanc.start()
    yield orthanc, listen
    orthanc.stop()


@pytest.mark.skipif(Orthanc.program() is None, reason="Orthanc is not installed")
def test_orthanc_keeps_both_and_commits_to_both(
    tmp_path: Path, paths: list[Path], orthanc: tuple[Orthanc, int]
) -> None:
    server, listen = orthanc
    nobody = FakePacs(Orthanc.AE_TITLE)  # never started: Orthanc stands at its place
    nobody.port = server.dicom_port
    with ApplianceBox(tmp_path / "box", nobody, {"intake": {"port": listen}}) as box:
        box.send(paths)
        case = box.wait_for_case(paths[0], CaseState.COMMITTED)
    assert _states(case) == [DeliveryState.COMMITTED] * 2
    (structure_set,), (segmentation,) = server.objects("RTSTRUCT"), server.objects("SEG")
    regions = [roi.name for roi in read_structure_file(structure_set).rois]
    kept = segread(BytesIO(segmentation))
    assert [dcmread(BytesIO(one)).SOPInstanceUID for one in (structure_set, segmentation)] == _uids(case)
    assert [kept.get_segment_description(number).segment_label for number in kept.segment_numbers] == regions
    assert {uid for _, _, uid in kept.get_source_image_uids()} == {dcmread(path).SOPInstanceUID for path in paths}
