"""A sender of a few lines: PDUs on a socket, as fast as the machine allows, and exactly as it is told."""

import random
import socket
import struct
from types import TracebackType
from typing import Self

from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

_ECHO, _STORE = 0x0030, 0x0001
_PDU_BYTES = 1 << 17
_CONTEXTS = {1: Verification, 3: CTImageStorage}


def association_request(calling_ae: str = "FAKEPACS", called_ae: str = "DELINEATE") -> bytes:
    """An A-ASSOCIATE-RQ for echo on context 1 and CT images on context 3."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title, primitive.called_ae_title = calling_ae, called_ae
    contexts = [build_context(uid, ExplicitVRLittleEndian) for uid in _CONTEXTS.values()]
    for context, number in zip(contexts, _CONTEXTS, strict=True):
        context.context_id = number
    primitive.presentation_context_definition_list = contexts
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received, implementation.implementation_class_uid = _PDU_BYTES, UID("1.2.3")
    primitive.user_information = [longest, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


_REQUEST = association_request()


def content_of(uid: str, largest: int = 200_000) -> bytes:
    """What is sent under a UID: always the same bytes, other ones for each; now and then more than a slot holds."""
    dice = random.Random(uid)
    return dice.randbytes(dice.randint(1, largest))


class BarePeer:
    """One association with the appliance on `port`.

    Raises:
        OSError: it was not accepted, or broke off; so do its methods.
    """

    def __init__(self, port: int, request: bytes = _REQUEST) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        try:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.sendall(request)
            answer = self._pdu()
        except OSError:
            self._connection.close()
            raise
        if answer[0] != 0x02:
            self._connection.close()
            raise ConnectionRefusedError(f"the answer was {answer.hex()}")

    def echo(self) -> int:
        """C-ECHO; the status."""
        self._connection.sendall(_message(1, _command(_ECHO, Verification)))
        return self._status()

    def store(self, uid: str, content: bytes | None = None, *, sop_class: str = CTImageStorage) -> int:
        """C-STORE of what belongs to the UID, or of these bytes; the status."""
        content = content_of(uid) if content is None else content
        parts = [_message(3, _command(_STORE, sop_class, uid))]
        for start in range(0, len(content), _PDU_BYTES - 6):
            piece = content[start : start + _PDU_BYTES - 6]
            is_last = start + len(piece) == len(content)
            parts.append(struct.pack(">BxIIBB", 4, len(piece) + 6, len(piece) + 2, 3, 2 * is_last) + piece)
        self._connection.sendall(b"".join(parts))
        return self._status()

    def begin_and_stop(self, uid: str) -> None:
        """A C-STORE of which the last byte never comes."""
        content = content_of(uid)[:1000]
        head = struct.pack(">BxIIBB", 4, len(content) + 7, len(content) + 3, 3, 2)
        self._connection.sendall(_message(3, _command(_STORE, CTImageStorage, uid)) + head + content)

    def release(self) -> None:
        """A-RELEASE, both ways."""
        self._connection.sendall(struct.pack(">BxIxxxx", 5, 4))
        self._pdu()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def _status(self) -> int:
        pdu = self._pdu()
        if pdu[0] != 0x04:
            raise ConnectionAbortedError(f"the answer was {pdu.hex()}")
        at = pdu.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8
        return int.from_bytes(pdu[at : at + 2], "little")

    def _pdu(self) -> bytes:
        head = self._exactly(6)
        return head + self._exactly(int.from_bytes(head[2:], "big"))

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            piece = self._connection.recv(count - len(received))
            if not piece:
                raise ConnectionResetError("closed")
            received += piece
        return received


def _command(field: int, sop_class: str, uid: str | None = None) -> bytes:
    """A request's command set."""
    elements = [
        (0x0002, _padded(sop_class)),
        (0x0100, struct.pack("<H", field)),
        (0x0110, struct.pack("<H", 1)),
        (0x0800, struct.pack("<H", 0x0101 if uid is None else 0x0001)),
    ]
    if uid is not None:
        elements += [(0x0700, struct.pack("<H", 2)), (0x1000, _padded(uid))]
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in sorted(elements))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _message(context_id: int, command: bytes) -> bytes:
    return struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, context_id, 3) + command
