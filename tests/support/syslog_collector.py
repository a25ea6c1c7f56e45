"""A syslog collector as hospitals have them (RFC 5425), and as they are on a bad day."""

import re
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

from appliance.settings.tls import TlsFiles, listening_context


class Mood(StrEnum):
    """What it does with one connection."""

    GOOD = "reads all and ends the connection as it should"
    DROPS = "reads a little and hangs up"
    KILLED = "reads a little and is killed"
    HALF_CLOSED = "closes its own direction at once and reads nothing"
    DEAF = "accepts and never reads"
    SLOW = "reads a few bytes at a time, too slowly"
    PLAIN = "does not speak TLS at all"


class SyslogCollector:
    """Listens on loopback; each connection gets the next mood, and at the end all are good."""

    def __init__(self, files: TlsFiles | None, moods: Iterable[Mood] = ()) -> None:
        self._context = None if files is None else listening_context(files)
        self._moods = iter(moods)
        self._stop = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.port: int = self._server.getsockname()[1]
        self.messages: list[bytes] = []
        self.connections: list[Mood] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._stop.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join()

    @property
    def distinct(self) -> list[bytes]:
        """Each message once, in the order in which it first came."""
        return list(dict.fromkeys(self.messages))

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            mood = next(self._moods, Mood.GOOD)
            self.connections.append(mood)
            thread = threading.Thread(target=self._serve, args=(connection, mood))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, mood: Mood) -> None:
        connection = plain
        with suppress(OSError):
            plain.settimeout(20)
            if mood is Mood.PLAIN:
                plain.sendall(b"220 welcome\r\n")
            elif self._context is not None:
                connection = self._context.wrap_socket(plain, server_side=True)
            self._in_mood(connection, mood)
        connection.close()

    def _in_mood(self, connection: socket.socket, mood: Mood) -> None:
        if mood is Mood.GOOD:
            self._read(connection)
            if isinstance(connection, ssl.SSLSocket):
                connection.unwrap()
        elif mood in {Mood.DROPS, Mood.KILLED}:
            self._read(connection, at_most=2_000)
            if mood is Mood.KILLED:  # what is unread makes the kernel answer with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif mood is Mood.HALF_CLOSED:
            socket.socket.shutdown(connection, socket.SHUT_WR)
            self._stop.wait(3)
        elif mood is Mood.SLOW:
            self._read(connection, pause_s=0.05)
        elif mood is Mood.DEAF:
            self._stop.wait(5)

    def _read(self, connection: socket.socket, *, at_most: int | None = None, pause_s: float = 0.0) -> None:
        pending, taken = b"", 0
        while at_most is None or taken < at_most:
            chunk = connection.recv(64 if pause_s else 4096 if at_most is None else 500)
            if not chunk:
                return
            taken += len(chunk)
            pending = self._keep(pending + chunk)
            if pause_s and self._stop.wait(pause_s):
                return

    def _keep(self, pending: bytes) -> bytes:
        """Take whole frames: a length in octets, a space, the message."""
        while (length := re.match(rb"([1-9][0-9]*) ", pending)) is not None:
            end = length.end() + int(length[1])
            if len(pending) < end:
                break
            self.messages.append(pending[length.end() : end])
            pending = pending[end:]
        return pending
