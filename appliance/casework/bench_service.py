"""The bench itself: a process that keeps the models warm and does what its worker tells it, one order at a time."""

import json
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from appliance.casework.attending import attend, attend_part
from appliance.casework.workbench import Workbench
from appliance.clock import monotonic_s

REPORT_EVERY_S = 0.2
"""Progress within one step is told at most this often."""

_FIRST_TO_GO = "500"


class Reports:
    """What the bench tells its worker, a line each."""

    def __init__(self, say: Callable[[bytes], object]) -> None:
        self._say = say
        self._step, self._told_s = "", 0.0

    def tell(self, **fields: Any) -> None:
        """Say something."""
        self._say(json.dumps(fields).encode() + b"\n")

    def ring_part(self, case_id: int, model: str) -> bool:
        """Have the worker ring for the others, who have a part to do."""
        self.tell(ring=[case_id, model])
        return True

    def step(self, name: str, done: int, total: int) -> None:
        """Say how far a step is, now and then."""
        now_s = monotonic_s()
        if name != self._step or now_s - self._told_s > REPORT_EVERY_S:
            self._step, self._told_s = name, now_s
            self.tell(step=name, done=done, total=total)


def serve(bench: Workbench) -> None:
    """Work off orders until the worker goes away."""
    reports = Reports(_own_output())
    stop = threading.Event()
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(orders, stop), daemon=True, name="orders").start()
    _be_the_first_to_go()
    bench.should_stop = stop.is_set
    bench.on_step = reports.step
    bench.on_taken = lambda number: reports.tell(lease=number)
    bench.ring_part = reports.ring_part
    bench.warm_up()
    while True:
        order = orders.get()
        if "model" in order:
            attend_part(bench, order["case"], order["model"])
        else:
            attend(bench, order["case"])
        reports.tell(finished=order["number"])


def _own_output() -> Callable[[bytes], object]:
    """Standard output for reports alone: whatever a library prints goes to standard error."""
    own = os.dup(1)
    os.dup2(2, 1)
    return lambda line: os.write(own, line)


def _listen(orders: "queue.Queue[dict[str, Any]]", stop: threading.Event) -> None:
    """Hear orders, and end the process with its worker."""
    half = b""
    while piece := os.read(0, 4096):
        *lines, half = (half + piece).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "stop" in order:
                stop.set()
            else:
                orders.put(order)
    os._exit(0)


def _be_the_first_to_go() -> None:
    """Where memory runs out, the kernel should end this process rather than the database or its worker."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
