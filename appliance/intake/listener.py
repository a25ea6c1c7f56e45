"""The DICOM listener: C-ECHO, C-STORE of CT images, and storage commitment, both ways.

It is a family of processes (docs/adr/0025): the acceptor, which is the one that was started, a housekeeper, and one
for each association. This file wires them; it is all that others need to know.
"""

import gc
import socket
import ssl
import threading
from collections.abc import Callable

import structlog

from appliance.clock import monotonic_s
from appliance.errors import SettingsError
from appliance.intake.acceptor import Acceptor
from appliance.intake.children import Children
from appliance.intake.door import Door
from appliance.intake.reports import Reports
from appliance.intake.seen import Seen
from appliance.intake.storage import Means
from appliance.settings import Settings
from appliance.settings.tls import listening_context
from appliance.spool import SlotPool, Spool

_BACKLOG = 128
_PREDECESSOR_S = 15.0
_LOOK_EVERY_S = 0.05

log = structlog.get_logger()


class Listener:
    """The C-STORE SCP of the appliance. Only a process with a single thread may serve, as it forks."""

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._settings = settings
        intake = settings.intake
        pool = SlotPool(spool.root / "slots", intake.slots, intake.slot_kb << 10)
        self._means = Means(intake, spool, pool, Seen(), Reports())
        self._children = Children(self._means)
        self._acceptor: Acceptor | None = None

    def start(self) -> int:
        """Listen, once what an earlier listener has left is in order; returns the port (that of TLS, if only that).

        Raises:
            OSError: the address is in use or not allowed, or another listener uses the spool.
            SettingsError: the files of TLS cannot be used.
        """
        self._take_over()
        try:
            doors = self._open_doors()
        except (OSError, SettingsError):
            self._means.pool.unlock()
            raise
        swept = self._means.spool.sweep()
        free_mb = self._means.spool.free_mb() - self._means.settings.free_space_reserve_mb
        for number in self._means.pool.recover(max(free_mb, 0)):
            self._means.spool.hand_over(self._means.pool, number)
        self._acceptor = Acceptor(doors, self._means, Door(self._settings), self._children)
        ports = [listening.getsockname()[1] for listening in doors]
        log.info("listening", ae_title=self._means.settings.ae_title, host=self._means.settings.host, ports=ports)
        log.info("taken_over", swept=swept)
        return int(ports[0])

    def serve(self, stopping: Callable[[], bool]) -> None:
        """Serve until told to stop, then finish what is in hand and leave, within ten seconds."""
        if self._acceptor is None:
            raise RuntimeError("start the listener first")
        gc.collect()
        gc.freeze()  # what is there now is never looked at again, so that children go on sharing it
        self._children.start_housekeeper(not_theirs=self._acceptor.close_copies)
        try:
            self._acceptor.serve(stopping)
        finally:
            self._acceptor.close()
            self._children.stop()
            self._means.pool.unlock()

    def _open_doors(self) -> dict[socket.socket, ssl.SSLContext | None]:
        intake, files = self._means.settings, self._settings.tls_files
        doors: dict[socket.socket, ssl.SSLContext | None] = {}
        if intake.tls != "only" or files is None:
            doors[_listen(intake.host, intake.port)] = None
        if intake.tls != "off" and files is not None:
            doors[_listen(intake.host, intake.tls_port)] = listening_context(files)
        return doors

    def _take_over(self) -> None:
        """Wait for the children of a listener that died; they follow it at once."""
        until_s = monotonic_s() + _PREDECESSOR_S
        while not self._means.pool.lock():
            if monotonic_s() > until_s:
                raise OSError(f"another listener uses the spool {self._means.spool.root}; stop it first")
            threading.Event().wait(_LOOK_EVERY_S)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)
