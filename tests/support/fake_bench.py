"""A bench that behaves as it is told, run as a process of its own: `python fake_bench.py BEHAVIOUR LEASE`."""

import json
import os
import signal
import sys
import time
from typing import Any


def say(**fields: Any) -> None:
    """One report."""
    os.write(1, json.dumps(fields).encode() + b"\n")


def behave(what: str, order: dict[str, Any]) -> None:
    """What becomes of one order."""
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "exit":
        os._exit(3)
    elif what == "hang":
        say(step="structures", done=0, total=1)
        time.sleep(600)
    elif what == "swell":
        kept = bytearray(b"\1") * (600 << 20)
        time.sleep(600)
        del kept
    elif what == "crawl":
        for done in range(20):
            say(step="segment", done=done, total=20)
            time.sleep(0.1)
    elif what == "ring":
        say(ring=[order["case"], "dense"])
    elif what == "obey":
        assert "stop" in json.loads(sys.stdin.readline())
    say(finished=order["number"])


def main() -> None:
    """Answer orders until there are no more."""
    what, lease = sys.argv[1], int(sys.argv[2])
    while line := sys.stdin.readline():
        if lease:
            say(lease=lease)
        behave(what, json.loads(line))


if __name__ == "__main__":
    main()
