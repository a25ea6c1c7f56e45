"""C-STORE success means kept: seen in the system calls of the real listener, and in what kills and full disks leave."""

import hashlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from appliance.delivery.store_scu import send_files
from appliance.dicom.identity import read_identity
from appliance.spool import Arrival, Spool
from tests.support.arriving import data_set_bytes
from tests.support.ct_files import make_ct_series
from tests.support.listening import ListenerProcess
from tests.support.raw_sender import association, send_file
from tests.support.waiting import wait_until

KEEP = """
import sys
from pathlib import Path
from appliance.spool import Spool
Spool(Path(sys.argv[1])).keep(b"meta", b"data set" * 1000, "1.2.840.10008.1.2")
"""
SETTLE = """
import sys
from pathlib import Path
from appliance.spool import Spool
spool = Spool(Path(sys.argv[1]))
for arrival in spool.arrivals():
    spool.settle(arrival, spool.instance_path(arrival.digest))
    spool.release(arrival)
"""
DATA_SET = b"data set" * 1000


@pytest.fixture
def listener(tmp_path: Path) -> ListenerProcess:
    return ListenerProcess.configured(tmp_path)


@pytest.fixture(scope="module")
def strace() -> str:
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed: the order of system calls cannot be seen (apt-get install strace)")
    return path


def _steps(log: Path) -> Iterator[str]:
    """What the listener did, in order: F file synced, R renamed, D folder synced, S a P-DATA PDU begins to leave."""
    unfinished: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        pid, call = line.split(maxsplit=1)
        if call.endswith("<unfinished ...>") and not call.startswith("sendto"):
            unfinished[pid] = call
            continue
        if call.startswith("<..."):
            call = unfinished.pop(pid, "") + call
        if re.match(r"fsync\(\d+<[^>]*/spool/tmp/", call):
            yield "F"
        elif re.match(r"rename\w*\(.*arrivals/", call):
            yield "R"
        elif re.match(r"fsync\(\d+<[^>]*/arrivals>", call):
            yield "D"
        elif re.match(r'sendto\(\d+<[^>]*>, "\\4', call):
            yield "S"


def test_every_success_leaves_after_file_name_and_folder_are_on_the_disk(
    tmp_path: Path, listener: ListenerProcess, strace: str
) -> None:
    log = tmp_path / "calls.log"
    paths = make_ct_series(tmp_path / "ct", slices=20)
    calls = "trace=fsync,rename,renameat,renameat2,sendto"
    with listener.running([strace, "-f", "-y", "-e", calls, "-o", log]):
        echoes = "".join(_steps(log)).count("S")
        send_files(listener.caller, listener.me, paths)
    steps = "".join(_steps(log))
    assert steps[: steps.index("F")] == "S" * echoes, "C-ECHO is answered without touching the disk"
    assert steps[steps.index("F") :] == "FRDS" * 20


@pytest.mark.parametrize(
    ("moment", "arrived"),
    [("fsync:signal=KILL:when=1", False), ("rename:signal=KILL:when=1", False), ("fsync:signal=KILL:when=2", True)],
    ids=["before the bytes are synced", "before it has its name", "before its name is synced"],
)
def test_wherever_keeping_dies_an_object_is_there_whole_or_not_at_all(
    tmp_path: Path, strace: str, moment: str, *, arrived: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    command = [strace, "-f", "-o", tmp_path / "calls.log", "-e", f"inject={moment}"]
    died = subprocess.run([*command, sys.executable, "-c", KEEP, spool.root], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    after = Spool(spool.root)
    assert [arrival.path.read_bytes() for arrival in after.arrivals()] == [b"meta" + DATA_SET] * arrived
    assert after.sweep() == (not arrived)
    after.keep(b"meta", DATA_SET, "1.2.840.10008.1.2")
    assert len(after.arrivals()) == 1 + arrived


def test_a_lasting_name_is_on_the_disk_before_the_first_one_is_given_up(tmp_path: Path, strace: str) -> None:
    """Also when another process gave that name and may have died before it was on the disk."""
    spool, log = Spool(tmp_path / "spool"), tmp_path / "calls.log"
    for data_set in (DATA_SET, DATA_SET, b"another"):
        spool.keep(b"meta", data_set, "1.2.840.10008.1.2")
    command = [strace, "-f", "-y", "-o", log, "-e", "trace=link,linkat,fsync,unlink,unlinkat"]
    subprocess.run([*command, sys.executable, "-c", SETTLE, spool.root], check=True, capture_output=True)
    calls = re.findall(
        r"link(?:at)?\(.*instances|fsync\(\d+<\S*/instances/\w\w>|unlink(?:at)?\(.*arrivals", log.read_text()
    )
    assert [call.split("(")[0].removesuffix("at") for call in calls] == ["link", "fsync", "unlink"] * 3


def _is_whole(arrival: Arrival) -> bool:
    syntax = read_identity(arrival.path).transfer_syntax_uid
    return hashlib.sha256(f"{syntax}\0".encode() + data_set_bytes(arrival.path)).hexdigest() == arrival.digest


def test_nothing_acknowledged_is_lost_when_the_listener_is_killed_at_any_moment(
    tmp_path: Path, listener: ListenerProcess
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=40, rows=128, columns=128)
    acknowledged: set[str] = set()
    for kill_after in (3, 11):
        with listener.running() as process, association(listener.me.port) as opened:
            enough = threading.Event()
            killer = threading.Thread(target=lambda p=process, e=enough: (e.wait(30), p.kill()))
            killer.start()
            for count, path in enumerate(paths):
                if count == kill_after:
                    enough.set()
                uid = read_identity(path).sop_instance_uid
                if send_file(opened, path, uid) != 0x0000:
                    break
                acknowledged.add(uid)
            enough.set()
            killer.join()
            opened.abort()
        spool = Spool(listener.spool.root)
        assert len(acknowledged) < len(paths), "the kill came in the middle"
        assert acknowledged <= {read_identity(arrival.path).sop_instance_uid for arrival in spool.arrivals()}
        assert all(_is_whole(arrival) for arrival in spool.arrivals())
    with listener.running():
        assert list((spool.root / "tmp").iterdir()) == []
        send_files(listener.caller, listener.me, paths)
    arrived = {read_identity(arrival.path).sop_instance_uid for arrival in spool.arrivals()}
    assert arrived == {read_identity(path).sop_instance_uid for path in paths}


def test_a_full_disk_is_answered_out_of_resources_and_receiving_goes_on_when_there_is_space(
    tmp_path: Path, listener: ListenerProcess
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3, rows=128, columns=128)
    uids = [read_identity(path).sop_instance_uid for path in paths]
    with listener.running() as process:
        disk = psutil.Process(process.pid)
        with association(listener.me.port) as opened:
            assert send_file(opened, paths[0], uids[0]) == 0x0000
            disk.rlimit(psutil.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
            assert send_file(opened, paths[1], uids[1]) == 0xA700
            assert list((listener.spool.root / "tmp").iterdir()) == []
            assert len(listener.spool.arrivals()) == 1
            disk.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for path, uid in zip(paths[1:], uids[1:], strict=True):
                assert send_file(opened, path, uid) == 0x0000
        note = wait_until(lambda: list(listener.spool.notes("audit")), 5, "a note")[0]
        assert note.fields["status"] == "0xA700"
        assert "send it again" in str(note.fields["sentence"])
    assert len(listener.spool.arrivals()) == 3


def test_the_listener_stops_at_once_with_associations_open(tmp_path: Path, listener: ListenerProcess) -> None:
    path = make_ct_series(tmp_path / "ct", slices=1)[0]
    with listener.running() as process, association(listener.me.port) as idle, association(listener.me.port) as busy:
        assert send_file(busy, path, read_identity(path).sop_instance_uid) == 0x0000
        began_s = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - began_s < 3, "sooner than the network's time limit"
        wait_until(lambda: idle.is_aborted and busy.is_aborted, 5, "the peers to hear of it")
    assert len(listener.spool.arrivals()) == 1
