"""One end of a connection, on which nothing lasts for ever: every read and every write has a deadline."""

import socket
import ssl
import struct

from appliance.clock import monotonic_s

_REST_BYTES = 1 << 16


class ConnectionLost(Exception):
    """The peer is gone, or took too long."""


class Wire:
    """A connection as an association reads and writes it.

    Args:
        connection: connected, over TLS after its handshake.
        timeout_s: how long one read or write may take.
    """

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(connection, ssl.SSLSocket):
            self._flags = 0
            connection.settimeout(timeout_s)
        else:
            # blocking, with a limit in the kernel: one call for a whole fragment, however it is cut up on the way
            self._flags = socket.MSG_WAITALL
            connection.settimeout(None)
            limit = struct.pack("ll", int(timeout_s), max(int(timeout_s % 1 * 1e6), 1))  # all zeros would be no limit
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def read_into(self, view: memoryview) -> int:
        """Fill `view`; returns how much came, which is less only when the peer has closed.

        Raises:
            ConnectionLost: it broke, or the time was up.
        """
        wanted, deadline_s = len(view), monotonic_s() + self._timeout_s
        got = 0
        while True:
            try:
                count = self._connection.recv_into(view[got:], 0, self._flags)
            except OSError as error:  # a time limit is one too
                raise ConnectionLost(str(error)) from error
            got += count
            if got == wanted or count == 0:
                return got
            if monotonic_s() > deadline_s:
                raise ConnectionLost("too slow")

    def send(self, encoded: bytes) -> None:
        """Send all of it.

        Raises:
            ConnectionLost: it broke, or the time was up.
        """
        try:
            self._connection.sendall(encoded)
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def finish(self) -> None:
        """Say that nothing further is sent, and wait for the peer to close (PS3.8, Sta13), for as long as one read may.

        Raises:
            ConnectionLost: it broke, or the time was up.
        """
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        self.read_into(memoryview(bytearray(_REST_BYTES)))  # no longer for one that goes on sending

    def close(self) -> None:
        """Close it; what was sent still arrives."""
        self._connection.close()
