"""Whatever comes in: no result from bad input, a reason and a sentence, every byte kept, and the next case goes on."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from appliance.dicom.identity import read_identity
from appliance.dicom.uid import derive_uid
from appliance.records.tables import Case, CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.arriving import data_set_bytes
from tests.support.ct_files import all_slices, only_slice, truncate
from tests.support.patients import make_patient
from tests.support.raw_sender import association, send_bytes, send_file
from tests.support.waiting import wait_until

HOSTILE = "../../../../etc/passwd"


@dataclass
class Site:
    """The shared appliance, as one test sees it: the series that it sends have names of their own."""

    box: ApplianceBox
    folder: Path
    name: str

    healthy: list[Path] = field(default_factory=list)

    def send_next(self) -> None:
        """Right behind what the test has sent comes a healthy series; once."""
        if not self.healthy:
            self.healthy = self.series("healthy")
            self.box.send(self.healthy)

    def series(self, kind: str = "bad", **options: Any) -> list[Path]:
        return make_patient(self.folder / kind, f"{self.name} {kind}", **options)

    def assert_refused(self, path: Path, reason: str, *words: str) -> Case:
        """The series of `path` ends as refused, for this reason, in these words, and nothing was made from it."""
        self.send_next()
        case = self.box.wait_for_case(path, CaseState.REFUSED)
        assert case.reason == reason, self.box.story(case)
        assert case.sentence
        assert all(word in case.sentence for word in words), case.sentence
        assert case.result_sop_instance_uid is None
        assert not self.is_answered(path)
        return case

    def is_answered(self, path: Path) -> bool:
        """Whether the PACS holds a structure set that was made from the series of `path`."""
        uid = read_identity(path).series_instance_uid
        return any(uid.encode() in stored for stored in self.box.pacs.stored.values())

    def assert_kept(self, data_sets: Iterable[bytes], syntax: str = ExplicitVRLittleEndian) -> None:
        """Each of these data sets lies in the spool, byte for byte."""
        for data_set in data_sets:
            digest = hashlib.sha256(f"{syntax}\0".encode() + data_set).hexdigest()
            places = (self.box.spool.instance_path(digest), self.box.spool.quarantine_path(digest))
            kept = [place for place in places if place.is_file()]
            assert len(kept) == 1, f"{digest[:12]} lies in {kept}"
            assert kept[0].read_bytes().endswith(data_set)

    def assert_set_aside(self, data_set: bytes, *reasons: str) -> None:
        """This data set is in quarantine, for one of the reasons, with a sentence."""
        digest = hashlib.sha256(f"{ExplicitVRLittleEndian}\0".encode() + data_set).hexdigest()
        found = [instance for instance in self.box.quarantined() if instance.digest == digest]
        assert len(found) == 1
        assert found[0].reason in reasons
        assert found[0].sentence


@pytest.fixture
def site(box: ApplianceBox, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The appliance; after each test, a healthy series sent right behind the bad one must have been delivered."""
    site = Site(box, tmp_path, request.node.name)
    yield site
    site.send_next()
    box.wait_for_case(site.healthy[0], CaseState.DELIVERED, CaseState.COMMITTED)
    assert site.is_answered(site.healthy[0])


def _data_sets(paths: Iterable[Path]) -> list[bytes]:
    return [data_set_bytes(path) for path in paths]


def test_a_missing_middle_slice_is_waited_for_and_then_refused_with_its_place(site: Site) -> None:
    paths = site.series()
    del paths[5]
    site.box.send(paths)
    case = site.box.wait_for_case(paths[0], CaseState.INCOMPLETE)
    assert case.reason == "slice_missing"
    site.assert_refused(paths[0], "slice_missing", "gap of 6.00 mm after slice 5", "1 slice is missing")
    site.assert_kept(_data_sets(paths))


def test_two_slices_at_one_position_are_refused(site: Site) -> None:
    def on_top(index: int, dataset: Any) -> None:
        if index == 6:
            dataset.ImagePositionPatient = ["-185.044", "-311.319", "-797.0"]

    paths = site.series(mutate=on_top)
    site.box.send(paths)
    site.assert_refused(paths[0], "position_duplicate")
    site.assert_kept(_data_sets(paths))


def test_slices_of_two_frames_of_reference_are_refused(site: Site) -> None:
    paths = site.series(mutate=only_slice(4, FrameOfReferenceUID="1.2.3.4"))
    site.box.send(paths)
    site.assert_refused(paths[0], "frame_of_reference_mixed")
    site.assert_kept(_data_sets(paths))


def test_slices_of_two_patients_are_refused_without_a_name_in_the_sentence(site: Site) -> None:
    paths = site.series(mutate=only_slice(4, PatientName="Else^Somebody"))
    site.box.send(paths)
    case = site.assert_refused(paths[0], "patient_mixed")
    assert "Somebody" not in (case.sentence or "")
    site.assert_kept(_data_sets(paths))


def test_mr_images_are_not_offered_a_way_in(site: Site) -> None:
    before = len(site.box.spool.arrivals())
    with association(site.box.me.port, sop_class=MRImageStorage) as opened:
        assert opened.accepted_contexts == []
    assert len(site.box.spool.arrivals()) == before


def test_mr_images_sent_as_ct_are_refused(site: Site) -> None:
    paths = site.series(mutate=all_slices(SOPClassUID=MRImageStorage, Modality="MR"))
    with association(site.box.me.port) as opened:
        for path in paths:
            assert send_file(opened, path, read_identity(path).sop_instance_uid) == 0x0000
    site.assert_refused(paths[0], "sop_class_not_ct", "send CT Image Storage objects")
    site.assert_kept(_data_sets(paths))


def test_a_structure_set_sent_as_ct_is_refused(site: Site) -> None:
    source = site.series("source")
    site.box.send(source)
    case = site.box.wait_for_case(source[0], CaseState.DELIVERED, CaseState.COMMITTED)
    path = site.folder / "rtstruct.dcm"
    structure_set = site.box.pacs.structure_set(case.result_sop_instance_uid or "")
    structure_set.SeriesInstanceUID = derive_uid(site.name)
    structure_set.save_as(path)
    with association(site.box.me.port, syntax=ImplicitVRLittleEndian) as opened:
        assert send_file(opened, path, read_identity(path).sop_instance_uid) == 0x0000
    site.assert_refused(path, "sop_class_not_ct")
    site.assert_kept(_data_sets([path]), ImplicitVRLittleEndian)


def test_a_file_cut_off_in_its_pixels_is_refused(site: Site) -> None:
    paths = site.series()
    truncate(paths[7], keep=0.6)
    with association(site.box.me.port) as opened:
        for path in paths:
            assert send_file(opened, path, dcmread(path, stop_before_pixels=True).SOPInstanceUID) == 0x0000
    site.assert_refused(paths[0], "pixels_truncated")
    site.assert_kept(_data_sets(paths))


def test_a_file_cut_off_in_its_header_is_set_aside_and_its_slice_is_missing(site: Site) -> None:
    paths = site.series()
    cut = data_set_bytes(paths[7])[:301]
    with association(site.box.me.port) as opened:
        assert send_bytes(opened, cut, "1.2.3.4.5") == 0x0000
    others = paths[:7] + paths[8:]
    site.box.send(others)
    site.assert_refused(paths[0], "slice_missing")
    site.assert_set_aside(cut, "unreadable", "element_missing")
    site.assert_kept([cut, *_data_sets(others)])


def test_an_empty_uid_is_set_aside(site: Site) -> None:
    paths = site.series(mutate=only_slice(5, SOPInstanceUID=""))
    with association(site.box.me.port) as opened:
        for path in paths:
            uid = dcmread(path, stop_before_pixels=True).file_meta.MediaStorageSOPInstanceUID
            assert send_file(opened, path, uid) == 0x0000
    site.assert_refused(paths[0], "slice_missing")
    site.assert_set_aside(data_set_bytes(paths[5]), "element_missing")
    site.assert_kept(_data_sets(paths))


@pytest.mark.filterwarnings("ignore:.*VR UI:UserWarning")
def test_a_hostile_uid_names_no_file_and_is_set_aside(site: Site) -> None:
    paths = site.series(mutate=only_slice(5, SOPInstanceUID=HOSTILE.encode(), StudyInstanceUID=HOSTILE.encode()))
    hostile = data_set_bytes(paths[5])
    with association(site.box.me.port) as opened:
        assert send_bytes(opened, hostile, HOSTILE) == 0xC000
    others = paths[:5] + paths[6:]
    site.box.send(others)
    site.assert_refused(paths[0], "slice_missing")
    site.assert_set_aside(hostile, "uid_invalid")
    site.assert_kept([hostile, *_data_sets(others)])
    assert not any("passwd" in path.name for path in site.box.folder.rglob("*"))


def test_not_a_number_in_a_decimal_is_refused(site: Site) -> None:
    paths = site.series(mutate=only_slice(5, ImagePositionPatient=b"0\\0\\nan"))
    site.box.send(paths)
    site.assert_refused(paths[0], "decimal_not_finite", "ImagePositionPatient (0020,0032)")
    site.assert_kept(_data_sets(paths))


def test_a_series_whose_association_was_aborted_is_one_case_when_the_rest_arrives(site: Site) -> None:
    paths = site.series()
    with association(site.box.me.port) as opened:
        for path in paths[:6]:
            assert send_file(opened, path, read_identity(path).sop_instance_uid) == 0x0000
        opened.abort()
    site.box.send(paths[6:])
    case = site.box.wait_for_case(paths[0], CaseState.DELIVERED, CaseState.COMMITTED)
    assert (case.slices, case.revision, len(site.box.cases(case.series_instance_uid))) == (12, 1, 1)
    assert site.box.pacs.received.count(case.result_sop_instance_uid or "") == 1
    aborts = [entry.words for entry in site.box.box_trail() if entry.event == "association_aborted"]
    assert any("6" in words and "FAKEPACS" in words for words in aborts)


def test_a_series_whose_association_was_aborted_for_good_waits_and_is_refused(site: Site) -> None:
    paths = site.series()
    sent = [paths[k] for k in (0, 1, 2, 5, 8, 9)]
    with association(site.box.me.port) as opened:
        for path in sent:
            assert send_file(opened, path, read_identity(path).sop_instance_uid) == 0x0000
        opened.abort()
    site.box.wait_for_case(paths[0], CaseState.INCOMPLETE)
    site.assert_refused(paths[0], "slice_missing", "4 slices are missing")
    site.assert_kept(_data_sets(sent))


def test_a_series_that_no_protocol_fits_is_refused_with_what_did_not_fit(site: Site) -> None:
    paths = site.series(mutate=all_slices(BodyPartExamined="HEAD"))
    site.box.send(paths)
    site.assert_refused(paths[0], "no_protocol", "bones does not take body_part=HEAD")
    site.assert_kept(_data_sets(paths))


def test_a_result_for_a_pacs_that_is_down_waits_and_is_delivered_once(site: Site) -> None:
    paths = site.series()
    site.box.pacs.stop()
    try:
        site.box.send(paths)
        site.send_next()
        case = site.box.wait_for_case(paths[0], CaseState.SENDING)
        wait_until(lambda: site.box.events(case).count("delivery_tried") >= 2, 10, "two vain tries")
    finally:
        site.box.pacs.start()
    case = site.box.wait_for_case(paths[0], CaseState.DELIVERED, CaseState.COMMITTED)
    assert site.box.pacs.received.count(case.result_sop_instance_uid or "") == 1


def test_a_ct_without_a_single_usable_slice_makes_no_case(site: Site) -> None:
    junk = [bytes([number]) * 99 for number in range(3)]
    before = len(site.box.cases())
    with association(site.box.me.port) as opened:
        for number, data_set in enumerate(junk):
            assert send_bytes(opened, data_set, f"1.2.{number}", CTImageStorage) == 0x0000
    site.send_next()
    wait_until(lambda: len(site.box.cases()) == before + 1, 10, "the healthy case")
    for data_set in junk:
        site.assert_set_aside(data_set, "unreadable")
