"""Peers that mean harm: connections that are held, floods, and whatever a socket can be made to say."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Self

import psutil

from appliance.delivery.store_scu import Caller, NotDelivered, echo
from appliance.settings import Peer
from tests.support.hostile_pdus import RELEASE, associate_rq
from tests.support.waiting import wait_until

Port = tuple[str, int]
PDU_HEADER = 6


def connect(port: int, source: str = "127.0.0.1", timeout_s: float = 10.0) -> socket.socket:
    """A TCP connection from an address of our choice (all of 127.0.0.0/8 is ours)."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0))


def read_pdu(connection: socket.socket) -> bytes | None:
    """The next PDU; None when the other side has closed, in whatever way."""
    data = b""
    wanted = PDU_HEADER
    with suppress(ConnectionError):
        while len(data) < wanted:
            chunk = connection.recv(wanted - len(data))
            if not chunk:
                return None
            data += chunk
            if len(data) == PDU_HEADER:
                wanted = PDU_HEADER + int.from_bytes(data[2:6], "big")
        return data
    return None


def answers_to(port: int, sent: bytes, source: str = "127.0.0.1") -> list[bytes]:
    """What comes back, PDU by PDU, until the other side closes; our own side is closed for writing at once."""
    with connect(port, source) as connection:
        with suppress(OSError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        return list(iter(lambda: read_pdu(connection), None))


@contextmanager
def established(port: int, source: str = "127.0.0.1", caller: bytes = b"FAKEPACS") -> Iterator[socket.socket]:
    """An association, by hand."""
    with connect(port, source) as connection:
        connection.sendall(associate_rq(caller))
        answer = read_pdu(connection)
        assert answer is not None, "the listener closed"
        assert answer[0] == 2, f"not accepted: {answer.hex()}"
        yield connection
        with suppress(OSError):
            connection.sendall(RELEASE)
            read_pdu(connection)


class Held:
    """Connections that an attacker keeps; those that the listener closes are opened again."""

    def __init__(
        self, port: int, count: int, begin: Callable[[socket.socket], None], drip: bytes = b"", sources: int = 1
    ) -> None:
        self._port = port
        self._begin = begin
        self._drip = drip
        self._sources = [f"127.0.66.{1 + number % sources}" for number in range(count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self.opened = 0
        self.failed = 0
        self.ended: set[int] = set()  #: connections that the listener has closed at least once

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.opened + self.failed >= len(self._sources), 60, "the attack to have begun")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def all_were_ended(self) -> bool:
        """Whether the listener has let go of every one of them."""
        return len(self.ended) == len(self._sources)

    def _hold(self) -> None:
        held: dict[int, socket.socket] = {}
        while not self._stop.is_set():
            for number, source in enumerate(self._sources):
                if number not in held:
                    with suppress(OSError):
                        held[number] = self._open(source)
                    self.failed += number not in held
                elif self._is_over(held[number]):
                    held.pop(number).close()
                    self.ended.add(number)
            self._stop.wait(0.5)
        for connection in held.values():
            connection.close()

    def _open(self, source: str) -> socket.socket:
        connection = connect(self._port, source, timeout_s=2.0)
        try:
            self._begin(connection)
        except OSError:
            connection.close()
            raise
        connection.setblocking(False)
        self.opened += 1
        return connection

    def _is_over(self, connection: socket.socket) -> bool:
        try:
            if self._drip:
                connection.send(self._drip)
            return connection.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


@dataclass
class HealthyPeer:
    """Somebody who asks by C-ECHO, again and again, on an association of its own each time."""

    caller: Caller
    me: Peer
    tried: int = 0
    failed: int = 0
    seconds: list[float] = field(default_factory=list)

    def ask(self, times: int) -> None:
        """C-ECHO this often."""
        for _ in range(times):
            began_s = monotonic()
            self.tried += 1
            try:
                echo(self.caller, self.me)
            except NotDelivered:
                self.failed += 1
            self.seconds.append(monotonic() - began_s)

    @property
    def p99_s(self) -> float:
        """99 of 100 were answered in this time."""
        return sorted(self.seconds)[max(0, round(0.99 * len(self.seconds)) - 1)]


@dataclass(frozen=True)
class Footing:
    """What a process and its children hold."""

    processes: int
    threads: int
    descriptors: int
    resident_kb: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Footing":
        """As it is now, its children counted as processes alone."""
        children = process.children(recursive=True)
        return cls(len(children), process.num_threads(), process.num_fds(), process.memory_info().rss >> 10)

    def is_as(self, base: "Footing") -> bool:
        """Nothing was left over (memory apart)."""
        ours, theirs = (
            (self.processes, self.threads, self.descriptors),
            (base.processes, base.threads, base.descriptors),
        )
        return all(now <= then for now, then in zip(ours, theirs, strict=True))
