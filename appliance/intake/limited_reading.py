"""Reading received objects aside, in a process that may die of them: what kills it is refused, the others go on.

Answers come as JSON and are checked against our own dataclasses, so a reader in wrong hands can lie about the one
object that it was asked about, and nothing else (docs/adr/0028).
"""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from appliance.clock import monotonic_s
from appliance.dicom.ct_slice import CtSlice
from appliance.dicom.identity import InstanceIdentity
from appliance.errors import Reason, SliceRefused
from appliance.intake.reading_process import ADDRESS_SPACE_BYTES, BYTES_AS_TEXT, CPU_S

WALL_S = 120.0
"""For one object: a disk or a box may be slow; a reader that is stopped or stuck is not waited for any longer."""

_READ_BYTES = 1 << 18
_IDENTITY, _SLICE, _FLAG = TypeAdapter(InstanceIdentity), TypeAdapter(CtSlice), TypeAdapter(bool)

_Answer: TypeAlias = dict[str, Any] | SliceRefused
_Value = TypeVar("_Value")


class _Reader:
    """One process that reads, from its start to its end."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "appliance.intake.reading_process"]
        self.process = subprocess.Popen(  # noqa: S603 - our own code
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise OSError("a process without pipes")
        self._questions, self._answers = self.process.stdin, self.process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)
        self._half = b""
        self._lines: deque[bytes] = deque()

    def answers(self, what: str, paths: Sequence[Sequence[Path]]) -> list[_Answer]:
        """An answer for each of these, in order; fewer when the process dies or gets stuck at the next."""
        asked = {"what": what, "paths": [[str(path) for path in each] for each in paths]}
        with suppress(BrokenPipeError):  # then the answers do not come, which says it
            self._questions.write(json.dumps(asked).encode() + b"\n")
            self._questions.flush()
        answers: list[_Answer] = []
        while len(answers) < len(paths) and (answer := self._next()) is not None:
            answers.append(answer)
        return answers

    def _next(self) -> _Answer | None:
        """The next answer; None when there is none in time, or none any more."""
        until_s = monotonic_s() + WALL_S
        while not self._lines:
            if not self._selector.select(max(0.0, until_s - monotonic_s())):
                return None
            piece = os.read(self._answers.fileno(), _READ_BYTES)
            if not piece:
                return None
            *lines, self._half = (self._half + piece).split(b"\n")
            self._lines.extend(lines)
        with suppress(ValueError):
            answer = json.loads(self._lines.popleft(), parse_constant=_no_number)
            return answer if isinstance(answer, dict) else None
        return None

    def end(self) -> int:
        """End it; its exit code if it had ended by itself, else that of a kill."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)  # it may be on its way out
        self.process.kill()
        code = self.process.wait()
        self._selector.close()
        self._answers.close()
        with suppress(OSError):
            self._questions.close()
        return code


class LimitedReading:
    """Reads headers and compares images in a process of its own, which is started when it is first needed."""

    def __init__(self) -> None:
        self._reader: _Reader | None = None

    def identities(self, paths: Sequence[Path]) -> list[InstanceIdentity | SliceRefused]:
        """Who each of these files is, or why that cannot be said.

        Raises:
            OSError: a file itself cannot be read, which says nothing about its content.
        """
        return [_identity_or_refusal(answer) for answer in self._answers("identity", [[path] for path in paths])]

    def identity(self, path: Path) -> InstanceIdentity:
        """Who a file is.

        Raises:
            SliceRefused: as `read_identity` says, and PARSER_DIED.
            OSError: the file itself cannot be read.
        """
        return _value(_IDENTITY, self._answers("identity", [[path]])[0])

    def slices(self, paths: Sequence[Path]) -> list[CtSlice]:
        """The checked headers of these files.

        Raises:
            SliceRefused: as `parse_slice` says of the first that cannot be used, and PARSER_DIED.
            OSError: a file itself cannot be read.
        """
        answers = self._answers("slice", [[path] for path in paths])
        return [_value(_SLICE, _whole(answer, path)) for answer, path in zip(answers, paths, strict=True)]

    def one_image(self, first: Path, second: Path) -> bool:
        """Whether two files hold the same image, whatever their transfer syntaxes.

        Raises:
            SliceRefused: one of them cannot be decoded, or decoding it killed the reader.
            OSError: a file itself cannot be read.
        """
        return _value(_FLAG, self._answers("one_image", [[first, second]])[0])

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._reader is not None:
            self._reader.end()
            self._reader = None

    def _answers(self, what: str, paths: Sequence[Sequence[Path]]) -> list[_Answer]:
        """An answer for each; an object that kills the reader has its death for an answer, and another goes on."""
        answers: list[_Answer] = []
        while len(answers) < len(paths):
            self._reader = self._reader or _Reader()
            answers += self._reader.answers(what, paths[len(answers) :])
            if len(answers) < len(paths):
                code, self._reader = self._reader.end(), None
                answers.append(SliceRefused(Reason.PARSER_DIED, f"{_death(code)}; export it again at its source"))
        return answers


def _value(kind: TypeAdapter[_Value], answer: _Answer) -> _Value:
    """The answer as one of our own values; what is none is the answer of a reader in wrong hands.

    Raises:
        SliceRefused: it cannot be read.
        OSError: the file could not be read.
    """
    if isinstance(answer, SliceRefused):
        raise answer
    try:
        if "failed" in answer:
            number, words = answer["failed"]
            problem: Exception = OSError(int(number), str(words))
        elif "refused" in answer:
            reason, sentence = answer["refused"]
            problem = SliceRefused(Reason(reason), str(sentence))
        else:
            return kind.validate_python(answer["value"])
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        sentence = "reading it gave an answer that is none; export it again at its source"
        raise SliceRefused(Reason.PARSER_DIED, sentence) from error
    raise problem


def _identity_or_refusal(answer: _Answer) -> InstanceIdentity | SliceRefused:
    try:
        return _value(_IDENTITY, answer)
    except SliceRefused as refused:
        return refused


def _whole(answer: _Answer, path: Path) -> _Answer:
    """The answer about a slice, with its bytes as bytes, and with the path that was asked about."""
    if isinstance(answer, SliceRefused) or not isinstance(answer.get("value"), dict):
        return answer
    value, header = answer["value"], answer["value"].get("header")
    if isinstance(header, dict):
        header = {name: str(text).encode(BYTES_AS_TEXT, "replace") for name, text in header.items()}
    return {"value": {**value, "header": header, "path": path}}


def _no_number(word: str) -> None:
    raise ValueError(word)


def _death(exit_code: int) -> str:
    if exit_code == -signal.SIGPROF:
        return f"reading it took more than {CPU_S:.0f} s of CPU"
    if exit_code == -signal.SIGKILL:
        return "reading it got stuck, or was ended because memory ran out"
    if exit_code < 0:
        return f"reading it crashed the reader ({signal.Signals(-exit_code).name})"
    return f"reading it ended the reader, which may take {ADDRESS_SPACE_BYTES >> 20} MB"
