"""A line between a client and a server on Unix sockets that can be slow, stand still, or be cut."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_CHUNK = 65536


class SlowLine:
    """Passes on what it is sent, after `delay_s`; nothing at all as long as it is held."""

    def __init__(self, entrance: Path, server: Path) -> None:
        self.delay_s = 0.0
        self._flows = threading.Event()
        self._flows.set()
        self._server = server
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(entrance))
        self._listening.listen(64)
        self._pairs: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.flow()
        self.cut()

    def hold(self) -> None:
        """Stand still: whoever is connected hears nothing, and is not told why."""
        self._flows.clear()

    def flow(self) -> None:
        """Go on."""
        self._flows.set()

    def cut(self) -> None:
        """Break off every connection."""
        for end in self._pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._pairs.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._server))
            except OSError:
                server.close()
                client.close()
                continue
            self._pairs += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(_CHUNK):
                time.sleep(self.delay_s)
                self._flows.wait()
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
