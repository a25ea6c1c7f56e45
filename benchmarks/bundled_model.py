"""`make bench-model`: docs/bundled-model.md, what the bundled model is worth, through the engine of the appliance.

The real CT with its reference labels is read from the folder in DELINEATE_REAL_CT (series/ and reference_labels.npz);
without it only the phantoms are scored and the page says so.
"""

import os
import platform
import sys
from pathlib import Path

from appliance import __version__
from appliance.clock import now_utc
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.training.evaluate import Judge, Score, Summary, score_phantoms, summarise
from benchmarks.reference_ct import read_reference_ct

PACKAGE = Path("models/packages/pelvis-demo")
HELD_OUT = range(1, 31)


def main(page: Path) -> None:
    judge, package = Judge(PACKAGE, threads=os.cpu_count() or 1), load_package(PACKAGE)
    real = os.environ.get("DELINEATE_REAL_CT", "")
    scores = _score_real(judge, Path(real)) if real else None
    real_s = judge.effort.cpu_seconds
    summaries = summarise(score_phantoms(judge, HELD_OUT, lambda done, total: print(f"phantom {done} of {total}")))
    phantom_s = (judge.effort.cpu_seconds - real_s) / len(HELD_OUT)
    page.write_text("\n".join(_page(package, scores, summaries, real_s, phantom_s)) + "\n")
    print(f"wrote {page}")


def _score_real(judge: Judge, folder: Path) -> list[Score]:
    volume, truth = read_reference_ct(folder / "series", folder / "reference_labels.npz")
    order = [roi.name for roi in load_package(PACKAGE).manifest.rois]
    return judge.score("real CT", volume, {name: truth[name] for name in order if name in truth})


def _page(
    package: ModelPackage, scores: list[Score] | None, summaries: list[Summary], real_s: float, phantom_s: float
) -> list[str]:
    manifest = package.manifest
    mean = sum(one.mean_dice for one in summaries) / len(summaries)
    return [
        "# What the bundled model is worth",
        "",
        (
            f"Made by `make bench-model` on {now_utc():%Y-%m-%d} with Delineate {__version__} on {platform.machine()}, "
            f"{os.cpu_count()} cores. Do not edit by hand."
        ),
        "",
        (
            f"Model: {manifest.name} {manifest.version}, {len(manifest.folds)} folds, mean of softmax, package digest "
            f"`{package.digest}`."
        ),
        "",
        "This model was trained on synthetic phantoms alone. It is a demonstration and is not for clinical use.",
        "",
        "## A real CT",
        "",
        *(_real_part(scores, real_s) if scores else ["Not scored: DELINEATE_REAL_CT was not set."]),
        "",
        f"## {len(HELD_OUT)} held-out phantoms",
        "",
        (
            f"Seeds {HELD_OUT.start} to {HELD_OUT.stop - 1}, never trained on; the truth is exact. "
            f"{phantom_s:.1f} CPU-seconds for each phantom."
        ),
        "",
        "| structure | phantoms | mean Dice | least Dice | median HD95 mm |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {one.roi} | {one.cases} | {one.mean_dice:.3f} | {one.least_dice:.3f} "
            f"| {one.median_hausdorff95_mm:.1f} |"
            for one in summaries
        ),
        f"| **mean of structures** | | **{mean:.3f}** | | |",
    ]


_ABOUT_THE_CT = """\
One CT of abdomen and pelvis (112 slices of 3 mm, a man with a metal nail in the left femur), which the model never saw
in training. The reference is the output of another model (TotalSegmentator), a second opinion and not ground truth. It
has no rectum; the lowest part of its colon stands for it, so that row says little. External is a threshold on HU, so
its row is an easy one.

**These are development figures.** The phantoms were shaped with this CT in view (its pictures and the places of its
organs), and the training was changed after looking at results on it. With one CT there is no confidence interval. An
honest figure needs CTs that nobody has looked at."""


def _real_part(scores: list[Score], real_s: float) -> list[str]:
    return [
        _ABOUT_THE_CT,
        "",
        f"{real_s:.1f} CPU-seconds.",
        "",
        "| structure | Dice | HD95 mm | found cm³ | reference cm³ |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {one.roi} | {one.dice:.3f} | {one.hausdorff95_mm:.1f} | {one.found_ml:.0f} | {one.truth_ml:.0f} |"
            for one in scores
        ),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
