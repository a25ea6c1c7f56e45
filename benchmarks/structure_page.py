"""The figures of `make bench-structures` as a page of Markdown."""

import os
import platform
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from appliance import __version__
from appliance.clock import now_utc

if TYPE_CHECKING:
    from benchmarks.structure_sets import Judged

OFF_PLANE_MM = 0.05
"""Farther off its image than rounding explains."""
_METHOD = """\
The phantom has 27 structures whose surfaces are known exactly: a body that leaves the image at both sides, a couch that
does too, a shell of 4 mm, lungs with vessels, rings, an island within a ring, 14 parts, plates and nerves as thin as a
voxel, voxels that touch by a corner only. The large series has 200 slices of 512 x 512 voxels, the small ones up to 60
slices of 256 x 256 with nine of the structures. All get the same masks, each in a fresh process, in turn, with the
settings that it has by default.

- **CPU-seconds**: user and system time of all threads, median of the runs, from masks in memory to the file on disk,
  with all that is read of the CT, without loading of libraries.
- **memory**: peak above what was there once the masks were loaded; for plastimatch, a program of its own that reads
  masks from files, the peak of its process.
- **Dice**: an independent judge fills the contours by the position, orientation and spacing of the image nearest to
  each (even-odd rule at voxel centres) and compares with the mask; 1.000 is the same, voxel for voxel. *By name*: each
  contour taken to lie on the image whose UID it names.
- **off the surface**: distance of the contours from the analytic surface; bias below zero means drawn too small.
- **findings**: errors and warnings of dciodvfy (dicom3tools). Delineate's warnings are Rows, Columns and Number of
  Frames in the description of the grid (PS3.3 §C.8.8.6), which dciodvfy does not know there."""


class Page:
    """Collects what was measured, line by line."""

    def __init__(self, versions: dict[str, str]) -> None:
        self._versions = versions
        self._writing: list[list[str]] = []
        self._own_cpu_s: float | None = None
        self._stages: list[str] = []
        self._variants: dict[str, dict[str, str]] = {}
        self._reading: dict[str, dict[str, str]] = {}

    def add_writing(self, writer: str, runs: list[dict], judged: "Judged | None", failure: str) -> None:
        if judged is None:
            self._writing.append([writer, failure, *[""] * 12])
            return
        cpu_s, verdicts = median(run["cpu_s"] for run in runs), list(judged.verdicts.values())
        if self._own_cpu_s is None:
            self._own_cpu_s = cpu_s
        dice = [one.dice for one in verdicts]
        worst = min(judged.verdicts, key=lambda name: judged.verdicts[name].dice)
        self._writing.append(
            [
                f"{writer} {self._versions.get(writer, '')}".strip(),
                f"{cpu_s:.2f} (n={len(runs)})",
                f"{cpu_s / self._own_cpu_s:.1f}",
                f"{median(run['peak_mb'] for run in runs):.0f}",
                f"{judged.file_mb:.1f}",
                f"{sum(one.points for one in verdicts):,}",
                f"{median(dice):.4f}",
                f"{min(dice):.4f}" + (f" ({worst})" if min(dice) < 1 else ""),
                f"{100 * median(one.volume_error for one in verdicts):+.1f}",
                _off_surface(writer, judged.off_surface_mm),
                str(sum(one.lost_slices for one in verdicts)),
                str(sum(one.short_contours for one in verdicts)),
                f"{sum(one.long_decimals for one in verdicts):,}",
                f"{judged.errors:,} / {judged.warnings:,}",
            ]
        )
        if "check_s" in runs[0]:
            self._add_stages(writer, runs)

    def _add_stages(self, writer: str, runs: list[dict]) -> None:
        stages = {name: median(run["stages"][name] for run in runs) for name in runs[0]["stages"]}
        spent = ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.items())
        check_s = median(run["check_s"] for run in runs)
        self._stages.append(
            f"- {writer}: {spent}; its own check of the file, which reads and fills it again: {check_s:.2f} more "
            f"({runs[0]['check']})"
        )

    def add_variant(self, title: str, writer: str, judged: "Judged | None", said: str) -> None:
        cell = said if judged is None else "; ".join(part for part in (_in_short(judged), said) if part)
        self._variants.setdefault(title, {})[writer] = cell

    def add_reading(self, title: str, reader: str, figures: dict, failure: str) -> None:
        cell = failure
        if figures:
            scores = list(figures["dice"].values())
            known = [score for score in scores if score is not None]
            agreement = f"{median(known):.3f} / {min(known):.3f}" if len(known) == len(scores) else "wrong shape"
            cell = f"{figures['cpu_s']:.2f} s, {figures['peak_mb']:.0f} MB, {agreement}"
        self._reading.setdefault(title, {})[reader] = cell

    def text(self) -> str:
        lines = [
            "# Structure sets",
            "",
            (
                f"Made by `make bench-structures` on {now_utc():%Y-%m-%d} with Delineate {__version__} on "
                f"{platform.machine()}, {os.cpu_count()} cores. Do not edit by hand."
            ),
            "",
            *_METHOD.splitlines(),
            "",
        ]
        if self._writing:
            lines += ["## Writing 200 slices of 512 x 512, 27 structures", ""]
            lines += _table(_WRITING, self._writing)
            lines += ["", "CPU-seconds of Delineate by step:", "", *self._stages, ""]
        lines += ["## Every geometry", "", _ABOUT_VARIANTS, "", *_matrix("series", self._variants), ""]
        if self._reading:
            lines += ["## Reading Delineate's files, with holes as nested contours", "", _ABOUT_READING, ""]
            lines += _matrix("series", self._reading)
        return "\n".join(lines).rstrip() + "\n"


_WRITING = [
    "writer",
    "CPU-seconds",
    "times ours",
    "memory MB",
    "file MB",
    "points",
    "median Dice",
    "worst Dice",
    "median volume %",
    "off the surface mm: mean / p95 / bias",
    "slices lost",
    "contours below 3 points",
    "numbers over 16 bytes",
    "findings",
]
_ABOUT_VARIANTS = "Median / worst Dice; *by name* and *off plane* where they tell another story."
_ABOUT_READING = "CPU-seconds, memory, median / worst Dice against the masks that were written."


def _in_short(judged: "Judged") -> str:
    verdicts = list(judged.verdicts.values())
    dice, by_name = [one.dice for one in verdicts], [one.dice_by_uid for one in verdicts]
    said = f"{median(dice):.3f} / {min(dice):.3f}"
    if max(abs(one.dice - one.dice_by_uid) for one in verdicts) > 0.0005:
        said += f" (by name {median(by_name):.3f} / {min(by_name):.3f})"
    off_mm = max(one.off_plane_mm for one in verdicts)
    unnamed, contours = sum(one.unnamed for one in verdicts), sum(one.contours for one in verdicts)
    said += f", {off_mm:.1f} mm off plane" if off_mm > OFF_PLANE_MM else ""
    return said + (f", {unnamed} of {contours} contours name no image" if unnamed else "")


def _off_surface(writer: str, off_mm: np.ndarray) -> str:
    if "keyhole" in writer:
        return "channels cross the inside"
    return f"{np.abs(off_mm).mean():.3f} / {np.quantile(np.abs(off_mm), 0.95):.3f} / {off_mm.mean():+.3f}"


def _matrix(corner: str, cells: dict[str, dict[str, str]]) -> list[str]:
    columns = list(dict.fromkeys(name for row in cells.values() for name in row))
    return _table([corner, *columns], [[title, *(row.get(one, "") for one in columns)] for title, row in cells.items()])


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in (head, rule, *rows)]
