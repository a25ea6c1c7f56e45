"""However the slices of a series come, it is one case with one volume and one result: F16 to F19."""

import random
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from appliance.delivery.settling import accept
from appliance.delivery.store_scu import Caller, send_files
from appliance.records import Database, queries
from appliance.records.tables import CaseState, InstanceState
from appliance.settings import Peer
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.ct_files import make_ct_series
from tests.support.free_ports import free_port
from tests.support.listening import ListenerProcess
from tests.support.model_packages import make_threshold_package
from tests.support.patients import interleave, make_patient
from tests.support.proof import Tally
from tests.support.receiving_line import ReceivingLine
from tests.support.rows import NOON
from tests.support.worker_site import MINUTE, Site, queue_up, receive

Times = Callable[[int, int], int]
DICE = random.Random(16)


def make_line(folder: Path, database: Database, spool: Spool, **tables: Any) -> ReceivingLine:
    return ReceivingLine(make_settings(folder, tables), database, spool)


@pytest.mark.fault("F16", "never wrong")
def test_slices_in_any_order_give_the_same_volume(
    tmp_path: Path, migrated_file: Path, tally: Tally, times: Times
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=12, rows=16, columns=16)
    orders = [paths, paths[::-1], paths[::2] + paths[1::2]]
    orders += [DICE.sample(paths, len(paths)) for _ in range(times(27, 497))]
    digests = set()
    for order in orders:
        trial = tmp_path / "trial"
        trial.mkdir()
        database = Database(f"sqlite:///{shutil.copy(migrated_file, trial / 'rows.sqlite')}")
        line = make_line(trial, database, Spool(trial / "spool"))
        cut = DICE.randrange(len(order))
        line.receive(order[:cut])
        line.receive(order[cut:])
        line.be_quiet()
        case = line.cases[-1]
        tally.count(held=(len(line.cases), case.state, case.slices) == (1, CaseState.QUEUED, len(paths)))
        digests.add(line.volume_digest(case))
        database.engine.dispose()
        shutil.rmtree(trial)
    tally.figures["different volumes"] = str(len(digests))
    assert len(digests) == 1


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[ListenerProcess]:
    """The real listener, which lets everybody in."""
    intake = {"port": free_port(), "free_space_reserve_mb": 1, "known_peers_only": False}
    settings = make_settings(tmp_path, {"intake": intake})
    me = Peer(ae_title="DELINEATE", host="127.0.0.1", port=settings.intake.port)
    process = ListenerProcess(settings.folder, me, Spool(settings.data_dir / "spool"), Caller("CT1", 20.0))
    with process.running():
        yield process


def send_at_once(listener: ListenerProcess, shares: Sequence[Sequence[Path]]) -> None:
    """Each share over an association of its own, from a sender of its own, all at the same time."""
    failures: list[BaseException] = []

    def send(number: int, share: Sequence[Path]) -> None:
        try:
            send_files(Caller(f"CT{number}", 20.0), listener.me, share)
        except Exception as failure:  # noqa: BLE001 - told by the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=send, args=(number, share)) for number, share in enumerate(shares, 1) if share]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.fault("F17", "never wrong")
def test_a_series_over_many_associations_and_senders_is_one_case(
    tmp_path: Path, database: Database, listener: ListenerProcess, tally: Tally, times: Times
) -> None:
    line = make_line(tmp_path, database, listener.spool)
    for trial in range(times(6, 200)):
        folder = tmp_path / f"ct{trial}"
        paths = make_ct_series(folder, slices=20, rows=8, columns=8, series=f"split {trial}")
        uid = str(dcmread(paths[0]).SeriesInstanceUID)
        shares: list[list[Path]] = [[] for _ in range(DICE.randint(1, 6))]
        for path in DICE.sample(paths, len(paths)):
            DICE.choice(shares).append(path)
        send_at_once(listener, shares)
        line.look()
        line.be_quiet()
        cases = [case for case in line.cases if case.series_instance_uid == uid]
        tally.count(held=[(case.state, case.slices) for case in cases] == [(CaseState.QUEUED, len(paths))])
        shutil.rmtree(folder)


@pytest.mark.fault("F18", "never wrong")
def test_ten_series_interleaved_on_one_association_keep_apart(
    tmp_path: Path, database: Database, listener: ListenerProcess, tally: Tally, times: Times
) -> None:
    slices = times(20, 100)
    series = [
        make_ct_series(tmp_path / f"ct{number}", slices=slices, rows=8, columns=8, series=f"interleaved {number}")
        for number in range(10)
    ]
    send_at_once(listener, [interleave(*series)])
    line = make_line(tmp_path, database, listener.spool)
    line.look()
    line.be_quiet()
    for paths in series:
        headers = [dcmread(path, stop_before_pixels=True) for path in paths]
        case = line.case_of(str(headers[0].SeriesInstanceUID))
        got = {one.sop_instance_uid for one in line.instances_of(case)}
        crossed = got ^ {str(header.SOPInstanceUID) for header in headers}
        tally.counted(slices, len(crossed))
        assert case.state is CaseState.QUEUED
    assert len(line.cases) == len(series)


@pytest.mark.fault("F19", "never twice")
def test_a_series_that_is_sent_three_times_even_at_once_has_one_row_a_slice(
    tmp_path: Path, database: Database, listener: ListenerProcess, tally: Tally, times: Times
) -> None:
    line = make_line(tmp_path, database, listener.spool)
    for trial in range(times(4, 60)):
        folder = tmp_path / f"ct{trial}"
        paths = make_ct_series(folder, slices=10, rows=8, columns=8, series=f"thrice {trial}")
        together = bool(trial % 2)
        if together:
            send_at_once(listener, [DICE.sample(paths, len(paths)) for _ in range(3)])
        else:
            for _ in range(3):
                send_at_once(listener, [paths])
        line.look()
        line.be_quiet()
        rows = [one for one in line.instances if one.series_instance_uid == str(dcmread(paths[0]).SeriesInstanceUID)]
        kept = [(one.state, one.times_received) for one in rows]
        tally.count(held=kept == [(InstanceState.KEPT, 3)] * len(paths))
        shutil.rmtree(folder)
    assert len(line.cases) == trial + 1


@pytest.mark.fault("F19", "never twice")
def test_a_series_that_is_sent_again_whenever_it_pleases_has_one_structure_set(
    tmp_path: Path, database: Database, spool: Spool, tally: Tally, times: Times
) -> None:
    make_threshold_package(tmp_path / "models" / "thresholds", tile=(16, 32, 32))
    tables = {"appliance": {"models_dir": "../models"}, "worker": {"threads": 1}}
    settings = make_settings(tmp_path, tables)
    paths = make_patient(tmp_path / "ct", "again", slices=5)
    site = queue_up(settings, database, spool, paths)
    receive(site, paths)  # while it waits for a worker
    site.attend()
    uids = {site.case.result_sop_instance_uid}
    for _ in range(times(3, 20)):
        deliver(site)
        receive(site, DICE.sample(paths, len(paths)))
        with database.reading() as tx:
            cases = queries.cases_in(tx, *CaseState)
            uids |= {case.result_sop_instance_uid for case in cases}
        tally.count(held=[(case.state, case.revision) for case in cases] == [(CaseState.SENDING, 1)])
    tally.figures["structure sets"] = str(len(uids))
    assert len(uids) == 1


def deliver(site: Site) -> None:
    """As if the destination had taken it."""
    with site.bench.database.transaction() as tx:
        for delivery in queries.deliveries_of(tx, site.case):
            accept(tx, delivery, site.bench.settings.peers, "0x0000", MINUTE, NOON)
    assert site.case.state is CaseState.DELIVERED
