"""The processes that the acceptor forks: one for each association, and the housekeeper."""

import ctypes
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import structlog

from appliance.clock import monotonic_s
from appliance.intake.association import Association
from appliance.intake.housekeeper import Housekeeper
from appliance.intake.negotiation import Agreement
from appliance.intake.storage import Caller, Means
from appliance.intake.wire import Wire

_STOP_WITHIN_S, _HAND_OVER_WITHIN_S = 7.0, 2.5
"""Of the ten seconds in which the listener stops; a housekeeper that needs longer ends by itself."""

_PR_SET_PDEATHSIG = 1
_FORK = multiprocessing.get_context("fork")

log = structlog.get_logger()


class Children:
    """Starts processes, takes note of their end, and ends them."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._associations: dict[BaseProcess, Caller] = {}
        self._housekeeper: BaseProcess | None = None
        self._keep_house: Callable[[], None] = lambda: None

    @property
    def callers(self) -> list[Caller]:
        """The peer of each association that lives."""
        self.look_after()
        return list(self._associations.values())

    def start(
        self, connection: socket.socket, agreement: Agreement, caller: Caller, *, not_theirs: Callable[[], None]
    ) -> None:
        """Serve an association in a process of its own.

        Args:
            connection: of the association; the caller closes its own copy.
            agreement: what was negotiated.
            caller: the peer.
            not_theirs: closes what the new process must not hold open.
        """
        parent = os.getpid()

        def serve() -> None:
            not_theirs()
            _die_with(parent)
            Association(Wire(connection, self._means.settings.network_timeout_s), agreement, self._means, caller).run()

        process = _FORK.Process(target=serve)
        try:
            process.start()
        except OSError:  # no process or no memory to be had: whoever called will call again
            log.exception("association_not_started")
            return
        self._associations[process] = caller

    def start_housekeeper(self, *, not_theirs: Callable[[], None]) -> None:
        """Let the housekeeper work; again, whenever it has died.

        Args:
            not_theirs: as of `start`; a listener that is killed must not go on listening in its housekeeper.
        """
        means = self._means
        keeper = Housekeeper(means.spool, means.pool, means.reports, means.settings.free_space_reserve_mb)

        def work() -> None:
            not_theirs()
            keeper.run()

        self._keep_house = lambda: self.start_housekeeper(not_theirs=not_theirs)
        self._housekeeper = _FORK.Process(target=work)
        self._housekeeper.start()

    def look_after(self) -> None:
        """Take note of what has ended; what it had in hand is settled by the housekeeper."""
        for process in [process for process in self._associations if not process.is_alive()]:
            if process.exitcode:
                log.warning("association_died", exit_code=process.exitcode)
            self._means.pool.left_by(process.pid or 0)
            del self._associations[process]
            process.close()
        if self._housekeeper is not None and not self._housekeeper.is_alive():
            log.warning("housekeeper_died", exit_code=self._housekeeper.exitcode)
            self._housekeeper.close()
            self._keep_house()

    def stop(self) -> None:
        """End all: each association after the object in hand, the housekeeper when all is handed over."""
        for process in self._associations:
            process.terminate()
        until_s = monotonic_s() + _STOP_WITHIN_S
        for process in list(self._associations):
            process.join(max(until_s - monotonic_s(), 0.0))
            if process.is_alive():
                process.kill()
                process.join()
            self._means.pool.left_by(process.pid or 0)
        self._associations.clear()
        self._means.reports.close()
        if self._housekeeper is not None:
            self._housekeeper.join(_HAND_OVER_WITHIN_S)
            self._housekeeper = None


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, whose place another listener will take.

    Wherever it dies, an object that was answered is in its slot, and one that was not is sent again.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
