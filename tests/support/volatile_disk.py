"""A disk with a volatile write cache, whose power can be cut: what was written counts only once it was flushed.

It is one file in a FUSE file system of its own, served by a process that speaks the kernel's protocol (linux/fuse.h):
a loop device over it carries a real, journalled ext4. A cut is a copy of what would be on the platter at that moment:
all that was flushed, and of the rest as much as chance would have it. It needs root and /dev/fuse.
"""

import ctypes
import errno
import os
import random
import select
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = 4096
_IN = struct.Struct("<IIQQIIIHxx")
_MAX_WRITE = 1 << 20
_ROOT, _FILE = 1, 2
_ASYNC_READ, _BIG_WRITES, _MAX_PAGES = 1, 1 << 5, 1 << 22
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
_FSYNC, _FLUSH, _INIT, _DESTROY, _BATCH_FORGET, _INTERRUPT = 20, 25, 26, 38, 42, 36


class _Served:
    """The process: one file, its bytes as they are now and as they would be after a cut."""

    def __init__(self, image: Path) -> None:
        self._now = bytearray(image.read_bytes())
        self._durable = bytearray(self._now)
        self._dirty: set[int] = set()
        self._answers: dict[int, Callable[[int, bytes], bytes | int]] = {
            _INIT: self._init,
            _LOOKUP: lambda _node, _body: struct.pack("<QQQQII", _FILE, 0, 3600, 3600, 0, 0) + self._attributes(_FILE),
            _GETATTR: lambda node, _body: struct.pack("<QII", 3600, 0, 0) + self._attributes(node),
            _SETATTR: lambda node, _body: struct.pack("<QII", 3600, 0, 0) + self._attributes(node),
            _OPEN: lambda _node, _body: struct.pack("<QII", 1, 1, 0),  # FOPEN_DIRECT_IO
            _READ: self._read,
            _WRITE: self._write,
            _STATFS: lambda _node, _body: bytes(80),
            _FSYNC: self._flush,
            _FLUSH: lambda _node, _body: b"",
            _RELEASE: lambda _node, _body: b"",
        }

    def serve(self, fuse: int) -> None:
        """Answer the kernel until the file system is unmounted; a line on standard input asks for a cut."""
        while True:
            ready, _, _ = select.select([0, fuse], [], [])
            if 0 in ready:
                line = os.read(0, 4096)
                if not line:
                    return
                self._cut(line)
                continue
            try:
                request = os.read(fuse, _MAX_WRITE + _BLOCK)
            except OSError as error:
                if error.errno in {errno.EAGAIN, errno.EINTR, errno.ENOENT}:
                    continue
                return
            _, code, unique, node, *_ = _IN.unpack_from(request)
            if code in {_FORGET, _BATCH_FORGET, _INTERRUPT}:
                continue
            answer = self._answers.get(code, lambda _node, _body: -errno.ENOSYS)(node, request[_IN.size :])
            body, failure = (b"", answer) if isinstance(answer, int) else (answer, 0)
            os.write(fuse, struct.pack("<IiQ", 16 + len(body), failure, unique) + body)
            if code == _DESTROY:
                return

    def _cut(self, line: bytes) -> None:
        for word in line.decode().split():
            after = bytearray(self._durable)
            share = random.random()
            for block in self._dirty:
                if random.random() < share:
                    place = slice(block * _BLOCK, (block + 1) * _BLOCK)
                    after[place] = self._now[place]
            Path(word).write_bytes(after)
            _say(f"{len(self._dirty)} blocks were not flushed")

    def _init(self, _node: int, body: bytes) -> bytes:
        _, _, readahead, offered = struct.unpack_from("<IIII", body)
        flags = offered & (_ASYNC_READ | _BIG_WRITES | _MAX_PAGES)
        head = struct.pack("<IIIIHHII", 7, 31, readahead, flags, 12, 10, _MAX_WRITE, 1)
        return (head + struct.pack("<HHI", _MAX_WRITE // 4096, 0, 0)).ljust(64, b"\0")

    def _attributes(self, node: int) -> bytes:
        size = len(self._now) if node == _FILE else 0
        mode = stat.S_IFREG | 0o600 if node == _FILE else stat.S_IFDIR | 0o700
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, *[0] * 6, mode, 1, 0, 0, 0, _BLOCK, 0)

    def _read(self, _node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(self._now[offset : offset + size])

    def _write(self, _node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        self._now[offset : offset + size] = body[40 : 40 + size]
        self._dirty.update(range(offset // _BLOCK, -(-(offset + size) // _BLOCK)))
        return struct.pack("<II", size, 0)

    def _flush(self, _node: int, _body: bytes) -> bytes:
        for block in self._dirty:
            place = slice(block * _BLOCK, (block + 1) * _BLOCK)
            self._durable[place] = self._now[place]
        self._dirty.clear()
        return b""


class VolatileDisk:
    """A mounted disk, seen from the test."""

    def __init__(self, mounted: Path, server: "subprocess.Popen[str]") -> None:
        self.mounted = mounted
        self._server = server

    def cut(self, image: Path) -> None:
        """Write what a power cut at this moment would leave to `image`; the disk itself goes on."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{image}\n")
        self._server.stdin.flush()
        assert self._server.stdout.readline()


@contextmanager
def volatile_disk(folder: Path, size_mb: int) -> Iterator[VolatileDisk]:
    """A new journalled ext4 on such a disk."""
    from tests.support.loop_disk import attached, mount  # the process that serves needs none of it

    folder.mkdir()
    image, served = folder / "empty.img", folder / "served"
    served.mkdir()
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
    command = [sys.executable, __file__, image, served]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "mounted\n", "no FUSE file system can be mounted"
            with attached(served / "disk", direct=False) as device, mount(device, folder / "mounted"):
                yield VolatileDisk(folder / "mounted", server)
        finally:
            subprocess.run(["umount", "--lazy", served], check=False, capture_output=True)
            server.kill()


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _main(image: Path, folder: Path) -> None:
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if ctypes.CDLL(None, use_errno=True).mount(b"volatile", bytes(folder), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    _say("mounted")
    _Served(image).serve(fuse)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
