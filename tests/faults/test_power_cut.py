"""Power cuts at any moment of a push, on a disk that keeps what was flushed: what was acknowledged is found again."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.bare_peer import BarePeer
from tests.support.config_folder import make_settings
from tests.support.free_ports import free_port
from tests.support.kept import Kept
from tests.support.listening import ListenerBeside
from tests.support.loop_disk import attached, mount, why_no_disk
from tests.support.proof import Tally
from tests.support.volatile_disk import VolatileDisk, volatile_disk
from tests.support.waiting import wait_until

ENOUGH = 100
"""Acknowledged objects before each cut."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[VolatileDisk]:
    why = why_no_disk(tmp_path) or (None if Path("/dev/fuse").exists() else "there is no /dev/fuse")
    if why is not None:
        pytest.skip(f"NOT tried: power cuts. {why}")
    with volatile_disk(tmp_path / "disk", 96) as made:
        yield made


class Pusher(threading.Thread):
    """Sends without end, over one association after another, and knows what was acknowledged."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self._port, self._root = port, name
        self._ended = threading.Event()

    def run(self) -> None:
        count = 0
        while not self._ended.is_set():
            with BarePeer(self._port) as peer:
                for _ in range(40):
                    count += 1
                    uid = f"{self._root}.{count}"
                    if self._ended.is_set():
                        break
                    if peer.store(uid) == 0x0000:
                        self.acknowledged.append(uid)
                peer.release()

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _settings(folder: Path, port: int) -> Settings:
    return make_settings(folder, {"intake": {"port": port, "free_space_reserve_mb": 0, "slots": 24, "slot_kb": 128}})


def _found_after(image: Path, settings: Settings, folder: Path) -> Kept:
    """What a listener finds that starts after the cut."""
    with attached(image) as device, mount(device, folder):
        spool = Spool(folder / "spool")
        after = ListenerBeside(settings, spool)
        after.start()
        after.stop()
        return Kept.of(spool)


def _push_and_cut(disk: VolatileDisk, tmp_path: Path, number: int, *, flushing: bool = True) -> tuple[set[str], Kept]:
    """What was acknowledged before the cut began, and what is found after it."""
    settings = _settings(tmp_path / f"before-{number}", free_port())
    root, image = disk.mounted / "spool", tmp_path / "cut.img"
    listener = ListenerBeside(settings, Spool(root), flushing=flushing)
    listener.start()
    pushers = [Pusher(settings.intake.port, f"1.2.{number}.{each}") for each in (1, 2)]
    for pusher in pushers:
        pusher.start()
    wait_until(lambda: sum(len(pusher.acknowledged) for pusher in pushers) >= ENOUGH, 60, "enough of a push")
    time.sleep(number % 7 / 50)
    acknowledged = {uid for pusher in pushers for uid in pusher.acknowledged}
    disk.cut(image)
    for pusher in pushers:
        pusher.stop()
    listener.stop()
    found = _found_after(image, _settings(tmp_path / f"after-{number}", free_port()), tmp_path / "after")
    shutil.rmtree(root)
    return acknowledged, found


@pytest.mark.fault("F2", "never lose")
def test_what_was_acknowledged_before_a_power_cut_is_found_after_it_byte_for_byte(
    disk: VolatileDisk, tmp_path: Path, tally: Tally, times: Callable[[int, int], int]
) -> None:
    objects = 0
    for number in range(1, times(3, 50) + 1):
        acknowledged, found = _push_and_cut(disk, tmp_path, number)
        tally.count(held=acknowledged <= found.uids and found.damaged == ())
        objects += len(acknowledged)
    tally.figures["acknowledged objects before the cuts"] = str(objects)


@pytest.mark.fault("F2", "never lose")
def test_without_the_flush_of_a_slot_the_same_cut_loses_what_was_acknowledged(
    disk: VolatileDisk, tmp_path: Path, tally: Tally
) -> None:
    """The control: a test in which nothing can be lost proves nothing."""
    acknowledged, found = _push_and_cut(disk, tmp_path, 1, flushing=False)
    tally.count(held=not acknowledged <= found.uids)
    tally.figures["lost by the control"] = f"{len(acknowledged - found.uids)} of {len(acknowledged)}"
