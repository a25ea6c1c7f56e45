"""Proof of delivery at PACS that others wrote: Orthanc commits and is asked by C-FIND, dcmqrscp is asked by C-FIND."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage

from appliance.clock import now_utc
from appliance.delivery.commitment import request_commitment
from appliance.delivery.reconciling import Reconciler
from appliance.delivery.store_scu import Caller, send_files
from appliance.delivery.vouching import Voucher
from appliance.intake.arrivals import index_arrivals
from appliance.records import Database
from appliance.records.tables import CaseState, Proof
from appliance.settings import Peer
from appliance.spool import Spool
from tests.support.config_folder import BONES, make_settings
from tests.support.ct_files import make_ct_series
from tests.support.fake_pacs import FakePacs
from tests.support.free_ports import free_port
from tests.support.listening import ListenerBeside
from tests.support.orthanc import Orthanc
from tests.support.outbox_site import OutboxSite, at
from tests.support.reading import READING
from tests.support.waiting import wait_until

DAY_S = 86_400.0
Build = Callable[..., OutboxSite]


@pytest.fixture
def build(tmp_path: Path, database: Database, spool: Spool) -> Iterator[Build]:
    listeners: list[ListenerBeside] = []

    def _build(port: int, ae_title: str, listen: int | None = None, **proof: bool) -> OutboxSite:
        peer = {"ae_title": ae_title, "host": "127.0.0.1", "port": port, **proof}
        intake = {"port": listen or free_port(), "free_space_reserve_mb": 0, "slots": 0}
        delivery = {"network_timeout_s": 20.0, "sighting_wait_s": 1.0}
        tables = {"intake": intake, "delivery": delivery}
        settings = make_settings(tmp_path, tables, peers={"pacs": peer}, protocols={"bones": BONES})
        if listen is not None:
            listeners.append(ListenerBeside(settings, spool))
            listeners[-1].start()
        return OutboxSite(settings, database, spool)

    yield _build
    for listener in listeners:
        listener.stop()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[Orthanc, int]]:
    """Orthanc, and the port at which it reports to us."""
    if Orthanc.program() is None:
        pytest.skip("Orthanc is not installed: a real PACS cannot be asked (apt-get install orthanc)")
    listen, http = free_port(), free_port()
    orthanc = Orthanc(tmp_path / "orthanc", dicom_port=free_port(), http_port=http, appliance_port=listen)
    orthanc.start()
    yield orthanc, listen
    orthanc.stop()


@pytest.fixture
def dcmqrscp(tmp_path: Path) -> Iterator[int]:
    """The port of DCMTK's archive."""
    program = shutil.which("dcmqrscp", path="/usr/bin")
    if program is None:
        pytest.skip("dcmqrscp is not installed: DCMTK's archive cannot be asked (apt-get install dcmtk)")
    port, storage = free_port(), tmp_path / "archive"
    storage.mkdir()
    (tmp_path / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {storage} RW (200, 1024mb) ANY\nAETable END\n"
    )
    command = [program, "--config", tmp_path / "dcmqrscp.cfg"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        yield port
        process.terminate()


def _bring_to(site: OutboxSite, case_id: int, state: CaseState) -> None:
    second = iter(range(1_000))

    def look() -> bool:
        site.sweep(float(next(second)))
        return site.case(case_id).state is state

    wait_until(look, 40, f"the case to be {state}; {site.words(case_id)}")


def test_orthanc_commits_to_a_result(build: Build, orthanc: tuple[Orthanc, int]) -> None:
    pacs, listen = orthanc
    site = build(pacs.dicom_port, pacs.AE_TITLE, listen, storage_commitment=True)
    case_id = site.result(1)
    _bring_to(site, case_id, CaseState.COMMITTED)
    assert site.delivery(1).proof is Proof.COMMITMENT
    assert len(pacs.structure_sets()) == 1


def test_a_result_is_seen_at_orthanc_and_sent_again_when_it_was_deleted_there(
    build: Build, orthanc: tuple[Orthanc, int]
) -> None:
    pacs, _ = orthanc
    site = build(pacs.dicom_port, pacs.AE_TITLE, query=True)
    case_id = site.result(1)
    _bring_to(site, case_id, CaseState.COMMITTED)
    assert site.delivery(1).proof is Proof.SIGHTING
    assert Reconciler(site.settings, site.database, site.spool).run(at(DAY_S)).sent_again == []
    for instance in pacs.get("/instances"):
        pacs.delete(f"/instances/{instance}")
    found = Reconciler(site.settings, site.database, site.spool).run(at(DAY_S))
    assert found.sent_again == [("pacs", case_id, "2.25.1")]
    site.sweep(DAY_S)
    assert len(pacs.structure_sets()) == 1


def test_a_sender_that_asks_our_listener_is_told_what_is_kept(build: Build, tmp_path: Path) -> None:
    with FakePacs() as pacs:
        listen = free_port()
        site = build(pacs.port, pacs.ae_title, listen)
        paths = make_ct_series(tmp_path / "ct", slices=3, rows=8, columns=8)
        me = Peer(ae_title="DELINEATE", host="127.0.0.1", port=listen)
        sender = Caller(pacs.ae_title, 20.0)
        send_files(sender, me, paths)
        uid = str(dcmread(paths[0]).SOPInstanceUID)
        request_commitment(sender, me, (CTImageStorage, uid), "2.25.777", on_report=lambda _fields: None)
        caller, pacing = Caller.of(site.settings, 20.0), site.hands.pacing(5.0, 60.0)
        voucher = Voucher(site.settings, site.database, site.spool, caller, pacing)

        def look() -> bool:
            index_arrivals(site.database, site.spool, now_utc() + timedelta(minutes=1), READING)
            for note in [note for notes in voucher.waiting().values() for note in notes]:
                voucher.answer(note, now_utc())
            return bool(pacs.reports)

        wait_until(look, 30, "the report")
        ((event_type, report),) = pacs.reports
        assert (event_type, report.TransactionUID) == (1, "2.25.777")
        assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [uid]


def test_a_result_is_seen_at_dcmqrscp(build: Build, dcmqrscp: int) -> None:
    site = build(dcmqrscp, "ARCHIVE", query=True)
    case_id = site.result(1)
    _bring_to(site, case_id, CaseState.COMMITTED)
    assert site.delivery(1).proof is Proof.SIGHTING
    assert Reconciler(site.settings, site.database, site.spool).run(at(DAY_S)).results == 1
