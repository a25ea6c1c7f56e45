"""A foreign model becomes a package: in a process of its own, and in one move once everything is right."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import appliance
from appliance.errors import ModelRefused, Reason
from appliance.importing.confinement import Limits
from appliance.importing.converted import ImportRequest
from appliance.importing.report import ImportReport
from appliance.importing.sources import checked_source
from appliance.segmentation.model_package import load_package

REPORT_FILE = "import_report.json"

OnStep = Callable[[str], None]
"""Called with a few words as each step begins."""


def import_model(
    source: Path, into: Path, request: ImportRequest, on_step: OnStep = lambda _: None, limits: Limits | None = None
) -> ImportReport:
    """Convert a foreign model into a package of our own.

    Nothing of the source is executed. It is read and converted by a child process with limits of its own; the package
    appears in one move, complete and checked, or not at all.

    Args:
        source: a file or folder of any known format, or a zip archive of such a folder.
        into: the package's folder; it must not exist yet, or be empty.
        request: what the person who imports adds.
        on_step: hears of each step.
        limits: of the child process; the usual ones if None.

    Returns:
        What was done; the package holds the same as `import_report.json`.

    Raises:
        ModelRefused: MODEL_MISSING without source; MODEL_UNSAFE if anything in it would execute code or reach out of
            it; MODEL_INVALID for all else that cannot be imported, or if the folder is taken.
    """
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise ModelRefused(
            Reason.MODEL_INVALID, f"there already is something at {into.name}; remove it or choose another"
        )
    root = checked_source(source)
    limits = limits or Limits()
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="delineate-import-") as work:
        package = Path(tempfile.mkdtemp(prefix=".importing-", dir=into.parent.resolve()))
        try:
            task = {"source": str(root), "package": str(package), "work": work}
            report = _convert({**task, "request": asdict(request), "limits": asdict(limits)}, limits, on_step)
            checked_source(package)
            load_package(package)
            package.chmod(0o755)
            package.rename(into)
        finally:
            shutil.rmtree(package, ignore_errors=True)
    return report


def _convert(task: dict[str, Any], limits: Limits, on_step: OnStep) -> ImportReport:
    """Run the child and hear what it says."""
    work = Path(task["work"])
    errors = work / "errors.txt"
    with errors.open("wb") as stderr, _child(json.dumps(task), work, stderr) as child:
        ended = threading.Event()

        def end() -> None:
            ended.set()
            _end_group(child)

        timer = threading.Timer(limits.wall_s, end)
        timer.start()
        try:
            report = _listen(child.stdout or (), on_step)
            status = child.wait()
        finally:
            timer.cancel()
    if report is None:
        why = f"took longer than {limits.wall_s:.0f} s" if ended.is_set() else _why(status, errors)
        raise ModelRefused(Reason.MODEL_INVALID, f"the conversion {why}; nothing was imported")
    return report


@contextlib.contextmanager
def _child(task: str, work: Path, stderr: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own session, environment and working folder; whatever is left of its group is ended after."""
    environment = {
        "HOME": str(work),
        "TMPDIR": str(work),
        "USER": "delineate",
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(appliance.__file__).parents[1]),
        "OMP_NUM_THREADS": "2",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-P", "-s", "-m", "appliance.importing.child"]
    child = subprocess.Popen(  # noqa: S603 - our own interpreter and module; the task goes in as JSON
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd=work,
        env=environment,
        text=True,
        start_new_session=True,
    )
    try:
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(task)
        yield child
    finally:
        _end_group(child)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _listen(lines: Iterable[str], on_step: OnStep) -> ImportReport | None:
    """Pass steps on until the child is done; its report, or None if it left without one."""
    report = None
    for line in lines:
        try:
            said = json.loads(line)
            match said:
                case {"step": str(step)}:
                    on_step(step[:200])
                case {"refused": {"reason": str(reason), "sentence": str(sentence)}}:
                    raise ModelRefused(Reason(reason), sentence[:1000])
                case {"report": report_values}:
                    report = ImportReport.model_validate(report_values)
        except (ValueError, ValidationError) as error:
            raise ModelRefused(Reason.MODEL_INVALID, "the conversion broke; nothing was imported") from error
    return report


def _why(status: int, errors: Path) -> str:
    if status < 0:
        return f"was ended by the system (signal {-status}: too much memory or time)"
    lines = errors.read_text(errors="replace")[-4000:].strip().splitlines()
    return f"broke ({lines[-1][:200]})" if lines else f"broke (exit status {status})"


def _end_group(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
