"""One object on its way into the spool: written while it arrives, and kept by one flush where there is a slot for it.

The bytes are received straight into the entry's buffer, behind the File Meta Information, so nothing is copied before
it is written. The first page is written last: it holds the frame by which the whole is told from the torn.
"""

import os
import secrets
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

import xxhash

from appliance.clock import epoch_ns
from appliance.spool.durable import sync_folder
from appliance.spool.frame import PREAMBLE_BYTES, Frame
from appliance.spool.slots import PAGE, SlotPool

PIECE = 1 << 18
"""Bytes that are written at once while the rest is still on its way, and the most that `room` can give."""

_BUFFER = 4 * PIECE
_LARGEST_AHEAD = 64
"""What a reader may ask for beyond a piece: the headers of what follows."""


class Buffer:
    """The memory of one receiver, used for one entry after another."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_BUFFER))


class Entry(ABC):
    """An object that is being received.

    Args:
        buffer: memory to receive into; nobody else's until the entry is kept or dropped.
        file_meta: DICM and File Meta Information, for behind the preamble.
    """

    def __init__(self, buffer: Buffer, file_meta: bytes) -> None:
        self._view = buffer.view
        self._data_set_at = PREAMBLE_BYTES + len(file_meta)
        self._view[:PREAMBLE_BYTES] = bytes(PREAMBLE_BYTES)
        self._view[PREAMBLE_BYTES : self._data_set_at] = file_meta
        self._base = 0  # where in the file the buffer begins, a multiple of the page
        self._fill = self._data_set_at  # bytes in the buffer
        self._written = 0  # of those, in the file; page 0 counts as written, though it comes last
        self._hashed = self._fill
        self._hash = xxhash.xxh3_128()
        self._refusal: OSError | None = None
        self._first_page: memoryview | bytes = self._view[:PAGE]

    @property
    def data_set_bytes(self) -> int:
        """How much of the data set has come."""
        return self._base + self._fill - self._data_set_at

    @property
    def digest(self) -> bytes:
        """xxh3-128 of the data set, once it is whole."""
        return self._hash.digest()

    def room(self, count: int) -> memoryview:
        """Where the next `count` bytes go, no more than a piece and a header; they count once `advance` says so."""
        if self._fill + count > len(self._view):
            self._write(self._fill // PAGE * PAGE)
            self._shift()
        return self._view[self._fill : self._fill + count]

    def advance(self, count: int) -> None:
        """Take so many bytes of the room as part of the data set."""
        self._fill += count
        if self._fill - self._written >= PIECE + PAGE:
            self._write(self._fill // PAGE * PAGE)

    def keep(self) -> None:
        """Make the object durable: when this returns, a power cut cannot lose it.

        Raises:
            OSError: the disk refused; nothing is kept and nothing is visible.
        """
        try:
            if self._refusal is not None:
                raise self._refusal
            self._digest_up_to(self._fill)
            length, received_ns = self._base + self._fill, epoch_ns()
            frame = Frame(length, received_ns, self._data_set_at, self.digest)
            self._finish(frame)
        except OSError:
            self.abandon()
            raise

    @abstractmethod
    def drop(self) -> None:
        """Leave nothing of an object that did not come whole."""

    @abstractmethod
    def abandon(self) -> None:
        """Leave nothing of an object that the disk refused."""

    @abstractmethod
    def _finish(self, frame: Frame) -> None:
        """Write what is left, and make all of it durable."""

    @property
    @abstractmethod
    def _descriptor(self) -> int:
        """To write with."""

    def _write(self, end: int) -> None:
        """Write the buffer up to `end`, but for page 0 of the file."""
        begin = max(self._written, PAGE) if self._base == 0 else self._written
        self._digest_up_to(min(end, self._fill))
        if end > begin:
            self._written = end
            try:
                if self._refusal is None:
                    _write_at(self._descriptor, self._view[begin:end], self._base + begin)
            except OSError as refusal:  # what comes is read to its end all the same; `keep` says that it was in vain
                self._refusal = refusal

    def _write_rest(self, end: int) -> None:
        self._write(end)
        if self._refusal is not None:
            raise self._refusal

    def _write_first_page(self, frame: Frame, end: int) -> None:
        page = bytearray(self._first_page)
        page[:PREAMBLE_BYTES] = frame.preamble(bytes(page[PREAMBLE_BYTES : self._data_set_at]))
        _write_at(self._descriptor, memoryview(page)[:end], 0)

    def _digest_up_to(self, end: int) -> None:
        if end > self._hashed:
            self._hash.update(self._view[self._hashed : end])
            self._hashed = end

    def _shift(self) -> None:
        """Begin the buffer anew with what is not written yet, less than a page."""
        if self._base == 0:
            self._first_page = bytes(self._first_page)
        left = self._fill - self._written
        self._view[:left] = self._view[self._written : self._fill]
        self._base += self._written
        self._hashed -= self._written
        self._fill, self._written = left, 0


class SlotEntry(Entry):
    """An object in a slot: one flush and it is kept."""

    def __init__(self, buffer: Buffer, file_meta: bytes, pool: SlotPool, claimed: tuple[int, int]) -> None:
        super().__init__(buffer, file_meta)
        self._pool = pool
        self._number, self._slot = claimed

    @property
    def _descriptor(self) -> int:
        return self._slot

    def _finish(self, frame: Frame) -> None:
        padded = -(-self._fill // PAGE) * PAGE  # a part of a page would have to be read before it could be written
        self._view[self._fill : padded] = bytes(padded - self._fill)
        self._write_rest(padded)
        self._write_first_page(frame, PAGE)
        os.fdatasync(self._slot)
        os.close(self._slot)
        self._pool.filled(self._number)

    def drop(self) -> None:
        """Free the slot: what is in it has no frame. One that has grown is made anew."""
        grown = os.fstat(self._slot).st_size != self._pool.slot_bytes
        os.close(self._slot)
        if grown:
            self._pool.spoil(self._number)
        else:
            self._pool.give_back(self._number)

    def abandon(self) -> None:
        """Have the slot made anew."""
        os.close(self._slot)
        self._pool.spoil(self._number)


class FileEntry(Entry):
    """An object in a file of its own, for when there is no slot: two flushes and a change of names."""

    def __init__(self, buffer: Buffer, file_meta: bytes, temporary: Path, arrivals: Path) -> None:
        super().__init__(buffer, file_meta)
        self._temporary, self._arrivals = temporary / f"{secrets.token_hex(8)}.dcm", arrivals
        self._file = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self.path: Path | None = None

    @property
    def _descriptor(self) -> int:
        return self._file

    def _finish(self, frame: Frame) -> None:
        self._write_rest(self._fill)
        self._write_first_page(frame, min(frame.length, PAGE))
        os.fsync(self._file)
        os.close(self._file)
        self.path = self._arrivals / arrival_name(frame.received_ns)
        self._temporary.rename(self.path)
        sync_folder(self._arrivals)

    def drop(self) -> None:
        """Remove the file."""
        os.close(self._file)
        self._temporary.unlink()

    def abandon(self) -> None:
        """Remove the file, whichever of its names it has by now."""
        with suppress(OSError):
            os.close(self._file)
        for path in (self._temporary, self.path):
            if path is not None:
                path.unlink(missing_ok=True)


class Discarded(Entry):
    """An object that is refused: it is read, as the protocol wants it, and goes nowhere."""

    def __init__(self, buffer: Buffer) -> None:
        super().__init__(buffer, b"")

    @property
    def _descriptor(self) -> int:
        raise NotImplementedError

    def _write(self, end: int) -> None:
        self._written = self._hashed = min(end, self._fill)

    def _finish(self, frame: Frame) -> None:
        """Keep nothing."""

    def drop(self) -> None:
        """There is nothing to drop."""

    def abandon(self) -> None:
        """There is nothing to abandon."""


def arrival_name(received_ns: int) -> str:
    """The name of an arrival: when it came, and a random part. It is ours, and sorts by time."""
    return f"{received_ns:020d}-{secrets.token_hex(4)}.dcm"


def _write_at(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
