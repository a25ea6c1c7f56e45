"""The front of the listener: owns every connection until its A-ASSOCIATE-RQ is whole, then gives it a process.

One thread and no waiting: a peer that says nothing, or drips, costs a descriptor and some bytes until its time is up
(ARTIM, PS3.8 §9.1.5). Where too many wait, whoever has been silent longest gives way, so that the silence of some
never keeps out one who speaks. As there is one thread, a process for each association can simply be forked: it shares
the means that are there, dies alone, and leaves neither memory nor descriptors behind.
"""

import selectors
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from appliance.clock import monotonic_s
from appliance.intake.children import Children
from appliance.intake.door import BY_PRESENTATION, LOCAL_LIMIT_EXCEEDED, TRANSIENT, Claim, Door, Rejection
from appliance.intake.negotiation import (
    MAX_ASSOCIATE_BYTES,
    BadRequest,
    Request,
    abort,
    agree,
    read_request,
    rejection,
)
from appliance.intake.storage import Caller, Means
from appliance.intake.watermark import Watermark
from appliance.settings.tls import ShownCertificate, in_words

MOST_WAITING, MOST_WAITING_PER_ADDRESS = 256, 64
"""Connections whose request is not whole; a system that speaks at once is one of them for milliseconds."""

_ASSOCIATE_RQ = 0x01
_TLS_HANDSHAKE = 0x16  # RFC 8446 section 5.1
_HEADER_BYTES = 6
_ACCEPTED_AT_ONCE = 32
_TICK_S = 0.25
_BY_USER, _BY_PROVIDER, _INVALID_PARAMETER = 0, 2, 6

_NO_REQUEST = "what it sent is no association request, or one that is too long"

log = structlog.get_logger()


@dataclass(eq=False)
class _Waiting:
    """A connection whose request is not whole."""

    connection: socket.socket
    address: str
    deadline_s: float
    received: bytearray = field(default_factory=bytearray)
    handshaking: bool = False

    @property
    def missing(self) -> int:
        """How many bytes are still to come: of the header, then of the whole."""
        if len(self.received) < _HEADER_BYTES:
            return _HEADER_BYTES - len(self.received)
        return _HEADER_BYTES + int.from_bytes(self.received[2:_HEADER_BYTES], "big") - len(self.received)


class _Nonsense(Exception):
    """What comes is no association request, or too long to be one."""


class Acceptor:
    """Accepts, and decides whom to let in.

    Args:
        doors: sockets that listen, each with the TLS that is spoken on it.
        means: what associations work with.
        door: says who may come in.
        children: the processes of the associations.
    """

    def __init__(
        self, doors: dict[socket.socket, ssl.SSLContext | None], means: Means, door: Door, children: Children
    ) -> None:
        self._doors = doors
        self._means = means
        self._settings = means.settings
        self._door = door
        self._children = children
        self._watermark = Watermark(means)
        self._waiting: dict[_Waiting, None] = {}  # in the order in which they came
        self._selector = selectors.DefaultSelector()
        for listening in doors:
            listening.setblocking(False)
            self._selector.register(listening, selectors.EVENT_READ)

    def serve(self, stopping: Callable[[], bool]) -> None:
        """Accept until told to stop."""
        while not stopping():
            events = self._selector.select(_TICK_S)
            for key, _ in events:
                if isinstance(key.data, _Waiting) and key.data in self._waiting:
                    self._go_on(key.data)
            for key, _ in events:
                if key.data is None:
                    self._accept(key.fileobj)  # type: ignore[arg-type]
            self._children.look_after()
            self._watermark.is_low()
            self._let_go_of_the_slow()

    def close(self) -> None:
        """Accept nothing further, and let everybody go who is not in."""
        for listening in self._doors:
            self._selector.unregister(listening)
            listening.close()
        for waiting in list(self._waiting):
            self._let_go(waiting)
        self._selector.close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, (address, *_) = listening.accept()
            except BlockingIOError:
                return
            except OSError:  # it was gone before we looked, or there are no descriptors left
                log.warning("accept_failed")
                return
            self._make_room(address)
            self._admit_to_wait(connection, address, self._doors[listening])

    def _admit_to_wait(self, connection: socket.socket, address: str, tls: ssl.SSLContext | None) -> None:
        connection.setblocking(False)
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        deadline_s = monotonic_s() + self._settings.network_timeout_s
        waiting = _Waiting(connection, address, deadline_s, handshaking=tls is not None)
        self._waiting[waiting] = None
        self._selector.register(connection, selectors.EVENT_READ, waiting)

    def _make_room(self, address: str) -> None:
        """Let go of whoever has waited longest, from this address or at all, when there are too many."""
        of_address = [waiting for waiting in self._waiting if waiting.address == address]
        if len(of_address) >= MOST_WAITING_PER_ADDRESS:
            self._turn_away(of_address[0], "too many connections from its address had not asked for anything")
        elif len(self._waiting) >= MOST_WAITING:
            self._turn_away(next(iter(self._waiting)), "too many connections had not asked for anything")

    def _go_on(self, waiting: _Waiting) -> None:
        """Take what has come; a whole request is decided at once."""
        try:
            whole = self._read(waiting)
        except _Nonsense:
            with suppress(OSError):
                waiting.connection.send(abort(_BY_PROVIDER, _INVALID_PARAMETER))
            speaks_tls = waiting.received[0] == _TLS_HANDSHAKE
            wrong_port = "it speaks TLS to the port for plain DICOM; correct the port at the sender"
            self._turn_away(waiting, wrong_port if speaks_tls else _NO_REQUEST)
        except ssl.SSLError as error:
            self._turn_away(waiting, in_words(error))
        except OSError:
            self._turn_away(waiting, "the connection broke before it asked for anything")
        else:
            if whole:
                self._decide(waiting)

    def _read(self, waiting: _Waiting) -> bool:
        """Read what is there, and not a byte more than the request; whether it is whole."""
        try:
            if waiting.handshaking:
                assert isinstance(waiting.connection, ssl.SSLSocket)  # noqa: S101 - for the type alone
                waiting.connection.do_handshake()
                waiting.handshaking = False
            while waiting.missing > 0:
                piece = waiting.connection.recv(waiting.missing)
                if not piece:
                    raise ConnectionResetError
                waiting.received += piece
                if waiting.received[0] != _ASSOCIATE_RQ or waiting.missing > MAX_ASSOCIATE_BYTES:
                    raise _Nonsense
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def _decide(self, waiting: _Waiting) -> None:
        try:
            request = read_request(bytes(waiting.received))
            objection = self._objection(waiting, request)
            agreement = agree(request) if objection is None else None
        except BadRequest as bad:
            with suppress(OSError):
                waiting.connection.send(abort(_BY_PROVIDER, _INVALID_PARAMETER))
            self._turn_away(waiting, str(bad))
            return
        if objection is not None or agreement is None:
            assert objection is not None  # noqa: S101 - for the type alone
            with suppress(OSError):
                waiting.connection.send(rejection(objection.result, objection.source, objection.reason))
            kind = f"{objection.result}.{objection.source}.{objection.reason}"
            self._turn_away(waiting, objection.sentence, kind, request.calling_ae)
            return
        self._forget(waiting)
        caller = Caller(request.calling_ae, request.called_ae, waiting.address)
        self._children.start(waiting.connection, agreement, caller, not_theirs=self.close_copies)
        waiting.connection.close()

    def _objection(self, waiting: _Waiting, request: Request) -> Rejection | None:
        """Why this caller may not come in, or not now."""
        if request.refused is not None:
            return Rejection(*request.refused, "it speaks another protocol version or application context")
        shown = ShownCertificate.of(waiting.connection) if isinstance(waiting.connection, ssl.SSLSocket) else None
        claim = Claim(request.calling_ae, request.called_ae, waiting.address, shown)
        return self._door.admit(claim) or self._no_room(waiting, request)

    def _no_room(self, waiting: _Waiting, request: Request) -> Rejection | None:
        """Why there is no place for this caller, who may come in."""
        present, most = self._children.callers, self._settings.max_associations_per_peer
        if len(present) >= self._settings.max_associations:
            return _not_now("there are too many associations at once")
        if sum(caller.address == waiting.address for caller in present) >= most:
            return _not_now("there are too many associations from its address at once")
        if sum(caller.calling_ae == request.calling_ae for caller in present) >= most:
            return _not_now("there are too many associations of its AE title at once")
        if request.stores and self._watermark.is_low():
            return _not_now("the spool has less free space than its reserve; free some and send again")
        return None

    def _let_go_of_the_slow(self) -> None:
        now_s = monotonic_s()
        for waiting in [waiting for waiting in self._waiting if waiting.deadline_s <= now_s]:
            self._turn_away(waiting, "it did not finish its association request in time")

    def _turn_away(self, waiting: _Waiting, sentence: str, kind: str = "", calling_ae: str = "") -> None:
        log.info("association_refused", address=waiting.address)
        fields = {"source_ae": calling_ae or waiting.address, "sentence": sentence}
        self._means.reports.report("association_refused", address=waiting.address, kind=kind, **fields)
        self._let_go(waiting)

    def _let_go(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        waiting.connection.close()

    def _forget(self, waiting: _Waiting) -> None:
        del self._waiting[waiting]
        self._selector.unregister(waiting.connection)

    def close_copies(self) -> None:
        """In a new process: close what belongs to others, so that it ends when they end it."""
        self._selector.close()
        for connection in (*self._doors, *(waiting.connection for waiting in self._waiting)):
            connection.close()


def _not_now(sentence: str) -> Rejection:
    return Rejection(TRANSIENT, BY_PRESENTATION, LOCAL_LIMIT_EXCEEDED, sentence)
