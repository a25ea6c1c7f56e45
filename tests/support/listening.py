"""The real listener alone: `delineate listen` as a process, or one beside the tests that starts in no time."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from appliance.delivery.store_scu import Caller, NotDelivered, echo
from appliance.intake.listener import Listener
from appliance.running.roles import stop_on_signal
from appliance.settings import Peer, Settings, load_settings
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.free_ports import free_port
from tests.support.processes import kill_with_children
from tests.support.waiting import wait_until


class ListenerBeside:
    """A listener in a process of its own, as it forks; on the spool and with the settings of a test."""

    def __init__(self, settings: Settings, spool: Spool, *, flushing: bool = True) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["appliance.intake.listener", "appliance.running.roles"])
        self._ours, theirs = context.Pipe()
        self.process = context.Process(target=_listen, args=(settings.folder, spool.root, theirs, flushing))

    def start(self) -> int:
        """Start it; returns the port once it listens."""
        self.process.start()
        assert self._ours.poll(30), "the listener did not start"
        return int(self._ours.recv())

    def stop(self) -> None:
        """SIGTERM; returns when it has ended. A second time changes nothing."""
        self.process.terminate()
        self.process.join(30)
        assert self.process.exitcode == 0


def _listen(folder: Path, spool_root: Path, connection: Connection, flushing: bool) -> None:
    if not flushing:  # the control: a listener that does not flush its slots must lose what it has acknowledged
        os.fdatasync = lambda _descriptor: None
    stop = stop_on_signal()
    listener = Listener(load_settings(folder), Spool(spool_root))
    connection.send(listener.start())
    listener.serve(stop.is_set)


_FILES = {"peers", "rois", "protocols", "planning_systems"}


@dataclass
class ListenerProcess:
    """A configured listener; its spool outlives it."""

    folder: Path
    me: Peer
    spool: Spool
    caller: Caller

    @classmethod
    def configured(
        cls,
        folder: Path,
        tables: Mapping[str, Mapping[str, Any]] | None = None,
        parts: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> "ListenerProcess":
        """On a free port, with a spool of its own; `tables`, other files and keys of [intake] may be changed."""
        files = {**(parts or {}), **{name: changes.pop(name) for name in _FILES & changes.keys()}}
        intake = {"port": free_port(), "free_space_reserve_mb": 1, "network_timeout_s": 5.0, "slots": 16}
        intake |= {**(tables or {}).get("intake", {}), **changes}
        settings = make_settings(folder, {**(tables or {}), "intake": intake}, **files)
        spool = Spool(settings.data_dir / "spool")
        return cls(settings.folder, settings.myself, spool, Caller("FAKEPACS", 5.0, settings.tls_files))

    @contextmanager
    def running(self, wrapper: Sequence[str | Path] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """The process, once it answers C-ECHO; killed at the end if it still runs."""
        command = [*wrapper, sys.executable, "-m", "appliance", "--config", self.folder, "listen"]
        with (
            (self.folder / "listen.log").open("ab") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                wait_until(lambda: self.answers(process), 30, "the listener to answer")
                yield process
            finally:
                if process.poll() is None:
                    kill_with_children(process.pid)

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it answers C-ECHO."""
        assert process.poll() is None, (self.folder / "listen.log").read_text()
        try:
            echo(Caller(self.me.ae_title, 5.0, self.caller.tls_files), self.me)
        except NotDelivered:
            return False
        return True
