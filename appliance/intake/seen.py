"""What came lately under which SOP Instance UID: enough to tell a sender that it has sent something else before.

It needs no database: a table of fixed size in memory that the processes of the listener share by fork. Whether two
contents are one image in the end is for the assembler to say (arrivals.py), for all time and from the rows.
"""

import mmap

import xxhash

_PLACES = 1 << 16
"""Some two hundred series; a newcomer takes the place of what was there."""


class Seen:
    """Remembers the first content of each instance."""

    def __init__(self) -> None:
        self._table = memoryview(mmap.mmap(-1, _PLACES * 16)).cast("Q")

    def came_otherwise(self, sop_instance_uid: str, syntax: str, digest: bytes) -> bool:
        """Whether this instance came before, in the same transfer syntax, with other bytes; remembers it if not.

        In another transfer syntax other bytes say nothing about the image.
        """
        key = xxhash.xxh3_64_intdigest(f"{sop_instance_uid}\0{syntax}".encode()) | 1
        place = (key >> 1) % _PLACES * 2
        content = int.from_bytes(digest[:8], "little")
        if self._table[place] == key:
            return self._table[place + 1] != content
        self._table[place], self._table[place + 1] = 0, content  # no other process may see half of it
        self._table[place] = key
        return False
