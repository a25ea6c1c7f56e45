"""P-DATA-TF, cut into the fragments of messages (PS3.8 §9.3.5, Annex E), and the PDUs that end an association.

A declared length is compared with what was negotiated before a byte behind it is read, and nothing is set aside for it.
"""

import struct
from dataclasses import dataclass

from appliance.intake.negotiation import MAX_PDU_BYTES
from appliance.intake.wire import ConnectionLost, Wire
from appliance.spool.entry import PIECE, Entry

P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 0x04, 0x05, 0x06, 0x07
_KNOWN = range(0x01, 0x08)
_HEADERS = struct.Struct(">BxIIBB")
_PDU_HEADER_BYTES = 6
_ITEM_HEADER_BYTES = 6
_TOLERATED_BYTES = 12
"""Senders differ in what they count as part of the maximum length."""


class Released(Exception):
    """The peer wants to end the association in good order."""


class Aborted(Exception):
    """The peer has ended the association."""


class Violation(Exception):
    """What came breaks the protocol: the association ends with an A-ABORT of the provider.

    Attributes:
        reason: of PS3.8 Table 9-26.
    """

    NOT_SPECIFIED, UNRECOGNIZED, UNEXPECTED, INVALID = 0, 1, 2, 6

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fragment:
    """The head of one presentation data value: whose it is, and how many bytes follow."""

    context_id: int
    is_command: bool
    is_last: bool
    length: int


class Fragments:
    """Reads one fragment after another: `head`, then its body by `body` or `body_into`."""

    def __init__(self, wire: Wire) -> None:
        self.waiting = False  #: whether nothing of a message has come yet
        self._wire = wire
        self._headers = memoryview(bytearray(_HEADERS.size))
        self._ahead = 0  # bytes of the headers that were read with the last body
        self._left = 0  # bytes of the P-DATA-TF that are still to come

    def head(self, *, of_message: bool) -> Fragment:
        """The head of the next fragment.

        Args:
            of_message: whether it is the first of a message; only there may an association be released.

        Raises:
            Released, Aborted, Violation, ConnectionLost: there will be no further fragment.
        """
        if self._left == 0:
            self._begin_pdu(of_message=of_message)
        else:
            self._read(self._headers[_PDU_HEADER_BYTES:])
        _, _, item_length, context_id, control = _HEADERS.unpack(self._headers)
        if not 2 <= item_length <= self._left - 4:
            raise Violation(Violation.INVALID)
        self._left -= 4 + item_length
        return Fragment(context_id, bool(control & 1), bool(control & 2), item_length - 2)

    def body(self, fragment: Fragment) -> bytes:
        """The bytes of a short fragment; the caller has looked at its length."""
        body = bytearray(fragment.length)
        self._read(memoryview(body))
        return bytes(body)

    def body_into(self, entry: Entry, fragment: Fragment) -> None:
        """Receive the bytes of a fragment into an entry, and with them the headers that must follow.

        Raises:
            ConnectionLost: it broke off.
        """
        left = fragment.length
        while left > PIECE:
            self._read(entry.room(PIECE))
            entry.advance(PIECE)
            left -= PIECE
        ahead = _HEADERS.size if self._left == 0 and not fragment.is_last else 0
        view = entry.room(left + ahead)
        got = self._wire.read_into(view)
        if got < left:
            raise ConnectionLost("closed within a fragment")
        self._ahead = got - left
        self._headers[: self._ahead] = view[left:got]
        entry.advance(left)

    def _begin_pdu(self, *, of_message: bool) -> None:
        if self._ahead == 0 and of_message:  # it may be a release, which is shorter than both headers
            self.waiting = True
            self._read(self._headers[:_PDU_HEADER_BYTES])
            self.waiting = False
            self._ahead = _PDU_HEADER_BYTES
        elif self._ahead == 0:
            self._ahead = self._wire.read_into(self._headers)
        if self._ahead < _PDU_HEADER_BYTES:
            raise ConnectionLost("closed within a PDU")
        kind, length = self._headers[0], int.from_bytes(self._headers[2:_PDU_HEADER_BYTES], "big")
        if kind != P_DATA:
            self._end(kind, length, of_message=of_message)
        if not _ITEM_HEADER_BYTES <= length <= MAX_PDU_BYTES + _TOLERATED_BYTES:
            raise Violation(Violation.INVALID)
        self._read(self._headers[self._ahead :])
        self._ahead, self._left = 0, length

    def _end(self, kind: int, length: int, *, of_message: bool) -> None:
        if kind == ABORT:
            raise Aborted
        if kind not in _KNOWN:
            raise Violation(Violation.UNRECOGNIZED)
        if kind != RELEASE_RQ or not of_message:
            raise Violation(Violation.UNEXPECTED)
        if length != 4:
            raise Violation(Violation.INVALID)
        self._read(memoryview(bytearray(length)))
        raise Released

    def _read(self, view: memoryview) -> None:
        if len(view) and self._wire.read_into(view) < len(view):
            raise ConnectionLost("closed")
