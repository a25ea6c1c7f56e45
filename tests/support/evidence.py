"""docs/evidence.md, written by a run of the faults from what it counted; docs/evidence.json keeps it for the next run.

Of each test two runs are kept: that with the most tries of the code as it is, which the page shows, so that a short run
does not wipe out the hours of a long one; and that with the most tries ever, which is named beside it, with its code.
"""

import hashlib
import json
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from appliance import __version__
from appliance.clock import now_utc

ROOT = Path(__file__).parents[2]
ROWS: Mapping[str, str] = {
    "F1": "the listener killed at a random moment of a push",
    "F2": "power cut while receiving",
    "F3": "the order of system calls before a success",
    "F4": "the worker killed at each step, and at random",
    "F5": "the worker killed for its memory, again and again",
    "F6": "the GPU runs out of memory",
    "F7": "the GPU is absent or hangs",
    "F8": "the spool's disk is full",
    "F9": "the database is down, restarted, slow, read-only",
    "F10": "a database that may lose what it committed",
    "F11": "the broker is down or emptied, messages lost or doubled",
    "F12": "the PACS is down for hours, or misbehaves",
    "F13": "the PACS answers success and lacks it afterwards",
    "F14": "the network is slow, cut or half open",
    "F15": "the clock jumps",
    "F16": "slices in any order",
    "F17": "one series over several associations and senders",
    "F18": "several series interleaved on one association",
    "F19": "the same bytes sent again",
    "F20": "the same SOP Instance UID with other bytes",
    "F21": "patients mixed",
    "F22": "geometry that is wrong",
    "F23": "the last slices are missing",
    "F24": "a series that kills the parser",
    "F25": "a model that is missing, damaged or another one",
    "F26": "a network that answers nonsense",
    "F27": "an update with cases in flight",
    "F28": "backup and restore",
    "F29": "the log's disk is full, its reader gone",
    "F30": "SIGTERM at any moment",
}
"""What each row is, in the order of the page."""

HELD, FAILED, SKIPPED = "held", "failed", "skipped"


@dataclass
class Run:
    """What one run of one test showed."""

    outcome: str = HELD
    why: str = ""  #: why it was skipped
    tried: int = 0
    failed: int = 0
    figures: dict[str, str] = field(default_factory=dict)
    at: str = ""
    code: str = ""
    machine: str = ""

    def add(self, other: "Run") -> None:
        """Another set of parameters of the same test."""
        self.tried += other.tried
        self.failed += other.failed
        self.figures.update(other.figures)
        self.why = other.why or self.why
        if FAILED in (self.outcome, other.outcome):
            self.outcome = FAILED
        elif SKIPPED in (self.outcome, other.outcome):
            self.outcome = SKIPPED if self.tried == 0 else HELD


@dataclass
class Entry:
    """One test: the longest run of the code as it is, and the longest that there ever was."""

    row: str
    promise: str
    here: Run  #: what the page shows
    most: Run

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Self:
        """As it stands in docs/evidence.json."""
        return cls(kept["row"], kept["promise"], Run(**kept["here"]), Run(**kept["most"]))

    def note(self, run: Run) -> None:
        """Take in another run. A failure is shown until the test holds again, whatever was seen before."""
        told_less = run.outcome == SKIPPED or (run.outcome == HELD and run.tried < self.here.tried)
        if not (told_less and run.code == self.here.code and self.here.outcome == HELD):
            self.here = run
        if run.outcome == HELD and run.tried >= self.most.tried:
            self.most = run


def code_digest() -> str:
    """Twelve digits of a digest over the appliance's own code: the same code has the same."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "appliance").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def machine_words(folder: Path) -> str:
    """What the run ran on.

    Args:
        folder: where the tests keep their files; its file system is named.
    """
    parts = [
        f"{os.cpu_count()} cores {platform.machine()}",
        f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        f"{platform.system()} {platform.release()}",
        _file_system(folder),
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        *(_version(*one) for one in _PEERS),
    ]
    return ", ".join(part for part in parts if part)


_PEERS = (
    ("DCMTK", "storescu", "--version"),
    ("Orthanc", "Orthanc", "--version"),
    ("Redis", "redis-server", "--version"),
)


def _version(name: str, *command: str) -> str:
    try:
        told = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=10
        ).stdout
    except OSError:
        return f"no {name}"
    found = re.search(r"v?=?(\d+\.\d+\.\d+)", told)
    return f"{name} {found[1]}" if found else name


def _file_system(folder: Path) -> str:
    mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    place = folder.resolve()
    while str(place) not in mounts and place != place.parent:
        place = place.parent
    return mounts.get(str(place), "unknown file system")


def write_evidence(target: Path, runs: Mapping[str, tuple[str, str, Run]], *, machine: str) -> None:
    """Add the runs (row, promise and run by test) to `target`, and write the page beside it."""
    told = json.loads(target.read_text()) if target.exists() else {}
    entries = {test: Entry.read(kept) for test, kept in told.items() if _is_there(test)}
    now, code = f"{now_utc():%Y-%m-%d %H:%M}", code_digest()
    for test, (row, promise, run) in runs.items():
        run.at, run.code, run.machine = now, code, machine
        if test in entries:
            entries[test].row, entries[test].promise = row, promise
            entries[test].note(run)
        else:
            entries[test] = Entry(row, promise, run, run)
    target.write_text(json.dumps({test: asdict(entries[test]) for test in sorted(entries)}, indent=1) + "\n")
    target.with_suffix(".md").write_text("\n".join(page_lines(entries)) + "\n")


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    return (ROOT / file).is_file() and f"def {name}(" in (ROOT / file).read_text()


def page_lines(entries: Mapping[str, Entry]) -> list[str]:
    """The page, line by line."""
    shown = [entry.here for entry in entries.values()]
    tried = {entry.row for entry in entries.values() if entry.here.tried > 0}
    missing = [row for row in ROWS if row not in tried]
    return [
        "# Evidence",
        "",
        (
            f"Written by the run of `tests/faults` (`make evidence`, `make soak`, `make saboteurs`), Delineate "
            f"{__version__}. Do not edit by hand. Where the code has not changed, the run with the most tries counts."
        ),
        "",
        *_summary(shown, missing),
        "",
        (
            "*At most* is what the tries leave open: with no failure in N tries the rate of failures is below 3/N, "
            "with 95 % confidence. It speaks of faults as they were made here, on the machines below."
        ),
        "",
        *_table(entries),
        "",
        *_never(entries, missing),
        "## Machines",
        "",
        *_machines(shown),
    ]


def _summary(shown: Iterable[Run], missing: list[str]) -> list[str]:
    runs = list(shown)
    tried, failed = sum(run.tried for run in runs), sum(run.failed for run in runs)
    broken = sum(run.outcome == FAILED for run in runs)
    skipped = sum(run.outcome == SKIPPED for run in runs)
    return [
        f"- {len(ROWS) - len(missing)} of {len(ROWS)} rows are tried, by {len(runs)} tests with the other hazards.",
        f"- {tried:,} tries, {failed:,} of them failed; {broken} tests failed.",
        f"- **{skipped} tests were not run.**" if skipped else "- 0 tests were not run.",
        f"- **Not tried: {', '.join(missing)}.**" if missing else "- No row is left out.",
    ]


def _table(entries: Mapping[str, Entry]) -> list[str]:
    order = {row: place for place, row in enumerate(ROWS)}
    placed = sorted(entries.items(), key=lambda item: (order.get(item[1].row, len(order)), item[1].row, item[0]))
    return [
        "| row | promise | test | tried | failed | at most | seen | when, code |",
        "|---|---|---|---:|---:|---:|---|---|",
        *(_line(test, entry) for test, entry in placed),
    ]


def _line(test: str, entry: Entry) -> str:
    run = entry.here
    file, _, name = test.partition("::")
    words = name.removeprefix("test_").replace("_", " ")
    seen = [f"{value} {what}".strip() for what, value in run.figures.items()]
    if entry.most.tried > run.tried:
        seen.append(f"before, with code {entry.most.code}: {entry.most.tried:,} tries, {entry.most.failed} failures")
    if run.outcome == FAILED:
        seen.append("**FAILED**")
    cells = [entry.row, entry.promise, f"{words} (`{Path(file).name}`)"]
    if run.outcome == SKIPPED:
        cells += ["**not run**", "", "", run.why]
    else:
        cells += [f"{run.tried:,}", f"{run.failed:,}", bound(run.tried, run.failed), "; ".join(seen)]
    return f"| {' | '.join(cell.replace('|', '/') for cell in [*cells, f'{run.at}, {run.code[:7]}'])} |"


def bound(tried: int, failed: int) -> str:
    """What rate of failures the tries leave open, with 95 % confidence (rule of three); empty where some failed."""
    if failed or not tried:
        return ""
    return f"{300 / tried:.2g} %" if tried > 3 else ""


def _never(entries: Mapping[str, Entry], missing: list[str]) -> list[str]:
    skipped = [f"- {test}: {entry.here.why}" for test, entry in entries.items() if entry.here.outcome == SKIPPED]
    if not skipped and not missing:
        return []
    return ["## Not tried", "", *(f"- {row}: {ROWS[row]}" for row in missing), *skipped, ""]


def _machines(shown: Iterable[Run]) -> list[str]:
    machines = dict.fromkeys(run.machine for run in sorted(shown, key=lambda run: run.at, reverse=True))
    return [f"- {machine}" for machine in machines if machine]
