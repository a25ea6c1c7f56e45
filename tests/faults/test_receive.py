"""C-STORE success means kept: after kills, at full disks, through stops, and in the order of the system calls."""

import contextlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.delivery.store_scu import send_files
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.bare_peer import BarePeer
from tests.support.config_folder import make_settings
from tests.support.ct_files import make_ct_series
from tests.support.free_ports import free_port
from tests.support.kept import Kept
from tests.support.listening import ListenerBeside, ListenerProcess
from tests.support.loop_disk import mount, why_no_disk
from tests.support.proof import Tally
from tests.support.waiting import wait_until

Times = Callable[[int, int], int]
KEEP = """
import sys
from pathlib import Path
from appliance.spool import Spool
Spool(Path(sys.argv[1])).keep(b"meta", b"data set" * 1000)
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
SLOT_BYTES = 64 << 10


@dataclass
class Box:
    """A listener that is killed and started again on one spool."""

    settings: Settings
    spool: Spool
    acknowledged: set[str] = field(default_factory=set)

    @classmethod
    def on(cls, folder: Path, **intake: Any) -> "Box":
        usual = {"port": free_port(), "free_space_reserve_mb": 0, "network_timeout_s": 10.0, "slots": 8, "slot_kb": 64}
        settings = make_settings(folder, {"intake": {**usual, **intake}})
        return cls(settings, Spool(settings.data_dir / "spool"))

    @property
    def port(self) -> int:
        return self.settings.intake.port

    @contextlib.contextmanager
    def listener(self) -> Iterator[psutil.Process]:
        """A listener; stopped at the end unless it was killed."""
        beside = ListenerBeside(self.settings, self.spool)
        beside.start()
        process = psutil.Process(beside.process.pid or 0)
        yield process
        if beside.process.is_alive():
            beside.stop()
        beside.process.join()

    def send(self, uids: list[str]) -> bool:
        """Send what is not acknowledged yet, over one association; False when it broke off."""
        try:
            with BarePeer(self.port) as peer:
                for uid in uids:
                    if uid not in self.acknowledged and peer.store(uid) == 0x0000:
                        self.acknowledged.add(uid)
                peer.release()
        except OSError:
            return False
        return True

    def holds_what_it_said(self) -> bool:
        """Whether everything acknowledged is there byte for byte, and nothing of anything else but whole objects."""
        kept = Kept.of(self.spool)
        return self.acknowledged <= kept.uids and kept.damaged == ()


@pytest.fixture(scope="module")
def strace() -> str:
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed: the order of system calls cannot be seen (apt-get install strace)")
    return path


def _child(listener: psutil.Process, *, housekeeper: bool) -> psutil.Process | None:
    """The housekeeper, which is there before any association, or the latest association."""
    children = sorted(listener.children(), key=lambda child: child.pid)
    if housekeeper:
        return children[0] if children else None
    return children[-1] if len(children) > 1 else None


@pytest.mark.fault("F1", "never lose")
def test_nothing_acknowledged_is_lost_when_any_process_of_the_listener_is_killed_at_any_moment(
    tmp_path: Path, tally: Tally, times: Times
) -> None:
    box, dice = Box.on(tmp_path), random.Random(1)
    kills = times(12, 300)
    in_the_middle = 0
    for number in range(kills):
        victim = ("listener", "association", "housekeeper")[number % 3]
        uids = [f"1.2.{number + 1}.{count + 1}" for count in range(60)]
        with box.listener() as listener:
            sender = threading.Thread(target=box.send, args=(uids,))
            sender.start()
            moment = dice.randint(1, 50)
            while len(box.acknowledged) < moment and sender.is_alive():
                time.sleep(0.0005)
            time.sleep(dice.uniform(0.0, 0.004))
            with contextlib.suppress(psutil.NoSuchProcess):
                dead = listener if victim == "listener" else _child(listener, housekeeper=victim == "housekeeper")
                if dead is not None:
                    dead.kill()
                    psutil.wait_procs([dead], timeout=10)
            sender.join()
            in_the_middle += not box.acknowledged.issuperset(uids)
        with box.listener():
            assert list((box.spool.root / "tmp").iterdir()) == [], "what was half written is swept"
            assert box.send(uids), "whoever sends again gets through"
        tally.count(held=box.holds_what_it_said() and box.acknowledged.issuperset(uids))
        _take_away(box)
    tally.figures["kills in the middle of a push"] = str(in_the_middle)
    assert in_the_middle > kills // 2


def _take_away(box: Box) -> None:
    for arrival in box.spool.arrivals():
        arrival.path.unlink()
    box.acknowledged.clear()


def _calls(log: Path) -> Iterator[tuple[str, str]]:
    """Process and call, whole, in order of their ends."""
    unfinished: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        pid, call = line.split(maxsplit=1)
        if call.endswith("<unfinished ...>"):
            unfinished[pid] = call.removesuffix("<unfinished ...>")
        elif call.startswith("<..."):
            yield pid, unfinished.pop(pid, "") + call.partition("resumed>")[2]
        else:
            yield pid, call


_STEPS = {
    "W": re.compile(r"pwrite64\(\d+<\S*/slots/\d{4}\.slot>.* = \d+$"),
    "D": re.compile(r"fdatasync\(\d+<\S*/slots/\d{4}\.slot> *\) += 0$"),
    "S": re.compile(r'sendto\(\d+<[^>]*>, "\\4'),
    "N": re.compile(r"(rename|link|unlink|ftruncate|mkdir)\w*\("),
}
"""Written to a slot, slot made durable, P-DATA sent, a name or a length changed."""


@pytest.mark.fault("F3", "never lose")
def test_every_success_leaves_after_one_flush_of_its_slot_and_nothing_touches_the_slot_after_that(
    tmp_path: Path, strace: str, tally: Tally, times: Times
) -> None:
    listener, log, count = (
        ListenerProcess.configured(tmp_path, {"intake": {"slots": 300, "slot_kb": 64}}),
        tmp_path / "log",
        times(20, 200),
    )
    paths = make_ct_series(tmp_path / "ct", slices=count)
    calls = "trace=fdatasync,pwrite64,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,sendto"
    slots = listener.spool.root / "slots"
    with listener.running([strace, "-f", "-y", "-s", "8", "-e", calls, "-o", log]):
        wait_until(lambda: len(list(slots.glob("*.slot"))) >= count, 30, "the slots")
        send_files(listener.caller, listener.me, paths)
    steps: defaultdict[str, str] = defaultdict(str)
    for pid, call in _calls(log):
        steps[pid] += next((letter for letter, form in _STEPS.items() if form.match(call)), "")
    (sending,) = [each for each in steps.values() if "D" in each]
    assert re.fullmatch(r"(W+DS)*", sending), sending
    tally.counted(sending.count("DS"), failed=count - sending.count("DS"))


@pytest.mark.fault("F3", "never lose")
@pytest.mark.parametrize(
    ("moment", "arrived"),
    [("fsync:signal=KILL:when=1", False), ("rename:signal=KILL:when=1", False), ("fsync:signal=KILL:when=2", True)],
    ids=["before the bytes are synced", "before it has its name", "before its name is synced"],
)
def test_wherever_keeping_without_a_slot_dies_an_object_is_there_whole_or_not_at_all(
    tmp_path: Path, strace: str, moment: str, tally: Tally, *, arrived: bool
) -> None:
    spool = Spool(tmp_path / "spool")
    command = [strace, "-f", "-o", tmp_path / "calls.log", "-e", f"inject={moment}"]
    died = subprocess.run([*command, sys.executable, "-c", KEEP, spool.root], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    after = Spool(spool.root)
    assert [arrival.path.read_bytes()[128:] for arrival in after.arrivals()] == [b"meta" + DATA_SET] * arrived
    assert after.sweep() == (not arrived)
    after.keep(b"meta", DATA_SET)
    tally.count(held=len(after.arrivals()) == 1 + arrived)


@pytest.mark.fault("F3", "never lose")
def test_a_lasting_name_is_on_the_disk_before_the_first_one_is_given_up(
    tmp_path: Path, strace: str, tally: Tally
) -> None:
    """Also when another process gave that name and may have died before it was on the disk."""
    spool, log = Spool(tmp_path / "spool"), tmp_path / "calls.log"
    for data_set in (DATA_SET, DATA_SET, b"another"):
        spool.keep(b"meta", data_set)
    command = [strace, "-f", "-y", "-o", log, "-e", "trace=link,linkat,fsync,unlink,unlinkat"]
    subprocess.run([*command, sys.executable, "-c", SETTLE, spool.root], check=True, capture_output=True)
    wanted = r"fsync\(\d+<\S*/(?:arrivals/\S*|instances/\w\w)>|link(?:at)?\(.*instances|unlink(?:at)?\(.*arrivals"
    calls = re.findall(wanted, log.read_text())
    in_order = ["fsync", "link", "fsync", "unlink"] * 3
    tally.counted(3, failed=3 * ([call.split("(")[0].removesuffix("at") for call in calls] != in_order))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB in memory."""
    why = why_no_disk(tmp_path)
    if why is not None:
        pytest.skip(f"NOT tried: a full disk. {why}")
    with mount("tmpfs", tmp_path / "small", "size=24m", kind="tmpfs"):
        yield tmp_path / "small"


def _push_until_refused(box: Box, series: int) -> int:
    with BarePeer(box.port) as peer:
        for count in range(1000):
            uid = f"1.2.{series}.{count + 1}"
            status = peer.store(uid)
            if status != 0x0000:
                return status
            box.acknowledged.add(uid)
    raise AssertionError("the disk never filled")


@pytest.mark.fault("F8", "never lose")
@pytest.mark.parametrize("reserve_mb", [0, 4], ids=["to the last byte", "to the reserve"])
def test_a_full_disk_refuses_keeps_what_it_acknowledged_and_takes_more_once_there_is_space(
    small_disk: Path, tally: Tally, times: Times, reserve_mb: int
) -> None:
    box = Box.on(small_disk, free_space_reserve_mb=reserve_mb)
    with box.listener():
        for series in range(1, times(3, 50) + 1):
            filler = small_disk / "filler"
            filler.write_bytes(bytes(random.Random(series).randint(1, 8) << 20))
            status = _push_until_refused(box, series)
            if reserve_mb:
                with pytest.raises(ConnectionRefusedError, match=r"^the answer was 03000000000400020302"):
                    BarePeer(box.port)  # transient, by presentation, local limit exceeded
            wait_until(lambda: len(box.spool.arrivals()) >= len(box.acknowledged), 20, "the housekeeper")
            assert list((box.spool.root / "tmp").glob("*.dcm")) == [], "nothing partial of an object is left"
            tally.count(held=status == 0xA700 and box.holds_what_it_said())
            filler.unlink()
            _take_away(box)
            wait_until(lambda: box.send(["1.2.9"]), 20, "room for another")
            _take_away(box)
    events = [note.fields["event"] for note in box.spool.notes("audit")]
    if reserve_mb:
        assert events.count("storage_low") == events.count("storage_recovered") == times(3, 50)


@pytest.mark.fault("F8", "never lose")
def test_a_disk_that_refuses_one_object_does_not_end_the_association(tmp_path: Path, tally: Tally) -> None:
    box = Box.on(tmp_path, slots=0)
    with box.listener() as listener, BarePeer(box.port) as peer:
        assert peer.store("1.2.1") == 0x0000
        child = _child(listener, housekeeper=False)
        assert child is not None
        child.rlimit(psutil.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        assert peer.store("1.2.2", bytes(100_000)) == 0xA700
        assert list((box.spool.root / "tmp").iterdir()) == []
        child.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert peer.store("1.2.3") == 0x0000
        note = wait_until(lambda: list(box.spool.notes("audit")), 5, "a note")[0]
        assert note.fields["status"] == "0xA700"
        assert "send it again" in str(note.fields["sentence"])
    tally.count(held=Kept.of(box.spool).uids == {"1.2.1", "1.2.3"})


@pytest.mark.fault("F30", "never lose")
def test_at_sigterm_the_listener_finishes_the_object_in_hand_and_leaves(
    tmp_path: Path, tally: Tally, times: Times
) -> None:
    box, dice = Box.on(tmp_path), random.Random(30)
    for number in range(times(6, 50)):
        uids = [f"1.2.{number + 1}.{count + 1}" for count in range(100)]
        with box.listener() as listener, BarePeer(box.port):
            family = [listener, *listener.children()]
            sender = threading.Thread(target=box.send, args=(uids,))
            sender.start()
            time.sleep(dice.uniform(0.01, 0.3))
            listener.terminate()
            gone, alive = psutil.wait_procs(family, timeout=10)
            sender.join()
        tally.count(held=not alive and len(gone) == len(family) and box.holds_what_it_said())
        _take_away(box)


@pytest.mark.fault("F30", "never stuck")
def test_a_peer_that_stops_within_an_object_does_not_hold_up_the_stop(tmp_path: Path, tally: Tally) -> None:
    box = Box.on(tmp_path, network_timeout_s=60.0)
    with box.listener() as listener, BarePeer(box.port) as peer:
        assert peer.store("1.2.1") == 0x0000
        peer.begin_and_stop("1.2.2")
        family = [listener, *listener.children()]
        listener.terminate()
        tally.count(held=psutil.wait_procs(family, timeout=10)[1] == [])
    assert Kept.of(box.spool).uids == {"1.2.1"}


@pytest.mark.fault("F1", "never stuck")
def test_memory_threads_and_descriptors_stay_the_same_however_many_call(
    tmp_path: Path, tally: Tally, times: Times
) -> None:
    box, count = Box.on(tmp_path), times(300, 10_000)
    with box.listener() as listener:

        def call(number: int) -> None:
            with BarePeer(box.port) as peer:
                assert peer.echo() == 0x0000
                if number % 10 == 0:
                    assert peer.store("1.2.3") == 0x0000
                if number % 3:
                    peer.release()  # the others just go

        def weighs() -> tuple[int, int, int]:
            wait_until(lambda: len(listener.children()) == 1, 10, "the associations to end")
            housekeeper = listener.children()[0]
            threads = listener.num_threads() + housekeeper.num_threads()
            memory = listener.memory_info().rss + housekeeper.memory_info().rss
            return threads, listener.num_fds() + housekeeper.num_fds(), memory >> 20

        for number in range(30):
            call(number)
        before = weighs()
        for number in range(count):
            call(number)
            if number % 100 == 0:
                _take_away(box)
        after = weighs()
    tally.counted(count, failed=count * (before[:2] != after[:2] or after[2] - before[2] > 4))
    tally.figures["threads, descriptors, MiB before"] = str(before)
    tally.figures["threads, descriptors, MiB after"] = str(after)
