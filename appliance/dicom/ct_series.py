"""CT slices become one series: sorted by where they lie, with one geometry, or refused.

Nothing is repaired here. A series with a missing slice or two phases in one could be resampled into something that
looks right; planning on it would not be. A tilted gantry is no such guess: every slice says where it lies, and the
shift from one to the next is the same throughout.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import atan2, degrees

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.ct_slice import CtSlice
from appliance.dicom.geometry import SeriesGeometry, Vector
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import Reason, SeriesRefused

MIN_SLICES = 3
"""With fewer, nobody can tell an uneven gap from a usual one."""

MIN_NORMAL_Z = 0.9
"""Smallest part of the slice normal along the body's axis: planes up to 25.8 degrees from axial are accepted."""

MAX_TILT_DEGREES = 30.5
"""Largest angle between the line of the slices and their normal: gantries tilt by up to 30 degrees."""

SHIFT_TOLERANCE_MM = 0.1
"""How far a slice may lie off the straight line of the stack: what rounding and a table may be off."""

MAX_GAP_STEP = 1.5
"""Where uneven gaps are allowed: a gap wider than this many times both its neighbours is taken for a missing slice."""

GAP_TOLERANCE_MM = 0.05
"""What rounding of two positions may change in the gap between them."""

GAP_TOLERANCE_FRACTION = 0.01
"""What a table may be off over one gap, as a part of the gap."""

DUPLICATE_MM = 0.01
"""Slices closer than this lie at one position: the finest step that results are written in."""

DIRECTION_TOLERANCE = 1e-4
"""Largest difference of direction cosines within a series: 0.05 mm over a field of 500 mm."""

SPACING_TOLERANCE_MM = 1e-4
"""Largest difference of pixel spacings within a series: 0.05 mm over 512 pixels."""


@dataclass(frozen=True, slots=True)
class CtSeries:
    """The slices of one series in ascending order along their normal, and where they lie."""

    slices: tuple[CtSlice, ...]
    geometry: SeriesGeometry

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID of all slices."""
        return self.slices[0].series_instance_uid

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID of all slices."""
        return self.slices[0].study_instance_uid

    @property
    def frame_of_reference_uid(self) -> str:
        """Frame of Reference UID of all slices."""
        return self.slices[0].frame_of_reference_uid

    @property
    def patient_sex(self) -> str:
        """Patient's Sex: M, F, O, or empty when it is not known (PS3.3 §C.7.1.1)."""
        return self.slices[0].header.get("PatientSex", b"").decode("ascii", "replace").strip(" \0").upper()

    @property
    def description(self) -> ScanDescription:
        """What the headers of all slices agree on that a model may care about."""
        said = [one.description for one in self.slices]
        kernels, body_parts, positions = (
            {getattr(one, name) for one in said} for name in ("kernel", "body_part", "patient_position")
        )
        return ScanDescription(
            *(values.pop() if len(values) == 1 else "" for values in (kernels, body_parts, positions))
        )

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """SOP Instance UIDs in the order of the slices."""
        return tuple(one.sop_instance_uid for one in self.slices)


def assemble_series(slices: Sequence[CtSlice], *, uneven_gaps: bool = False) -> CtSeries:
    """Sort slices of one Series Instance UID along their normal and check that they form one straight stack.

    Each instance is handed over once; neither the order nor the instance numbers matter.

    Args:
        slices: of one series.
        uneven_gaps: accept gaps that differ, as where a scan goes on with thicker slices; a gap that stands out from
            both its neighbours is a missing slice all the same.

    Raises:
        SeriesRefused: TOO_FEW_SLICES, PATIENT_MIXED, STUDY_MIXED, FRAME_OF_REFERENCE_MIXED, INSTANCE_CONFLICT,
            SPACING_MIXED, ORIENTATION_MIXED, RESCALE_MIXED, ORIENTATION_UNSUPPORTED, POSITION_DUPLICATE,
            SLICE_MISSING or SLICE_GAPS_UNEVEN.
        ValueError: the slices are of several series, which is a mistake of the caller.
    """
    if len({one.series_instance_uid for one in slices}) > 1:
        raise ValueError("slices of several series were handed over as one")
    if len(slices) < MIN_SLICES:
        raise SeriesRefused(
            Reason.TOO_FEW_SLICES,
            f"the series has {len(slices)} slices where at least {MIN_SLICES} are needed; send the whole series",
        )
    _check_same_names(slices)
    _check_same_grid(slices)
    first = slices[0]
    _check_axial(first.plane.normal)
    along_mm = np.array([one.position_mm for one in slices]) @ np.array(first.plane.normal)
    ordered = tuple(slices[index] for index in np.argsort(along_mm, kind="stable"))
    geometry = SeriesGeometry(
        np.array([one.position_mm for one in ordered]),
        first.row_direction,
        first.column_direction,
        first.pixel_spacing_mm,
        first.rows,
        first.columns,
    )
    _check_gaps(geometry, uneven_gaps=uneven_gaps)
    _check_straight(geometry)
    return CtSeries(ordered, geometry)


def _check_same_names(slices: Sequence[CtSlice]) -> None:
    """Refuse slices of several patients, studies or frames of reference, and instances that occur twice."""
    rules: tuple[tuple[Reason, str, Callable[[CtSlice], str]], ...] = (
        (Reason.PATIENT_MIXED, "patients (by ID, issuer, name and birth date)", lambda one: one.patient_key),
        (Reason.STUDY_MIXED, "studies", lambda one: one.study_instance_uid),
        (Reason.FRAME_OF_REFERENCE_MIXED, "frames of reference", lambda one: one.frame_of_reference_uid),
    )
    for reason, what, key in rules:
        counts = Counter(map(key, slices))
        if len(counts) > 1:
            usual = counts.most_common(1)[0][1]
            raise SeriesRefused(
                reason,
                f"the series mixes {len(counts)} {what}: {len(slices) - usual} of {len(slices)} slices differ from the "
                "rest; correct it in the archive and send it again",
            )
    twice = len(slices) - len({one.sop_instance_uid for one in slices})
    if twice:
        raise SeriesRefused(
            Reason.INSTANCE_CONFLICT,
            f"{twice} SOP Instance UIDs of the series belong to two slices; correct it in the archive and resend it",
        )


def _check_same_grid(slices: Sequence[CtSlice]) -> None:
    """Refuse slices that differ in size, spacing, orientation or rescaling."""
    sizes = {(one.rows, one.columns) for one in slices}
    spacings_mm = np.array([one.pixel_spacing_mm for one in slices])
    if len(sizes) > 1 or np.ptp(spacings_mm, axis=0).max() > SPACING_TOLERANCE_MM:
        (low_size, low_mm), (high_size, high_mm) = (
            (pick(sizes), pick(one.pixel_spacing_mm for one in slices)) for pick in (min, max)
        )
        raise SeriesRefused(
            Reason.SPACING_MIXED,
            f"the slices differ in size or pixel spacing: {low_size[0]} x {low_size[1]} pixels of {low_mm[0]:g} x "
            f"{low_mm[1]:g} mm to {high_size[0]} x {high_size[1]} of {high_mm[0]:g} x {high_mm[1]:g} mm; send one "
            "reconstruction a series",
        )
    directions = np.array([(*one.row_direction, *one.column_direction) for one in slices])
    if np.ptp(directions, axis=0).max() > DIRECTION_TOLERANCE:
        usual = Counter((*one.row_direction, *one.column_direction) for one in slices).most_common(1)[0][1]
        raise SeriesRefused(
            Reason.ORIENTATION_MIXED,
            f"{len(slices) - usual} of {len(slices)} slices have another orientation than the rest, as localizers do; "
            "send the axial slices as a series of their own",
        )
    rescales = Counter((one.rescale_slope, one.rescale_intercept) for one in slices)
    if len(rescales) > 1:
        usual = rescales.most_common(1)[0][1]
        raise SeriesRefused(
            Reason.RESCALE_MIXED,
            f"{len(slices) - usual} of {len(slices)} slices have another Rescale Slope or Intercept than the rest; "
            "send one reconstruction a series",
        )


def _check_axial(normal: Vector) -> None:
    if abs(normal[2]) < MIN_NORMAL_Z:
        raise SeriesRefused(
            Reason.ORIENTATION_UNSUPPORTED,
            f"the slices stand {degrees(np.arccos(min(1.0, abs(normal[2])))):.0f} degrees from axial; send an axial "
            "reconstruction",
        )


def _check_gaps(geometry: SeriesGeometry, *, uneven_gaps: bool) -> None:
    """Refuse two slices at one position, a missing slice, and gaps that differ where they must not."""
    gaps_mm = geometry.gaps_mm
    closest = int(np.argmin(gaps_mm))
    if gaps_mm[closest] < DUPLICATE_MM:
        count = int(np.count_nonzero(gaps_mm < DUPLICATE_MM))
        raise SeriesRefused(
            Reason.POSITION_DUPLICATE,
            f"{_place(geometry, closest)} and the next one lie at one position, and {count - 1} more pairs do; send "
            "one phase or reconstruction a series",
        )
    if uneven_gaps:
        _check_no_gap_stands_out(geometry, gaps_mm)
        return
    # the lower median is a gap that occurs, even in a series of three slices with one missing
    usual_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2])
    odd = np.flatnonzero(np.abs(gaps_mm - usual_mm) > _gap_tolerance_mm(usual_mm))
    if odd.size:
        raise _gap_refusal(geometry, gaps_mm, usual_mm, odd)


def _gap_refusal(
    geometry: SeriesGeometry, gaps_mm: NDArray[np.float64], usual_mm: float, odd: NDArray[np.intp]
) -> SeriesRefused:
    """Name the first odd gap, and say how many slices are missing where that explains all odd gaps."""
    multiples = np.rint(gaps_mm[odd] / usual_mm)
    remainders_mm = np.abs(gaps_mm[odd] - multiples * usual_mm)
    where = f"gap of {gaps_mm[odd[0]]:.2f} mm after {_place(geometry, int(odd[0]))} where {usual_mm:.2f} mm is usual"
    if (remainders_mm <= multiples * _gap_tolerance_mm(usual_mm)).all():
        missing = int(multiples.sum()) - odd.size
        verb = "slice is" if missing == 1 else "slices are"
        return SeriesRefused(Reason.SLICE_MISSING, f"{where}: {missing} {verb} missing; send the whole series again")
    return SeriesRefused(
        Reason.SLICE_GAPS_UNEVEN,
        f"{where}, and {odd.size - 1} more gaps differ (from {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm); send a "
        "reconstruction with even gaps",
    )


def _check_no_gap_stands_out(geometry: SeriesGeometry, gaps_mm: NDArray[np.float64]) -> None:
    beside_mm = np.maximum(np.append(gaps_mm[1:], 0.0), np.append(0.0, gaps_mm[:-1]))
    odd = np.flatnonzero(gaps_mm > MAX_GAP_STEP * beside_mm + GAP_TOLERANCE_MM)
    if odd.size:
        first = int(odd[0])
        raise SeriesRefused(
            Reason.SLICE_MISSING,
            f"the gap of {gaps_mm[first]:.2f} mm after {_place(geometry, first)} is wider than those beside it "
            f"({beside_mm[first]:.2f} mm): a slice seems to be missing; send the whole series again",
        )


def _check_straight(geometry: SeriesGeometry) -> None:
    """Refuse a stack that leans more than a gantry can tilt, and a slice that lies off the line of the others."""
    along_mm = geometry.positions_mm @ np.asarray(geometry.normal)
    along_mm -= along_mm[0]
    slope = geometry.shear[-1] / along_mm[-1]
    lean = degrees(atan2(float(np.hypot(*slope)), 1.0))
    if lean > MAX_TILT_DEGREES:
        raise SeriesRefused(
            Reason.ORIENTATION_UNSUPPORTED,
            f"the stack leans by {lean:.1f} degrees, more than any gantry tilts ({MAX_TILT_DEGREES:.0f}); send an "
            "axial reconstruction",
        )
    off_mm = np.linalg.norm(geometry.shear - np.outer(along_mm, slope), axis=1)
    worst = int(np.argmax(off_mm))
    if off_mm[worst] > SHIFT_TOLERANCE_MM:
        raise SeriesRefused(
            Reason.ORIENTATION_UNSUPPORTED,
            f"{_place(geometry, worst)} lies {off_mm[worst]:.2f} mm to the side of the line of the slices, as if the "
            "table or the patient had moved; send a reconstruction without shift",
        )


def _gap_tolerance_mm(usual_mm: float) -> float:
    return GAP_TOLERANCE_MM + GAP_TOLERANCE_FRACTION * usual_mm


def _place(geometry: SeriesGeometry, index: int) -> str:
    return f"slice {index + 1} (z = {geometry.positions_mm[index, 2]:.1f} mm)"
