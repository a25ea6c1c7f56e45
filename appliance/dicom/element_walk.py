"""Elements of a DICOM data set, found by walking its bytes; a sequence is opened only when somebody asks for it.

A structure set holds thousands of small items. Walking them takes a fraction of the time that a general library
takes to build an object for each element. Explicit and implicit VR, both byte orders, defined and undefined lengths
(PS3.5 §7). Whatever the bytes hold, nothing but `Damaged` is raised.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pydicom.datadict import tag_for_keyword

MAX_DEPTH = 16  #: sequences within sequences; a structure set needs five
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT_FORM = {*b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()}


class Damaged(ValueError):
    """The bytes are no DICOM elements; the message says why, for the second half of a sentence."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written: with their value representation or without, and in which byte order."""

    implicit: bool
    order: str = "<"


IMPLICIT_LITTLE = Encoding(implicit=True)
EXPLICIT_LITTLE = Encoding(implicit=False)
EXPLICIT_BIG = Encoding(implicit=False, order=">")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies in the file, its length right before it.

    Attributes:
        start: its first byte.
        stop: the byte after its last one, a delimiter included.
        length_bytes: how many bytes before `start` hold its length; 0 where the length is undefined.
        encoding: how items in it are written.
    """

    start: int
    stop: int
    length_bytes: int
    encoding: Encoding


class DataSet:
    """One data set, or one item of a sequence.

    Attributes:
        place: where its elements lie in the file.
    """

    __slots__ = ("_content", "_depth", "_places", "place")

    def __init__(self, content: bytes, places: Mapping[int, Place], place: Place, depth: int) -> None:
        self.place = place
        self._content = content
        self._places = places
        self._depth = depth

    def __contains__(self, keyword: str) -> bool:
        return tag_of(keyword) in self._places

    def untouched(self, keyword: str) -> bytes:
        """Return the bytes of an element as they stand in the file; empty when it is absent."""
        place = self._places.get(tag_of(keyword))
        return b"" if place is None else self._content[place.start : place.stop]

    def raw(self, keyword: str) -> bytes:
        """Return the bytes of an element without padding; empty when it is absent or empty."""
        return self.untouched(keyword).strip(b" \0")

    def ascii(self, keyword: str) -> str:
        """Return the value of an element that holds plain characters, such as a UID or a code."""
        return self.raw(keyword).decode("latin-1")

    def unsigned(self, keyword: str) -> int:
        """Return a binary whole number (value representation US or UL); 0 when it is absent or empty."""
        return int.from_bytes(self.untouched(keyword), "little" if self.place.encoding.order == "<" else "big")

    def place_of(self, keyword: str) -> Place | None:
        """Return where the value of an element lies in the file; None when it is absent."""
        return self._places.get(tag_of(keyword))

    def items(self, keyword: str) -> list["DataSet"]:
        """Return the items of a sequence; none when it is absent.

        Raises:
            Damaged: the element holds no items.
        """
        place = self._places.get(tag_of(keyword))
        if place is None:
            return []
        found = []
        at = place.start
        while at < place.stop:
            tag, length, at = _item_head(self._content, at, place.stop, place.encoding.order)
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise Damaged(f"{keyword} holds something else than items")
            stop = place.stop if length == _UNDEFINED else at + length
            if stop > place.stop:
                raise Damaged(f"it ends within {keyword}")
            open_end = length == _UNDEFINED
            places, end = _walk(self._content, at, stop, place.encoding, self._depth + 1, delimited=open_end)
            item = Place(at, end, 0 if open_end else 4, place.encoding)
            found.append(DataSet(self._content, places, item, self._depth + 1))
            at = end
        return found


def read_data_set(content: bytes, start: int, stop: int, encoding: Encoding) -> DataSet:
    """Find the elements between two places of a file.

    Raises:
        Damaged: the bytes are no elements, an element occurs twice, or one ends after the bytes do.
    """
    places, _ = _walk(content, start, stop, encoding, 0)
    return DataSet(content, places, Place(start, stop, 0, encoding), 0)


def end_of_meta(content: bytes, start: int) -> int:
    """Return where File Meta Information ends, which is explicit little endian whatever follows it (PS3.10 §7.1).

    Raises:
        Damaged: it is no such information.
    """
    at = start
    while content[at : at + 2] == b"\x02\0":
        tag, length, value, _ = _head(content, at, len(content), EXPLICIT_LITTLE)
        if length == _UNDEFINED:
            raise Damaged(f"element (0002,{tag & 0xFFFF:04X}) has no length")
        at = value + length
    return at


@cache
def tag_of(keyword: str) -> int:
    """Return the tag of an element.

    Raises:
        KeyError: the data dictionary does not know it.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)


def _walk(
    content: bytes, at: int, stop: int, encoding: Encoding, depth: int, *, delimited: bool = False
) -> tuple[dict[int, Place], int]:
    """Note where each element lies up to `stop`, or up to the end of an item of undefined length."""
    if depth > MAX_DEPTH:
        raise Damaged(f"its sequences are nested more than {MAX_DEPTH} deep")
    places: dict[int, Place] = {}
    while at < stop:
        head = at
        tag, length, start, inner = _head(content, at, stop, encoding)
        if tag == _ITEM_END and delimited:
            return places, start
        if tag >> 16 == 0xFFFE or tag in places:
            raise Damaged(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) stands where it cannot, or twice")
        at = _end_of_items(content, start, stop, inner, depth + 1) if length == _UNDEFINED else start + length
        if at > stop:
            raise Damaged(f"it ends within element ({tag >> 16:04X},{tag & 0xFFFF:04X})")
        short_form = not encoding.implicit and start - head == 8
        places[tag] = Place(start, at, 0 if length == _UNDEFINED else 2 if short_form else 4, inner)
    if delimited:
        raise Damaged("an item has no end")
    return places, at


def _head(content: bytes, at: int, stop: int, encoding: Encoding) -> tuple[int, int, int, Encoding]:
    """Return tag, length of the value, where the value begins, and how items in it are written."""
    if at + 8 > stop:
        raise Damaged("it ends within an element")
    group, element, length = struct.unpack_from(encoding.order + "HHL", content, at)
    tag = group << 16 | element
    if encoding.implicit or group == 0xFFFE:
        return tag, length, at + 8, encoding
    vr = content[at + 4 : at + 6]
    if vr in _SHORT_FORM:
        return tag, struct.unpack_from(encoding.order + "H", content, at + 6)[0], at + 8, encoding
    if vr not in _LONG_FORM:
        raise Damaged(f"element ({group:04X},{element:04X}) has no known value representation")
    if at + 12 > stop:
        raise Damaged("it ends within an element")
    # PS3.5 §6.2.2: the items of an element of unknown representation are written without representations
    inner = IMPLICIT_LITTLE if vr == b"UN" else encoding
    return tag, struct.unpack_from(encoding.order + "L", content, at + 8)[0], at + 12, inner


def _item_head(content: bytes, at: int, stop: int, order: str) -> tuple[int, int, int]:
    if at + 8 > stop:
        raise Damaged("it ends within a sequence")
    group, element, length = struct.unpack_from(order + "HHL", content, at)
    return group << 16 | element, length, at + 8


def _end_of_items(content: bytes, at: int, stop: int, encoding: Encoding, depth: int) -> int:
    """Return where a sequence of undefined length ends, its delimiter included."""
    while True:
        tag, length, at = _item_head(content, at, stop, encoding.order)
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise Damaged("a sequence holds something else than items")
        if length == _UNDEFINED:
            _, at = _walk(content, at, stop, encoding, depth, delimited=True)
        else:
            at += length
