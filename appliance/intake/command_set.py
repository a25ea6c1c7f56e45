"""DIMSE command sets (PS3.7 §6.3.1, Annex E): elements of group 0000 in Implicit VR Little Endian, read and written.

They are read as they stand. What is in them is a claim until somebody has looked at it.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.dicom.uid import is_valid_uid

LARGEST_BYTES = 1 << 14
"""A command set is a few hundred bytes long; more is no command set."""

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, N_EVENT_REPORT_RQ, N_ACTION_RQ = 0x0001, 0x0030, 0x0FFF, 0x0100, 0x0130
RESPONSE = 0x8000
"""Added to a request's command field by its response."""

NO_DATA_SET = 0x0101
"""Command Data Set Type of a message without one."""

AFFECTED_CLASS, REQUESTED_CLASS, COMMAND_FIELD, MESSAGE_ID, RESPONDED_TO = 0x0002, 0x0003, 0x0100, 0x0110, 0x0120
DATA_SET_TYPE, STATUS = 0x0800, 0x0900
AFFECTED_INSTANCE, REQUESTED_INSTANCE, EVENT_TYPE, ACTION_TYPE = 0x1000, 0x1001, 0x1002, 0x1008
_NUMBERS = {EVENT_TYPE, ACTION_TYPE}
_ELEMENT = struct.Struct("<HHI")


class MalformedCommand(ValueError):
    """What came is no command set that can be answered."""


@dataclass(frozen=True, slots=True)
class Command:
    """A request as it came.

    Attributes:
        field: which one, Command Field.
        message_id: to be repeated in the response.
        has_data_set: whether a data set follows.
        values: all elements by their number in group 0000.
    """

    field: int
    message_id: int
    has_data_set: bool
    values: dict[int, bytes]

    @classmethod
    def read(cls, encoded: bytes) -> "Command":
        """Read a command set.

        Raises:
            MalformedCommand: it breaks off, or lacks what every request has.
        """
        values: dict[int, bytes] = {}
        at = 0
        while at < len(encoded):
            if at + 8 > len(encoded):
                raise MalformedCommand("an element of the command set breaks off")
            group, element, length = _ELEMENT.unpack_from(encoded, at)
            at += 8 + length
            if group != 0 or at > len(encoded):
                raise MalformedCommand("an element does not belong to the command set, or breaks off")
            values[element] = encoded[at - length : at]
        try:
            field, message_id, kind = (
                int.from_bytes(values[element], "little") for element in (COMMAND_FIELD, MESSAGE_ID, DATA_SET_TYPE)
            )
        except KeyError as missing:
            raise MalformedCommand("the command set lacks its field, message ID or data set type") from missing
        if max(field, message_id, kind) > 0xFFFF:
            raise MalformedCommand("a number of the command set is too large")
        return cls(field, message_id, kind != NO_DATA_SET, values)

    def uid(self, element: int) -> str:
        """A UID without its padding, as it came; what is no ASCII is replaced."""
        return self.values.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")

    def number(self, element: int) -> int:
        """A number of two bytes; 0 when it is not there."""
        return int.from_bytes(self.values.get(element, b"")[:2], "little")

    def response(self, status: int, repeated: Iterable[int]) -> bytes:
        """The command set that answers this request, with some of its elements in it again.

        A UID that is none is not repeated: whoever sent it may not be able to read it.
        """
        elements = {element: self.values[element] for element in repeated if self._may_be_repeated(element)}
        elements[COMMAND_FIELD] = struct.pack("<H", self.field | RESPONSE)
        elements[RESPONDED_TO] = struct.pack("<H", self.message_id)
        elements[DATA_SET_TYPE] = struct.pack("<H", NO_DATA_SET)
        elements[STATUS] = struct.pack("<H", status)
        body = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in sorted(elements.items()))
        return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body

    def _may_be_repeated(self, element: int) -> bool:
        return element in self.values and (element in _NUMBERS or is_valid_uid(self.uid(element)))
