"""Contours by themselves: are they what they say, can they be read, do they lie in a plane and within the image."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.contour_points import ContourPoints, too_long_decimals
from appliance.dicom.findings import Finding, Severity, amount, error, note, warning
from appliance.dicom.rules.crossings import crossings
from appliance.dicom.rules.examination import Examination
from appliance.dicom.rules.identity import printable
from appliance.dicom.structure_file import OTHER_TYPES, VOLUME_TYPES
from appliance.dicom.structure_reader import doubled_contours

NOT_PLANAR_MM = 0.1
"""How far the points of a contour may stray from its own plane."""

BORDER_TOLERANCE_PIXELS = 0.05
"""How far a contour may lie outside the outer voxels' edges: what rounding of coordinates can explain."""


def types_are_known(exam: Examination) -> Iterator[Finding]:
    """Contours are of a type that the standard knows; those that bound no volume are counted."""
    for region in exam.regions:
        kinds = Counter(contour.geometric_type for contour in region.all_contours)
        unknown = [kind for kind in kinds if kind not in (*VOLUME_TYPES, *OTHER_TYPES)]
        if unknown:
            shown = printable(unknown[0]) or "(empty)"
            yield error("contour_type", f"it has a contour of type {shown}, which nobody can fill", region.name)
        for kind in OTHER_TYPES:
            if kinds[kind]:
                sentence = f"{kinds[kind]} of its contours are {kind} and are no part of its volume"
                yield exam.graver("contour_type", sentence, region.name, else_=Severity.NOTE)
        if all(kinds[kind] for kind in VOLUME_TYPES):
            yield warning("contour_type", "some of its contours are CLOSEDPLANAR_XOR and some are not", region.name)


def contours_can_be_read(exam: Examination) -> Iterator[Finding]:
    """Contours hold as many finite decimal numbers as they say, of three points and more."""
    for region in exam.regions:
        problems = region.points.problems
        if problems:
            index, problem = min(problems.items())
            others = f", and {len(problems) - 1} more are wrong" if len(problems) > 1 else ""
            yield error("contour_unreadable", f"its contour {index + 1} {problem}{others}; draw it again", region.name)
        doubled = doubled_contours(region.closed)
        if doubled:
            where = region.place(region.closed.index(doubled[0]))
            sentence = f"it has the same contour twice at {where}, which cancels out in some programs; delete one"
            yield error("contour_doubled", sentence, region.name)
        lengths = region.points.lengths
        short = np.flatnonzero((lengths > 0) & (lengths < 3))
        if short.size:
            where = region.place(int(short[0]))
            sentence = f"{short.size} of its contours have fewer than three points, first at {where}; delete them"
            yield exam.graver("contour_short", sentence, region.name)


def decimals_are_short(exam: Examination) -> Iterator[Finding]:
    """No coordinate is longer than 16 characters (PS3.5 §6.2)."""
    counts = {region.name: too_long_decimals(region.all_contours) for region in exam.regions if region.all_contours}
    total, bad = sum(counts.values()), sum(count > 0 for count in counts.values())
    if total:
        sentence = (
            f"{amount(total, 'coordinate')} in {amount(bad, 'structure')} longer than 16 characters, which strict "
            "readers refuse; write fewer decimals"
        )
        yield exam.graver("decimal_long", sentence)


def structures_hold_contours(exam: Examination) -> Iterator[Finding]:
    """A region has contours; one that has none has no empty Contour Sequence either."""
    emptied = {one.number for one in exam.written.roi_contours if one.has_sequence and not one.contours}
    for region in exam.regions:
        if region.roi.number in emptied:
            sentence = "its Contour Sequence has no items, which the standard forbids; leave the sequence out"
            yield exam.graver("contour_sequence_empty", sentence, region.name)
        if not region.all_contours:
            yield note("structure_empty", "it is declared and has no contours", region.name)


def contours_are_planar(exam: Examination) -> Iterator[Finding]:
    """The points of a contour lie in one plane."""
    for region in exam.regions:
        stray_mm = _stray_mm(region.points)
        bad = np.flatnonzero(stray_mm > NOT_PLANAR_MM)
        if bad.size:
            worst = int(np.argmax(stray_mm))
            sentence = (
                f"{bad.size} of its contours are not flat; at {region.place(worst)} the points stray by "
                f"{stray_mm[worst]:.2f} mm; draw them again on the images"
            )
            yield error("contour_not_planar", sentence, region.name)


def contours_do_not_cross(exam: Examination) -> Iterator[Finding]:
    """No contour runs across itself: what is then inside depends on the reader."""
    for region in exam.regions:
        crossing, complete = crossings(region.points)
        if crossing.size:
            sentence = (
                f"{crossing.size} of its contours cross themselves, first at {region.place(int(crossing[0]))}; what "
                "is inside depends on the reader, so draw them again"
            )
            yield warning("contour_crossing", sentence, region.name)
        if not complete:
            yield note("contour_crossing", "its points lie too dense to find every crossing", region.name)


def contours_stay_in_the_image(exam: Examination) -> Iterator[Finding]:
    """No contour leaves the outer edge of its image."""
    if exam.series is None:
        return
    geometry = exam.series.geometry
    axes = np.array([geometry.row_direction, geometry.column_direction]).T / geometry.pixel_spacing_mm[::-1]
    outer = np.array([geometry.columns, geometry.rows]) - 0.5 + BORDER_TOLERANCE_PIXELS
    origins = geometry.positions_mm @ axes
    for region in exam.regions:
        owners = region.points.owners
        pixels = region.points.points_mm @ axes - origins[region.slices[owners]]
        outside = ((pixels < -0.5 - BORDER_TOLERANCE_PIXELS) | (pixels > outer)).any(axis=1)
        if outside.any():
            where = region.place(int(owners[np.argmax(outside)]))
            sentence = f"it leaves its image, first at {where}; what lies outside is lost, so draw it within"
            yield exam.graver("contour_outside_image", sentence, region.name)


def _stray_mm(points: ContourPoints) -> NDArray[np.float64]:
    """How far the points of each contour stray from the plane through them, shape (contours,).

    The plane's normal is the sum of the vector products of neighbouring points (Newell), taken from the contour's
    first point so that no digits are lost.
    """
    filled = points.lengths >= 3
    stray_mm = np.zeros(len(filled))
    chosen = points.only(filled)
    if not chosen.lengths.size:
        return stray_mm
    local_mm = chosen.points_mm - chosen.points_mm[chosen.starts][chosen.owners]
    normals = np.add.reduceat(np.cross(local_mm, local_mm[chosen.following]), chosen.starts, axis=0)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    units = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    heights_mm = np.einsum("ij,ij->i", local_mm, units[chosen.owners])
    high_mm, low_mm = (one.reduceat(heights_mm, chosen.starts) for one in (np.maximum, np.minimum))
    stray_mm[filled] = high_mm - low_mm
    return stray_mm
