"""The process that reads what nobody has vouched for: headers into plain values, within limits of memory and time.

It answers each path that it is asked about with one line of JSON. What kills it is one object's fault; whoever asked
sees that and starts another (limited_reading.py). It writes no file, and opens none but those it is asked about.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from appliance.dicom.ct_slice import CtSlice, parse_slice
from appliance.dicom.ct_volume import same_image
from appliance.dicom.identity import InstanceIdentity, read_identity
from appliance.errors import SliceRefused

ADDRESS_SPACE_BYTES = 1 << 30
CPU_S = 10.0
"""For one object."""

BYTES_AS_TEXT = "latin-1"
"""Each byte a character: what a header holds goes through JSON unchanged."""


def serve() -> None:
    """Answer until standard input closes."""
    _limit()
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        read = _READERS[asked["what"]]
        for paths in asked["paths"]:
            signal.setitimer(signal.ITIMER_PROF, CPU_S)  # SIGPROF ends the process, in whatever code it is
            answer = _answer(read, [Path(path) for path in paths])
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            os.write(answers, json.dumps(answer, allow_nan=False).encode() + b"\n")


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a patient's data


def _answer(read: Callable[[Sequence[Path]], Any], paths: Sequence[Path]) -> dict[str, Any]:
    try:
        return {"value": read(paths)}
    except SliceRefused as refused:
        return {"refused": [refused.reason, refused.sentence]}
    except OSError as error:
        return {"failed": [error.errno, error.strerror]}


def _identity(paths: Sequence[Path]) -> dict[str, Any]:
    one = read_identity(paths[0])
    return {each.name: getattr(one, each.name) for each in fields(InstanceIdentity)}


def _slice(paths: Sequence[Path]) -> dict[str, Any]:
    one = parse_slice(paths[0])
    told = {each.name: getattr(one, each.name) for each in fields(CtSlice) if each.name != "path"}
    told["header"] = {name: value.decode(BYTES_AS_TEXT) for name, value in one.header.items()}
    return {**told, "pixels": asdict(one.pixels), "description": asdict(one.description)}


def _one_image(paths: Sequence[Path]) -> bool:
    first, second = (parse_slice(path) for path in paths)
    return same_image(first, second)


_READERS: dict[str, Callable[[Sequence[Path]], Any]] = {
    "identity": _identity,
    "slice": _slice,
    "one_image": _one_image,
}

if __name__ == "__main__":
    serve()
