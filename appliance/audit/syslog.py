"""Syslog as PS3.15 A.6 wants it: RFC 5424 messages, framed by RFC 5425, over TLS.

Syslog has no answers. What stands in for one is the end of the connection: RFC 5425 section 4.4 has the receiver
answer our close_notify with its own, which it can only do once it has read all that came before.
"""

import socket
import ssl
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from appliance.errors import ApplianceError
from appliance.settings.tls import CallingContext

_FACILITY = 10 * 8  # security/authorization
_NOTICE, _WARNING = 5, 4
_MESSAGE_ID = "DICOM+RFC3881"
_BOM = b"\xef\xbb\xbf"


class CollectorAway(ApplianceError):
    """The collector did not take all of what it was sent; it is sent again."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where messages go.

    Attributes:
        host: name or address.
        port: TCP port.
        timeout_s: for the connection, and for all of what is sent at once.
        context: for TLS; plain TCP when absent.
    """

    host: str
    port: int
    timeout_s: float
    context: CallingContext | None

    def deliver(self, messages: Sequence[bytes]) -> None:
        """Send messages over one connection; returns once the collector has read them all.

        Raises:
            CollectorAway: it may have read some of them, or none.
        """
        try:
            with closing(self._connect()) as connection:
                connection.sendall(b"".join(framed(message) for message in messages))
                self._end(connection)
        except OSError as error:
            problem = self.context.problem if self.context is not None else ""
            words = problem or error.strerror or str(error) or type(error).__name__
            raise CollectorAway(f"the collector at {self.host}:{self.port} is away: {words}") from error

    def _connect(self) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), timeout=self.timeout_s)
        if self.context is None:
            return plain
        try:
            return self.context.wrap_socket(plain, server_hostname=self.host)
        except OSError:
            plain.close()
            raise

    def _end(self, connection: socket.socket) -> None:
        """Say that this was all, and wait until the collector says the same."""
        if isinstance(connection, ssl.SSLSocket):
            connection.unwrap()
            return
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # nothing is expected but the end; a reset raises
            pass


def syslog_message(xml: bytes, *, at: datetime, host: str, process: str, warning: bool) -> bytes:
    """One message of RFC 5424; the same event gives the same bytes again.

    Args:
        xml: an audit message in UTF-8.
        at: when it happened.
        host: this machine.
        process: which part of the appliance.
        warning: whether something went wrong.
    """
    priority = _FACILITY + (_WARNING if warning else _NOTICE)
    stamp = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    header = f"<{priority}>1 {stamp} {_name(host, 255)} delineate {_name(process, 128)} {_MESSAGE_ID} - "
    return header.encode("ascii") + _BOM + xml


def framed(message: bytes) -> bytes:
    """RFC 5425 section 4.3: the length in octets, a space, the message."""
    return b"%d %b" % (len(message), message)


def _name(text: str, length: int) -> str:
    """A field of the header: printable ASCII without blanks, "-" when there is nothing."""
    return "".join(char for char in text if "!" <= char <= "~")[:length] or "-"
