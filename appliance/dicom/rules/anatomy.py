"""Structures as parts of a patient: whole, on the right side, and apart from each other.

All of it is for a person to look at, but for left and right exchanged, which is an error.
"""

import re
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.findings import Finding, amount, error, warning
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.dicom.rules.examination import Examination, ExaminedRegion

MIDLINE_MARGIN_MM = 10.0
"""How far on the wrong side of the body's middle a structure named for one side may lie."""

MOST_OVERLAP = 0.05
"""The part of the smaller of two organs that may lie in the other: voxels on a common border."""

CONTAINED = 0.95
"""From this part on the smaller one lies within the other, as a part of it."""

_AROUND_THE_BODY = {"SUPPORT", "FIXATION", "BOLUS"}
_WHOLE_BODY = {"EXTERNAL", *_AROUND_THE_BODY}
_WORDS = re.compile(r"[A-Za-z0-9]+")
_SIDES = {"l": "left", "lt": "left", "left": "left", "r": "right", "rt": "right", "right": "right"}
_OTHER = {"left": "right", "right": "left"}


def structures_are_whole(exam: Examination) -> Iterator[Finding]:
    """No structure is cut off by the end of the scan or the border of the image, and none skips a slice."""
    if exam.series is None:
        return
    last = len(exam.series.slices) - 1
    for region in exam.regions:
        on = np.unique(region.slices[region.usable])
        if not on.size:
            continue
        ends = [words for at, words in ((0, "first slice"), (last, "last slice")) if at in on]
        if region.kind in _WHOLE_BODY:
            ends = []
        if region.kind not in _AROUND_THE_BODY and _touches_the_border(region, exam.series.geometry):
            ends.append("border of the image")
        if ends:
            sentence = f"it reaches the {' and the '.join(ends)}, where the scan may cut it off"
            yield warning("cut_off", sentence, region.name)
        skipped = np.setdiff1d(np.arange(on[0], on[-1] + 1), on)
        if skipped.size:
            z_mm = exam.series.geometry.positions_mm[skipped[0], 2]
            sentence = f"it is missing on {amount(skipped.size, 'slice')} between its ends, first at z = {z_mm:.1f} mm"
            yield warning("slices_skipped", f"{sentence}; fill them if it goes on there", region.name)


def sides_are_true(exam: Examination) -> Iterator[Finding]:
    """What is named for the left side lies on the patient's left (LPS: the greater x), and on the right likewise."""
    places = {region.name: float(np.mean(_x_mm(region))) for region in exam.regions if region.usable.any()}
    named = {name: split for name in places if (split := _split_side(name)) is not None}
    pairs = {
        (name, other)
        for name, (stem, side) in named.items()
        for other, (other_stem, other_side) in named.items()
        if side == "left" and other_side == "right" and stem == other_stem
    }
    for left, right in sorted(pairs):
        if places[left] <= places[right]:
            sentence = f"it lies to the patient's right of {right}: left and right are exchanged; rename them"
            yield error("sides_exchanged", sentence, left)
    middle_mm = _middle_x_mm(exam)
    for name in sorted(named.keys() - {one for pair in pairs for one in pair}):
        side = named[name][1]
        wrong_mm = (middle_mm - places[name]) * (1 if side == "left" else -1)
        if wrong_mm > MIDLINE_MARGIN_MM:
            sentence = f"it lies {wrong_mm:.0f} mm on the patient's {_OTHER[side]} of the middle; check its side"
            yield warning("side_doubtful", sentence, name)


def organs_lie_apart(exam: Examination) -> Iterator[Finding]:
    """Two organs do not share voxels, unless one is a part of the other or was derived from it."""
    if exam.series is None:
        return
    organs = {region.name: region for region in exam.regions if region.kind == "ORGAN" and region.usable.any()}
    masks = {name: exam.mask(region, exam.series) for name, region in organs.items()}
    counts = {name: int(np.count_nonzero(mask.voxels)) for name, mask in masks.items()}
    for first, second in combinations(organs, 2):
        if _are_related(organs[first], organs[second]):
            continue
        small, large = sorted((first, second), key=counts.__getitem__)
        shared = _shared_voxels(masks[small], masks[large]) / max(counts[small], 1)
        if MOST_OVERLAP < shared < CONTAINED:
            sentence = f"{100 * shared:.0f} % of it lie in {large} as well; correct the border between them"
            yield warning("organs_overlap", sentence, small)


def _touches_the_border(region: ExaminedRegion, geometry: SeriesGeometry) -> bool:
    """Whether a contour reaches the outer edge of the outermost voxels, or their centres."""
    axes = np.array([geometry.row_direction, geometry.column_direction]).T / geometry.pixel_spacing_mm[::-1]
    chosen = region.points.only(region.usable)
    slices = region.slices[region.usable][chosen.owners]
    pixels = chosen.points_mm @ axes - (geometry.positions_mm @ axes)[slices]
    last = np.array([geometry.columns, geometry.rows]) - 1
    # half a hundredth of a pixel is what rounding of coordinates may take away
    return bool(((pixels < 0.005) | (pixels > last - 0.005)).any())


def _x_mm(region: ExaminedRegion) -> NDArray[np.float64]:
    return np.asarray(region.points.points_mm[region.usable[region.points.owners], 0])


def _middle_x_mm(exam: Examination) -> float:
    """The middle of the external contour from left to right, or of everything that is drawn."""
    drawn = [region for region in exam.regions if region.usable.any()]
    body = [region for region in drawn if region.kind == "EXTERNAL"] or drawn
    x_mm = np.concatenate([np.zeros(0), *map(_x_mm, body)])
    return float((x_mm.min() + x_mm.max()) / 2) if x_mm.size else 0.0


def _split_side(name: str) -> tuple[tuple[str, ...], str] | None:
    """Split a name into its words without the side, and the side; None where it names none, or both."""
    words = [word.lower() for word in _WORDS.findall(name)]
    sides = {_SIDES[word] for word in words if word in _SIDES}
    if len(sides) != 1:
        return None
    return tuple(word for word in words if word not in _SIDES), sides.pop()


def _are_related(first: ExaminedRegion, second: ExaminedRegion) -> bool:
    return any(
        one.observation is not None and other.roi.number in one.observation.related
        for one, other in ((first, second), (second, first))
    )


def _shared_voxels(first: RoiMask, second: RoiMask) -> int:
    """Count the voxels that both regions hold."""
    starts = [max(one.start, other.start) for one, other in zip(first.box, second.box, strict=True)]
    stops = [min(one.stop, other.stop) for one, other in zip(first.box, second.box, strict=True)]
    if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        return 0
    pieces = [
        mask.voxels[
            tuple(slice(a - side.start, b - side.start) for a, b, side in zip(starts, stops, mask.box, strict=True))
        ]
        for mask in (first, second)
    ]
    return int(np.count_nonzero(pieces[0] & pieces[1]))
