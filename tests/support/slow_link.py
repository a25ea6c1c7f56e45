"""A network that is slow, lossy or gone: a relay on loopback, and, for root, a real link with netem."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Self

_PIECE = 1400


class Relay:
    """Passes bytes on to a port, late and slowly; once cut, it passes nothing and closes nothing."""

    def __init__(self, port: int, *, delay_s: float = 0.0, bytes_per_s: float = 1e9) -> None:
        self._target = port
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._most: int | None = None
        self._stop = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.passed = 0  #: bytes from the sender
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listening.close()
        self.mend()

    def cut_after(self, count: int) -> None:
        """After so many bytes both ends stay open and hear nothing more, until it is mended."""
        self._most = self.passed + count

    def mend(self) -> None:
        """Pass on what is opened from now on; what was cut is forgotten."""
        self._most = None
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with suppress(OSError):
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                time.sleep(self._delay_s + len(piece) / self._bytes_per_s)
                if self._most is not None and self.passed > self._most:
                    return
                self.passed += len(piece)
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Link:
    """A link between this host and a network of its own."""

    namespace: str
    device: str
    here: str
    words: str = ""  #: what it is like

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command at the other end."""
        there = ["ip", "netns", "exec", self.namespace, *command]
        return subprocess.run(there, capture_output=True, text=True, timeout=120, check=False)

    def start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start a command at the other end."""
        there = ["ip", "netns", "exec", self.namespace, *command]
        return subprocess.Popen(there, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def set(self, state: str) -> None:
        """Take our end of the link `up` or `down`."""
        _ip("link", "set", self.device, state)


def why_no_link() -> str | None:
    """Why no link can be made here; None when one can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip and tc are not installed"
    probe = subprocess.run(["ip", "netns", "add", f"dlnprobe{os.getpid()}"], capture_output=True, check=False)
    if probe.returncode:
        return "network namespaces are not allowed here"
    _ip("netns", "delete", f"dlnprobe{os.getpid()}")
    return None


@contextmanager
def link(delay_ms: int, loss_percent: int) -> Iterator[Link]:
    """A veth pair with netem at both ends; everything is gone afterwards."""
    number = os.getpid() % 200
    made = Link(f"dln{os.getpid()}", f"dlnh{number}", f"10.203.{number}.1")
    theirs = f"dlnp{number}"
    _ip("netns", "add", made.namespace)
    try:
        _ip("link", "add", made.device, "type", "veth", "peer", "name", theirs, "netns", made.namespace)
        _ip("addr", "add", f"{made.here}/24", "dev", made.device)
        _ip("link", "set", made.device, "up")
        inside = ["-n", made.namespace]
        _ip(*inside, "addr", "add", f"10.203.{number}.2/24", "dev", theirs)
        _ip(*inside, "link", "set", theirs, "up")
        netem = ["delay", f"{delay_ms}ms", "loss", f"{loss_percent}%"]
        is_slow = _slow_down(made.device, [], netem) and _slow_down(theirs, inside, netem)
        words = f"{delay_ms} ms each way, {loss_percent} % lost" if is_slow else "cut alone: this kernel has no netem"
        yield replace(made, words=words)
    finally:
        _ip("netns", "delete", made.namespace)
        subprocess.run(["ip", "link", "delete", made.device], capture_output=True, check=False)


def _slow_down(device: str, where: Sequence[str], netem: Sequence[str]) -> bool:
    """Make one end slow and lossy; False where the kernel knows no netem."""
    command = ["tc", *where, "qdisc", "add", "dev", device, "root", "netem", *netem]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "unknown" in done.stderr, done.stderr
    return done.returncode == 0


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
