"""A worker oversees its bench: it hands over orders, holds the lease, and ends what hangs, swells or has died.

Whatever becomes of the bench, the case goes back with one more attempt counted, and a new bench starts. A worker that
is told to stop gives the case back at once, and that is not held against the case.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog

from appliance.casework.bench_process import BenchProcess
from appliance.casework.lease import Lease, LeaseLost, hand_back
from appliance.casework.part_rows import put_back_all, renew_all
from appliance.clock import monotonic_s, now_utc
from appliance.records import Database
from appliance.records.session import DatabaseUnavailable
from appliance.segmentation.free_memory import host_free_bytes
from appliance.settings import Settings
from appliance.settings.box import StepLimits

LOOK_EVERY_S = 0.1
STOP_WITHIN_S = 2.0
"""How long a bench may take to let a case go when its worker is stopped; a tile can take longer."""

_LEAST_BYTES = 512 << 20
_MB = 1 << 20
STOPPED = "the worker was stopped"

log = structlog.get_logger()


class StepWatch:
    """Whether the work still gets further."""

    def __init__(self, limits: StepLimits) -> None:
        self._limits = limits.model_dump()
        self._seen: tuple[str, int] = ("engines", 0)
        self._since_s = monotonic_s()

    def hear(self, step: str, done: int) -> None:
        """Note how far the work is."""
        if (step, done) != self._seen:
            self._seen, self._since_s = (step, done), monotonic_s()

    def objection(self) -> str | None:
        """What is wrong when it has got no further for too long."""
        step = self._seen[0]
        limit_s = self._limits.get(step)
        if limit_s is None or monotonic_s() - self._since_s <= limit_s:
            return None
        return f"the step {step} got no further in {limit_s:g} s and was ended"


@dataclass
class _Order:
    """What the bench is at.

    Attributes:
        lease: of the case, once the bench has taken it; None for a part of another worker's case.
    """

    number: int
    case_id: int
    watch: StepWatch
    ceiling_bytes: int
    lease: Lease | None
    renewed_s: float = field(default_factory=monotonic_s)
    stop_s: float | None = None


class Overseer:
    """A worker without models, and the bench that has them.

    Args:
        settings: of this box.
        database: where leases are.
        worker: its name, which no other process has.
        command: starts a bench.

    Attributes:
        should_stop: whether the worker was asked to stop.
        ring_part: tells the other workers that a model's part of a case waits.
    """

    def __init__(self, settings: Settings, database: Database, worker: str, command: Sequence[str]) -> None:
        self.worker = worker
        self.should_stop: Callable[[], bool] = lambda: False
        self.ring_part: Callable[[int, str], bool] = lambda *_: False
        self._settings, self._database, self._command = settings.worker, database, command
        self._numbers = 0
        self._bench: BenchProcess | None = None

    def start(self) -> BenchProcess:
        """Have a bench that lives; it warms its models while nothing is to be done."""
        if self._bench is not None and self._bench.exit_code is not None:
            self._bench.kill()
            self._bench = None
        if self._bench is None:
            self._bench = BenchProcess(self._command)
            log.info("bench_started", pid=self._bench.pid)
        return self._bench

    def stop(self) -> None:
        """Let the bench go."""
        if self._bench is not None:
            self._bench.leave(STOP_WITHIN_S)
            self._bench = None

    def attend(self, case_id: int) -> None:
        """Have a case worked on, until it is done or has gone back."""
        lease = Lease(self._database, case_id, self.worker, self._settings.lease_s, self.should_stop)
        self._oversee(self._order(case_id, lease), {"case": case_id})

    def attend_part(self, case_id: int, model: str) -> None:
        """The same for one model's part of a case that another worker leads."""
        self._oversee(self._order(case_id, None), {"case": case_id, "model": model})

    def _order(self, case_id: int, lease: Lease | None) -> _Order:
        self._numbers += 1
        watch = StepWatch(self._settings.step_limits_s)
        return _Order(self._numbers, case_id, watch, self._ceiling_bytes(self.start()), lease)

    def _ceiling_bytes(self, bench: BenchProcess) -> int:
        """What the bench may hold: as set, or what it has and its share of what is free."""
        if self._settings.memory_mb is not None:
            return self._settings.memory_mb * _MB
        share = self._settings.memory_share or 1.0
        return bench.resident_bytes() + max(_LEAST_BYTES, int(host_free_bytes() * share))

    def _oversee(self, order: _Order, words: dict[str, Any]) -> None:
        bench = self.start()
        bench.tell({"number": order.number, **words})
        while True:
            for report in bench.reports(LOOK_EVERY_S):
                if report.get("finished") == order.number:
                    return
                self._hear(order, report)
            if why := self._objection(order, bench):
                bench.kill()
                self._bury(order, why)
                return
            self._renew(order)

    def _hear(self, order: _Order, report: dict[str, Any]) -> None:
        if "step" in report:
            order.watch.hear(report["step"], report["done"])
        elif "lease" in report and order.lease is not None:
            order.lease.number = report["lease"]
        elif "ring" in report:
            self.ring_part(*report["ring"])

    def _objection(self, order: _Order, bench: BenchProcess) -> str | None:
        """Why the bench cannot go on, if it cannot."""
        code = bench.exit_code
        if code is not None:
            return _death_in_words(code)
        if self.should_stop():
            if order.stop_s is None:
                order.stop_s = monotonic_s()
                bench.tell({"stop": True})
            if monotonic_s() - order.stop_s > STOP_WITHIN_S:
                return STOPPED
        held = bench.resident_bytes()
        if held > order.ceiling_bytes:
            most = order.ceiling_bytes // _MB
            return f"its process took {held // _MB} MB of memory, and {most} MB is the most it may have"
        return order.watch.objection()

    def _renew(self, order: _Order) -> None:
        """Hold the case, and whatever part of one, also while a step shows nothing."""
        if monotonic_s() - order.renewed_s < self._settings.lease_s / 3:
            return
        order.renewed_s = monotonic_s()
        try:
            with self._database.transaction() as tx:
                renew_all(tx, self.worker, now_utc() + timedelta(seconds=self._settings.lease_s))
            if order.lease is not None and order.lease.number:
                order.lease.renew()
        except LeaseLost:
            log.warning("lease_lost", case=order.case_id)  # the bench hears of it at its next progress
        except DatabaseUnavailable as away:
            log.warning("database_unavailable", error=str(away))

    def _bury(self, order: _Order, why: str) -> None:
        """Give back what the bench was at, and start another."""
        log.error("bench_ended", case=order.case_id, why=why)
        stopped = self.should_stop()
        with self._database.transaction() as tx:
            put_back_all(tx, self.worker)
        if order.lease is not None:
            if not order.lease.number and not stopped:
                order.lease.take()  # it died before it could: that counts as well, or it would die for ever
            sentence, allowed = STOPPED if stopped else why, self._settings.attempts
            case_id, worker = order.case_id, self.worker
            hand_back(self._database, case_id, worker, sentence, attempts_allowed=allowed, stopped=stopped)
        if not stopped:
            self.start()


def _death_in_words(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return "its process was killed, most likely because memory ran out; see the kernel's log"
    if exit_code < 0:
        return f"its process was ended by {signal.Signals(-exit_code).name}; see the worker's log"
    return f"its process ended with exit code {exit_code}; see the worker's log"
