"""Fetching from archives that others wrote, by C-GET and by C-MOVE, with the real listener beside it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.delivery.store_scu import Caller, NotDelivered, echo
from appliance.intake.arrivals import index_arrivals
from appliance.intake.finding import count_slices
from appliance.records import Database
from appliance.records.tables import Case
from appliance.settings import Peer, Settings
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.ct_files import all_slices, make_ct_series
from tests.support.free_ports import free_port
from tests.support.processes import kill_with_children
from tests.support.query_retrieve_peers import archive_with
from tests.support.reading import READING
from tests.support.rows import NOON
from tests.support.waiting import wait_until

SLICES = 7


@dataclass
class Site:
    """An archive and an appliance that fetches from it."""

    settings: Settings
    database: Database
    spool: Spool
    held: int  #: how many series the archive has

    def run(self, *arguments: str) -> str:
        """What `delineate fetch archive …` says."""
        command = [sys.executable, "-m", "appliance", "--config", self.settings.folder, "fetch", "archive", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def index(self) -> int:
        """How many objects came."""
        count = 0
        while batch := index_arrivals(self.database, self.spool, NOON, READING):
            count += batch
        return count

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The listener, which C-MOVE sends to."""
        command = [sys.executable, "-m", "appliance", "--config", self.settings.folder, "listen"]
        intake = self.settings.intake
        me = Peer(ae_title=intake.ae_title, host="127.0.0.1", port=intake.port)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: _answers(me, self.settings.peers["archive"].ae_title), 60, "the listener")
                yield
            finally:
                kill_with_children(process.pid)


def _answers(me: Peer, title: str) -> bool:
    try:
        echo(Caller(title, 10.0), me)
    except NotDelivered:
        return False
    return True


@pytest.fixture(params=["get", "move"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["fake", "dcmqrscp", "orthanc"])
def site(request: pytest.FixtureRequest, tmp_path: Path, way: str) -> Iterator[Site]:
    pelvis = make_ct_series(tmp_path / "pelvis", slices=SLICES, rows=16, columns=16)
    head = make_ct_series(
        tmp_path / "head", slices=4, rows=16, columns=16, series="head", mutate=all_slices(BodyPartExamined="HEAD")
    )
    held = [pelvis] if request.param == "dcmqrscp" else [pelvis, head]  # it tells of no body part, and no count
    port = free_port()
    with archive_with(request.param, tmp_path / "archive", held, port) as archive:
        settings = make_settings(
            tmp_path,
            {"intake": {"port": port, "free_space_reserve_mb": 1}},
            peers={"pacs": archive.entry, "archive": archive.with_way(way)},
        )
        database = Database(settings.database_url)
        database.migrate()
        yield Site(settings, database, Spool(settings.data_dir / "spool"), len(held))
        database.engine.dispose()


def test_a_patient_is_fetched_once_and_the_count_agrees(site: Site) -> None:
    said = site.run("--patient", "TEST-0001", "--dry-run")
    assert f"1 of {site.held} series would be fetched" in said, said
    with site.listening():
        assert f"{SLICES} objects fetched" in site.run("--patient", "TEST-0001")
        wait_until(lambda: len(site.spool.arrivals()) == SLICES, 60, "all slices to be here")
        assert site.index() == SLICES
        again = site.run("--accession", "ACC1")
    assert "here already" in again
    assert "would" not in again
    assert site.index() == 0
    with site.database.reading() as tx:
        case = tx.query(Case).one()
        assert case.slices == SLICES
    archive = site.settings.peers["archive"]
    uids = (case.study_instance_uid, case.series_instance_uid)
    assert count_slices(site.settings, archive, *uids, SLICES) == SLICES
    assert count_slices(site.settings, archive, *uids, SLICES - 2) == SLICES
