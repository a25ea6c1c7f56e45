"""Slots: files of zeros that are on the disk before anybody needs them, so that keeping an object takes one flush.

Overwriting blocks that the file system has allocated and written before changes no metadata: one fdatasync and no
commit of the journal (docs/adr/0025). A slot is used once. When an object is in it, the file leaves the pool for
`arrivals/` as it is, and a new one takes its number.

The processes of the listener share a pool by fork: what became of each slot stands in shared memory, free numbers lie
in a pipe, and every number is at any time with one process alone.
"""

import fcntl
import mmap
import os
import re
from contextlib import suppress
from pathlib import Path

from appliance.spool.durable import make_folder, sync_folder, write_all
from appliance.spool.frame import whole_frame

ABSENT, FREE, FILLED, ORPHANED, SPOILED = 0, -1, -2, -3, -4
"""What a slot is; a positive number is the process that has claimed it."""

PAGE = 4096
_LARGEST_SHARE = 0.05
"""Of the space that is free above the reserve."""

_NAME = re.compile(r"[0-9]{4}\.slot")
_ZEROS = bytes(1 << 17)


class SlotPool:
    """The slots of one listener.

    Args:
        folder: where they lie, on the file system of the spool.
        slots: how many there may be, 9999 at most.
        slot_bytes: how long each is, a multiple of the page.
    """

    def __init__(self, folder: Path, slots: int, slot_bytes: int) -> None:
        self._folder = folder
        self._root = str(folder)  # a path made anew for each object would cost as much as opening it
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._states = memoryview(mmap.mmap(-1, max(slots, 1) * 4)).cast("i")
        self._free, self._give = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = -1
        make_folder(folder)

    def path(self, number: int) -> Path:
        """Where a slot lies."""
        return self._folder / f"{number:04d}.slot"

    def lock(self) -> bool:
        """Make this the only listener on the spool; False as long as a process of another one lives.

        All that is forked from here holds the lock too: no slot is taken as free while a child of a listener that was
        killed may still write to it.
        """
        if self._lock < 0:
            self._lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Let another listener have the spool, once all that was forked from here has ended."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def recover(self, free_mb: int) -> list[int]:
        """Take stock after a start: numbers that hold a whole object; the rest is free, or removed if it does not fit.

        Args:
            free_mb: MiB free above the reserve; the pool takes no large share of a small disk.
        """
        filled = []
        self.slots = min(self.slots, int(free_mb * _LARGEST_SHARE) * (1 << 20) // self.slot_bytes)
        for path in sorted(self._folder.iterdir()):
            number = int(path.stem) if _NAME.fullmatch(path.name) else -1
            if number >= 0 and whole_frame(path) is not None:
                filled.append(number)
            elif 0 <= number < self.slots and path.stat().st_size == self.slot_bytes:
                self._give_out(number)
            elif path.name != ".lock":
                path.unlink()
        return filled

    def claim(self) -> tuple[int, int] | None:
        """Take a free slot for this process: its number and a descriptor to write with; None when there is none."""
        while True:
            try:
                number = int.from_bytes(os.read(self._free, 4), "little")
            except BlockingIOError:
                return None
            self._states[number] = os.getpid()
            try:
                return number, os.open(f"{self._root}/{number:04d}.slot", os.O_WRONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._became(number, ABSENT)

    def filled(self, number: int) -> None:
        """Say that a whole object is durable in a slot."""
        self._became(number, FILLED)

    def give_back(self, number: int) -> None:
        """Free a slot that was claimed in vain; whatever was written to it, it holds no frame."""
        self._give_out(number)

    def spoil(self, number: int) -> None:
        """Have a slot removed in which nobody can know what the disk holds: its flush failed."""
        self._became(number, SPOILED)

    def left_by(self, process: int) -> None:
        """Take back what an ended process had claimed."""
        for number, state in enumerate(self._states.tolist()):
            if state == process:
                self._became(number, ORPHANED)

    def numbers(self, state: int, most: int | None = None) -> list[int]:
        """The slots that are in a state, or the first so many of them."""
        states = self._states.tolist()[: self.slots]
        found: list[int] = []
        number = -1
        with suppress(ValueError):
            while most is None or len(found) < most:
                number = states.index(state, number + 1)
                found.append(number)
        return found

    def count(self, state: int) -> int:
        """How many slots are in a state."""
        return self._states.tolist()[: self.slots].count(state)

    def settle_orphans(self) -> None:
        """Decide what became of slots whose process died: filled, when a whole object is in it, or free."""
        for number in self.numbers(ORPHANED):
            try:
                whole = whole_frame(self.path(number)) is not None
            except FileNotFoundError:
                self._states[number] = ABSENT
            else:
                self._states[number] = FILLED if whole else SPOILED
        for number in self.numbers(SPOILED):
            self.path(number).unlink(missing_ok=True)
            self._states[number] = ABSENT

    def gone(self, number: int) -> None:
        """Say that the file of a slot has left the pool; it may be one of a larger pool of before."""
        if number < len(self._states):
            self._states[number] = ABSENT

    def refill(self, numbers: list[int]) -> None:
        """Make slots of these numbers, durable with their names, and free.

        Raises:
            OSError: the disk refused; what was not made whole is removed.
        """
        try:
            for number in numbers:
                self._make(self.path(number))
            sync_folder(self._folder)
        except OSError:
            for number in numbers:
                self.path(number).unlink(missing_ok=True)
            raise
        for number in numbers:
            self._give_out(number)

    def _make(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            for start in range(0, self.slot_bytes, len(_ZEROS)):
                write_all(descriptor, memoryview(_ZEROS)[: self.slot_bytes - start])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _give_out(self, number: int) -> None:
        self._states[number] = FREE
        os.write(self._give, number.to_bytes(4, "little"))

    def _became(self, number: int, state: int) -> None:
        self._states[number] = state
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake, b".")
