"""A real CT through the real appliance into a real Orthanc, sent by DCMTK: the line as a hospital runs it.

The CT comes from DELINEATE_REAL_CT (a folder with series/); it is not part of the project.
"""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless

from appliance.delivery.store_scu import Caller
from appliance.dicom.uid import derive_uid
from appliance.records import Database, queries
from appliance.records.tables import Case, CaseState
from appliance.settings import Peer, Settings, load_settings
from appliance.spool import Spool
from tests.support.appliance_box import ApplianceBox
from tests.support.ct_files import compress
from tests.support.dcmtk import STORESCU
from tests.support.free_ports import free_port
from tests.support.orthanc import Orthanc
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
REAL_CT = Path(os.environ.get("DELINEATE_REAL_CT", ""))
IN_CI = os.environ.get("CI") == "true"

pytestmark = [
    pytest.mark.skipif(
        not IN_CI and not (REAL_CT / "series").is_dir(),
        reason="DELINEATE_REAL_CT does not name a folder with a real CT series",
    ),
    pytest.mark.skipif(
        not IN_CI and (Orthanc.program() is None or STORESCU is None),
        reason="Orthanc or DCMTK is not installed",
    ),
    pytest.mark.timeout(400),
]


class BundledBox(ApplianceBox):
    """The appliance as it is shipped: bundled model and protocol, with a real PACS in place of the fake one."""

    def __init__(self, settings: Settings) -> None:
        self.folder, self.settings = settings.folder.parent, settings
        self.log = self.folder / "appliance.log"
        self.me = Peer(ae_title="DELINEATE", host=settings.intake.host, port=settings.intake.port)
        self.sender = Caller(Orthanc.AE_TITLE, 10.0)
        self.database = Database(settings.database_url)
        self.spool = Spool(settings.data_dir / "spool")


@dataclass(frozen=True)
class Journey:
    """The appliance with its bundled model, and the PACS behind it."""

    box: ApplianceBox
    orthanc: Orthanc

    def send(self, files: list[Path], *options: str) -> None:
        """One association of DCMTK's storescu."""
        port = str(self.box.settings.intake.port)
        command = [str(STORESCU), *options, "-aet", Orthanc.AE_TITLE, "-aec", "DELINEATE", "127.0.0.1", port]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        sent = subprocess.run(
            [*command, *map(str, files)], capture_output=True, text=True, env=environment, timeout=60, check=False
        )
        assert sent.returncode == 0, sent.stdout + sent.stderr

    def wait_until_committed(self, series_instance_uid: str) -> Case:
        """The newest case of a series, once Orthanc has promised to keep its result."""

        def committed() -> Case | None:
            with self.box.database.reading() as tx:
                case = queries.latest_case(tx, series_instance_uid)
            assert case is None or case.state not in {CaseState.REFUSED, CaseState.FAILED}, case.sentence
            return case if case is not None and case.state is CaseState.COMMITTED else None

        return wait_until(committed, 240, f"series {series_instance_uid} to be committed")

    def structure_sets_of(self, series_instance_uid: str) -> list[Dataset]:
        """What Orthanc holds that refers to this series."""
        all_of_them = [dcmread(BytesIO(content)) for content in self.orthanc.structure_sets()]
        return [one for one in all_of_them if _referenced_series(one).SeriesInstanceUID == series_instance_uid]


def _referenced_series(structure_set: Dataset) -> Dataset:
    frame = structure_set.ReferencedFrameOfReferenceSequence[0]
    series: Dataset = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    return series


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    folder = tmp_path_factory.mktemp("journey")
    listen, dicom, http = free_port(), free_port(), free_port()
    configs = shutil.copytree(ROOT / "configs", folder / "configs")
    (configs / "appliance.toml").write_text(
        f'[appliance]\ndata_dir = "../var"\nmodels_dir = "{ROOT / "models/packages"}"\n'
        f"[broker]\nport = {free_port()}\n[intake]\nport = {listen}\nseries_quiet_s = 3\nslots = 64\n"
    )
    (configs / "peers.toml").write_text(
        f'[pacs]\nae_title = "{Orthanc.AE_TITLE}"\nhost = "127.0.0.1"\nport = {dicom}\nstorage_commitment = true\n'
    )
    orthanc = Orthanc(folder / "orthanc", dicom_port=dicom, http_port=http, appliance_port=listen)
    orthanc.start()
    try:
        with BundledBox(load_settings(configs)) as box:
            yield Journey(box, orthanc)
    finally:
        orthanc.stop()


@pytest.fixture(scope="module")
def plain() -> list[Path]:
    return sorted((REAL_CT / "series").iterdir())


@pytest.fixture(scope="module")
def compressed(plain: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same images as another series of another study, in JPEG 2000 lossless, in shuffled order."""
    folder = tmp_path_factory.mktemp("compressed")
    files = []
    for path in plain:
        image = dcmread(path)
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            setattr(image, keyword, derive_uid("again", str(getattr(image, keyword))))
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(folder / path.name)
        files.append(compress(folder / path.name, JPEG2000Lossless))
    random.Random(4).shuffle(files)
    return files


def _series_uid(files: list[Path]) -> str:
    return str(dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)


def _check(structure_set: Dataset, sent: list[Path], tmp_path: Path) -> None:
    """Refers to exactly what was sent, names the patient, is a draft, and passes the validator."""
    instances = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in sent}
    assert len(instances) == 112
    listed = [item.ReferencedSOPInstanceUID for item in _referenced_series(structure_set).ContourImageSequence]
    assert sorted(listed) == sorted(instances)
    drawn = {
        contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        for roi in structure_set.ROIContourSequence
        for contour in roi.get("ContourSequence", [])
    }
    assert drawn <= instances
    first = dcmread(sent[0], stop_before_pixels=True)
    assert structure_set.PatientName == "Müller^Jürgen"
    assert structure_set.StudyInstanceUID == first.StudyInstanceUID
    assert structure_set.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert structure_set.ApprovalStatus == "UNAPPROVED"
    file = tmp_path / "structure_set.dcm"
    structure_set.save_as(file)
    validator = shutil.which("dciodvfy", path=str(Path(sys.executable).parent))
    assert validator is not None
    report = subprocess.run([validator, file], capture_output=True, text=True, errors="replace", check=False)
    lines = (report.stdout + report.stderr).splitlines()
    assert "RTStructureSet" in lines
    assert [line for line in lines if line.startswith("Error")] == []


def test_orthanc_ends_up_with_one_structure_set_of_exactly_the_112_slices(
    journey: Journey, plain: list[Path], tmp_path: Path
) -> None:
    journey.send(plain)
    journey.wait_until_committed(_series_uid(plain))
    (structure_set,) = journey.structure_sets_of(_series_uid(plain))
    _check(structure_set, plain, tmp_path)


def test_jpeg_2000_in_shuffled_order_over_three_associations_gives_one_as_well(
    journey: Journey, compressed: list[Path], tmp_path: Path
) -> None:
    for third in range(3):
        journey.send(compressed[third::3], "-xv")
    journey.wait_until_committed(_series_uid(compressed))
    (structure_set,) = journey.structure_sets_of(_series_uid(compressed))
    _check(structure_set, compressed, tmp_path)


def test_the_same_case_sent_twice_is_the_same_structure_set(journey: Journey, plain: list[Path]) -> None:
    journey.send(plain)
    first = journey.wait_until_committed(_series_uid(plain))
    deliveries = _acceptances(journey.box, first)
    journey.send(plain)
    wait_until(lambda: _acceptances(journey.box, first) > deliveries, 60, "the result to be sent again")
    again = journey.wait_until_committed(_series_uid(plain))
    assert again.result_sop_instance_uid == first.result_sop_instance_uid
    assert [each.digest for each in again.results] == [each.digest for each in first.results]
    assert len(journey.structure_sets_of(_series_uid(plain))) == 1


def _acceptances(box: ApplianceBox, case: Case) -> int:
    return box.events(case).count("delivery_accepted")
