"""`make bench`: what every step of the line costs for a 200-slice 512 x 512 CT, in seconds, CPU-seconds and memory.

The real appliance runs as its own processes, and a real C-STORE SCU sends to it. Durations come from the audit
trail (each step writes what it cost), CPU time and peak memory of the processes from the kernel.
"""

import os
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from appliance.clock import now_utc
from appliance.delivery.store_scu import send_files
from appliance.phantoms import make_phantom
from appliance.phantoms.ct_files import write_ct_series
from appliance.records import Database, queries
from appliance.records.tables import AuditEvent, Case, CaseState
from appliance.running.demo.box import QUIET_S, DemoBox
from appliance.settings import load_settings

SHAPE, SPACING_MM, SEED = (200, 512, 512), (2.5, 0.977, 0.977), 7
LIMIT_CPU_S, LIMIT_WORKER_GB, LIMIT_WAY_S = 6.0, 1.5, 4.0


class Meter(threading.Thread):
    """Reads CPU time of the appliance's processes, and their peak resident memory, until it is stopped."""

    def __init__(self, supervisor_pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(supervisor_pid)
        self._stop_asked = threading.Event()
        self.cpu_s: dict[str, float] = {}
        self.peak_mb: dict[str, float] = {}

    def run(self) -> None:
        while not self._stop_asked.is_set():
            self.read()
            time.sleep(0.2)

    def read(self) -> dict[str, float]:
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                name, times = _role(process), process.cpu_times()
                self.cpu_s[name] = times.user + times.system
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
                self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), peak_kb / 1024)
            except (psutil.Error, OSError):
                continue
        return dict(self.cpu_s)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    roles = ("listen", "assemble", "bench", "work", "deliver", "tend", "up")
    return next((role for role in roles if role in words), process.name())


def main() -> None:
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="delineate-bench-"))
    console.print(f"Drawing a phantom of {SHAPE} voxels …")
    phantom = make_phantom(SEED, spacing_mm=SPACING_MM, shape=SHAPE, sex="male")
    paths = write_ct_series(phantom, folder / "ct", patient_name="Phantom^Bench", patient_id="BENCH")
    box = DemoBox(load_settings(Path("configs")), folder / "box")
    box.start()
    while not box.is_ready():
        time.sleep(0.2)
    time.sleep(8)  # let every process load what it needs, so that only the case's own cost is counted
    meter = Meter(box.pid)
    meter.start()
    before = meter.read()
    began_s = time.monotonic()
    send_files(box.sender, box.me, paths)
    receive_s, last_slice_at = time.monotonic() - began_s, now_utc()
    received = meter.read()
    case, events = _wait(box)
    meter.stop()
    box.stop()
    cost = {name: meter.cpu_s[name] - before.get(name, 0.0) for name in meter.cpu_s}
    listener_s = received.get("listen", 0.0) - before.get("listen", 0.0)
    ok = _report(console, case, events, cost, meter.peak_mb, (receive_s, listener_s))
    sys.exit(0 if _report_of_the_way(console, events, last_slice_at) and ok else 1)


def _report_of_the_way(console: Console, events: list[AuditEvent], last_slice_at: datetime) -> bool:
    """What passes between the last slice and the PACS's success, without the quiet time and the networks."""
    at = {event.event: event.at for event in reversed(events)}
    spent = {event.event: event.fields for event in reversed(events)}
    network_s = sum(fold["seconds"] for fold in spent["segmented"]["networks"])
    parts = {
        "until the series is complete, beyond the quiet time": _between(last_slice_at, at["series_complete"]) - QUIET_S,
        "until a worker has it": _between(at["series_complete"], at["work_started"]),
        "in the worker, without the networks": _between(at["work_started"], at["structure_set_written"]) - network_s,
        "until the PACS has answered success": _between(at["structure_set_written"], at["delivery_accepted"]),
    }
    table = Table("From the last slice to the PACS", "Seconds")
    for words, seconds in parts.items():
        table.add_row(words, f"{seconds:.2f}")
    console.print(table)
    whole_s = sum(parts.values())
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(f"Together {whole_s:.2f} s (limit {LIMIT_WAY_S} s on two idle cores; load here {load})")
    return whole_s <= LIMIT_WAY_S


def _between(first: datetime, second: datetime) -> float:
    return (second - first).total_seconds()


def _wait(box: DemoBox) -> tuple[Case, list[AuditEvent]]:
    database = Database(box.settings.database_url)
    while True:
        with database.reading() as tx:
            cases = queries.recent_cases(tx, 1)
            if cases and cases[0].state in {CaseState.COMMITTED, CaseState.REFUSED, CaseState.FAILED}:
                query = select(AuditEvent).where(AuditEvent.case_id == cases[0].id).order_by(AuditEvent.id)
                return cases[0], list(tx.scalars(query))
        time.sleep(0.2)


def _report(
    console: Console,
    case: Case,
    events: list[AuditEvent],
    cost: dict[str, float],
    peak_mb: dict[str, float],
    receive: tuple[float, float],
) -> bool:
    first = {event.event: event for event in reversed(events)}
    spent = {name: event.fields for name, event in first.items()}
    networks = spent["segmented"]["networks"]
    network_cpu_s = sum(fold["cpu_s"] for fold in networks)
    table = Table("Step", "Seconds", "CPU-seconds", "Measured in", title=f"One CT, {SHAPE[0]} slices: {case.state}")
    table.add_row("receive", f"{receive[0]:.2f}", f"{receive[1]:.2f}", "listener")
    complete_s = (first["series_complete"].at - first["case_opened"].at).total_seconds()
    table.add_row(
        f"complete (quiet time {QUIET_S:.0f} s in it)", f"{complete_s:.2f}", f"{cost['assemble']:.2f}", "assembler"
    )
    table.add_row("load", *_pair(spent["volume_loaded"]), "worker")
    around_s = spent["segmented"]["seconds"] - sum(fold["seconds"] for fold in networks)
    around_cpu_s = spent["segmented"]["cpu_s"] - network_cpu_s
    table.add_row("segment: around the network", f"{around_s:.2f}", f"{around_cpu_s:.2f}", "worker")
    for number, fold in enumerate(networks, 1):
        table.add_row(f"segment: network, fold {number}", *_pair(fold), "worker")
    for step, event in (
        ("decide", "masks_decided"),
        ("contour", "contours_traced"),
        ("write", "structure_set_written"),
    ):
        table.add_row(step, *_pair(spent[event]), "worker")
    sent_s = (first["delivery_accepted"].at - first["structure_set_written"].at).total_seconds()
    table.add_row("send", f"{sent_s:.2f}", f"{cost['deliver']:.2f}", "deliverer")
    audit_cpu_s = cost["bench"] - sum(
        spent[e]["cpu_s"]
        for e in ("volume_loaded", "segmented", "masks_decided", "contours_traced", "structure_set_written")
    )
    table.add_row("audit, rows and idling of the worker", "", f"{audit_cpu_s:.2f}", "worker")
    console.print(table)
    memory = Table("Process", "CPU-seconds for this case", "Peak memory, MB")
    for name in sorted(peak_mb):
        memory.add_row(name, f"{cost.get(name, 0.0):.2f}", f"{peak_mb[name]:.0f}")
    console.print(memory)
    rest_s = sum(cost.values()) - network_cpu_s
    worker_gb = peak_mb["bench"] / 1024
    console.print(
        f"Everything but the network's forward pass: {rest_s:.2f} CPU-seconds (limit {LIMIT_CPU_S}), "
        f"worker's peak {worker_gb:.2f} GB (limit {LIMIT_WORKER_GB})"
    )
    return rest_s <= LIMIT_CPU_S and worker_gb <= LIMIT_WORKER_GB


def _pair(fields: dict[str, float]) -> tuple[str, str]:
    return f"{fields['seconds']:.2f}", f"{fields['cpu_s']:.2f}"


if __name__ == "__main__":
    main()
