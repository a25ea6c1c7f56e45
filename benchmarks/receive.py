"""`make bench-receive`: how fast CT slices are taken in, beside DCMTK's storescp and Orthanc.

Every server gets the same slices from the same sender (DCMTK's storescu) over 1, 4 and 8 associations at once. storescp
flushes nothing to the disk; Orthanc does, in its default; we do before every answer. Their files lie on a journalled
ext4 of their own. TCP_NODELAY is set for all programs of DCMTK: Debian's build leaves Nagle's algorithm on, which costs
40 ms a slice and would flatter us.

Usage: python -m benchmarks.receive [--repetitions N] [--busy] [--only ours,storescp] [PAGE]
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from appliance.settings.box import IntakeSettings
from benchmarks.receive_page import write_page
from tests.support.config_folder import write_config
from tests.support.ct_files import make_ct_series
from tests.support.free_ports import free_port
from tests.support.loop_disk import ext4_disk, why_no_disk

LOADS = {1: 200, 4: 100, 8: 50}
"""Associations at once, and slices on each."""

PDU_BYTES = "131072"
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Rate:
    """One push: slices a second, and CPU-milliseconds a slice of the server and of what of it works beside."""

    slices_per_s: float
    cpu_ms: float
    beside_ms: float = 0.0


@dataclass
class Server:
    """A C-STORE SCP that stores under `folder`."""

    name: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    called = "ANY-SCP"

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def files(self) -> int:
        return sum(1 for path in self.folder.rglob("*") if path.is_file())

    def beside(self) -> list[psutil.Process]:
        """Processes whose work no sender waits for."""
        return []

    def wait_until_ready(self) -> None:
        wait(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder.parent / f"{self.name}.log").read_text()
        return subprocess.run(self._echo(), env=ENVIRONMENT, capture_output=True, check=False).returncode == 0

    def settle(self) -> None:
        """Wait until it has done what it does later."""
        time.sleep(0.5)

    def _echo(self) -> list[str]:
        return ["echoscu", "-aec", self.called, "-aet", "FAKEPACS", "127.0.0.1", str(self.port)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.folder.mkdir(parents=True)
        with (self.folder.parent / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), env=ENVIRONMENT, stdout=log, stderr=log)
        try:
            self.wait_until_ready()
            yield
        finally:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            shutil.rmtree(self.folder)

    def cpu_s(self) -> tuple[float, float]:
        """CPU time of the server with all that it has started, and of what works beside."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        beside = {process.pid for process in self.beside()}
        front = sum(_cpu_s(one.pid) for one in (root, *root.children(recursive=True)) if one.pid not in beside)
        return front, sum(_cpu_s(pid) for pid in beside)


class StoreScp(Server):
    """DCMTK's: a process for each association, no flush."""

    def command(self) -> list[str | Path]:
        return ["storescp", "--fork", "-pdu", PDU_BYTES, "-od", self.folder, str(self.port)]


class Orthanc(Server):
    """Orthanc in its default, SyncStorageArea on."""

    def command(self) -> list[str | Path]:
        path = self.folder.parent / "orthanc.json"
        settings = {
            "StorageDirectory": str(self.folder),
            "IndexDirectory": str(self.folder),
            "DicomAet": self.called,
            "DicomPort": self.port,
            "HttpServerEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowEcho": True,
        }
        path.write_text(json.dumps(settings))
        return [shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin") or "Orthanc", path]

    def files(self) -> int:
        return sum(1 for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("index"))


class Ours(Server):
    """`delineate listen`, as installed."""

    called = "DELINEATE"

    def command(self) -> list[str | Path]:
        intake = {"port": self.port, "free_space_reserve_mb": 0, "max_associations_per_peer": 20}
        tables = {"appliance": {"data_dir": str(self.folder)}, "intake": intake}
        configs = write_config(self.folder.parent / "configs", tables)
        return [sys.executable, "-m", "appliance", "--config", configs, "listen"]

    def files(self) -> int:
        """What was received: handed over already, or in its slot."""
        return sum(1 for _ in (self.folder / "spool" / "arrivals").iterdir())

    def beside(self) -> list[psutil.Process]:
        assert self.process is not None
        return [one for one in psutil.Process(self.process.pid).children() if one.nice() > 0]

    def wait_until_ready(self) -> None:
        super().wait_until_ready()
        self.settle()

    def settle(self) -> None:
        wait(lambda: len(list((self.folder / "spool" / "slots").glob("*.slot"))) == IntakeSettings().slots)
        time.sleep(0.5)  # the last of them are flushed


def _cpu_s(pid: int) -> float:
    """User and system time of a process and of its children that have ended, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # it has just ended
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS


def wait(condition: object, limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


def push(server: Server, series: list[Path], slices: int) -> Rate:
    """Send one series over each of as many associations at once."""
    before_files, before = server.files(), server.cpu_s()
    command = ["storescu", "-pdu", PDU_BYTES, "--max-send-pdu", PDU_BYTES, "-aet", "FAKEPACS", "-aec", server.called]
    command += ["127.0.0.1", str(server.port)]
    began_s = time.perf_counter()
    senders = [
        subprocess.Popen([*command, *sorted(folder.iterdir())[:slices]], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        for folder in series
    ]
    assert [sender.wait() for sender in senders] == [0] * len(senders)
    seconds = time.perf_counter() - began_s
    total = slices * len(series)
    wait(lambda: server.files() - before_files >= total)
    server.settle()
    after = server.cpu_s()
    front, beside = ((after[index] - before[index]) * 1000 / total for index in (0, 1))
    return Rate(total / seconds, front, beside)


def measure(disk: Path, series: list[Path], names: list[str], repetitions: int) -> dict[tuple[str, int], list[Rate]]:
    """Every server with every load, in another order each time."""
    kinds = {"storescp": StoreScp, "Orthanc": Orthanc, "ours": Ours}
    rates: dict[tuple[str, int], list[Rate]] = {}
    for repetition in range(repetitions):
        for load, slices in LOADS.items():
            order = random.sample(names, len(names))
            for name in order:
                server = kinds[name](name, disk / "files" / name)
                with server.running():
                    rate = push(server, series[:load], slices)
                rates.setdefault((name, load), []).append(rate)
                print(f"{repetition + 1}/{repetitions} {load} {name}: {rate.slices_per_s:.0f} slices/s", flush=True)
    return rates


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Keep that many cores busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


def make_series(folder: Path) -> list[Path]:
    """Eight series of as many slices as the heaviest load takes, each of 512 x 512 with the noise of a scanner."""
    dice = np.random.default_rng(1)
    made = []
    for number, slices in enumerate([max(LOADS.values()), *[LOADS[4]] * 3, *[LOADS[8]] * 4]):
        hu = dice.normal(40, 25, (slices, 512, 512)).astype(np.int16)
        make_ct_series(folder / str(number), slices=slices, rows=512, columns=512, hu=hu, series=str(number))
        made.append(folder / str(number))
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", nargs="?", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", default="storescp,Orthanc,ours")
    parser.add_argument("--busy", action="store_true", help="keep all cores busy meanwhile")
    options = parser.parse_args()
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="delineate-receive-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        why = why_no_disk(folder)
        if why is not None:
            console.print(f"[yellow]{why}: measured on the file system of {folder} instead")
        disk = folder if why is not None else stack.enter_context(ext4_disk(folder / "disk", 6144))
        series = make_series(folder / "ct")
        stack.enter_context(hogs((os.cpu_count() or 1) if options.busy else 0))
        rates = measure(disk, series, options.only.split(","), options.repetitions)
    table = Table("server", "associations", "slices/s", "x storescp", "CPU ms/slice", "beside ms/slice")
    rows = summary(rates)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if options.page is not None:
        write_page(options.page, rows, busy=options.busy, repetitions=options.repetitions, on_journal=why is None)


def summary(rates: dict[tuple[str, int], list[Rate]]) -> list[list[str]]:
    """Medians; a ratio is the median of the ratios within each repetition."""
    rows = []
    for load in LOADS:
        yardstick = [rate.slices_per_s for rate in rates.get(("storescp", load), [])]
        for name in ("storescp", "ours", "Orthanc"):
            own = rates.get((name, load))
            if own is None:
                continue
            speeds = [rate.slices_per_s for rate in own]
            ratios = [mine / theirs for mine, theirs in zip(speeds, yardstick, strict=False)]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else "-"
            cpu, beside = (statistics.median(getattr(rate, key) for rate in own) for key in ("cpu_ms", "beside_ms"))
            rows.append([name, str(load), f"{statistics.median(speeds):.0f}", ratio, f"{cpu:.2f}", f"{beside:.2f}"])
    return rows


if __name__ == "__main__":
    main()
