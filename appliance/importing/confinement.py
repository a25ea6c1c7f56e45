"""A process that reads what strangers made gives up what it does not need: time, memory, the network, other programs.

This is the second line. The first is that nothing of a model is executed; should a parser or a native library have a
hole, the process that falls through it has no network and few means.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_FORBIDDEN = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.sendto",
    "subprocess.Popen",
    "urllib.Request",
)
"""Events of Python's audit hooks (PEP 578) that no conversion has a use for."""


@dataclass(frozen=True)
class Limits:
    """What a conversion may use.

    Attributes:
        memory_bytes: address space, files that are mapped into it included.
        cpu_s: CPU-seconds of all its threads.
        wall_s: seconds until it is ended from outside.
        file_bytes: the largest file that it may write.
        processes: processes and threads of its user; the system does not count those of root.
    """

    memory_bytes: int = 48 * 2**30
    cpu_s: int = 4 * 3600
    wall_s: float = 2 * 3600.0
    file_bytes: int = 8 * 2**30
    processes: int = 4096


class ForbiddenByConfinement(BaseException):
    """Something in the process asked for another program or the network. Not an `Exception`: nobody may catch it."""


def confine(limits: Limits) -> list[str]:
    """Set the limits on this process, for good; before any other thread is started.

    Returns:
        Sentences: what it is kept from, and what it could not be kept from on this system.
    """
    for limit, wanted in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    said = ["limits on memory, CPU time, written files and processes"]
    if os.geteuid() == 0:
        said.append("not limited in its number of processes: it ran as root, for whom the system does not count")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # should memory run out, this process goes first
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Root may have a network namespace for the asking; others need a user namespace around it.
    if libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        said.append("no network: a network namespace of its own, with nothing in it")
    else:
        reason = os.strerror(ctypes.get_errno())
        said.append(f"not cut off from the network by the system ({reason}); only Python's own calls are refused")
    return said


def forbid_programs_and_network() -> str:
    """From now on, Python code of this process that starts a program or opens a connection ends it."""

    def hook(event: str, _: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN:
            raise ForbiddenByConfinement(event)

    sys.addaudithook(hook)
    return "no other programs, no connections: Python's calls for them end the conversion"
