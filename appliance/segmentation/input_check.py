"""Is a scan one that the model was made for? Each limit of its manifest refuses, or warns where the manifest says so.

What is asked: distances between slices and pixels, how much of the patient is shown, reconstruction kernel, body part,
patient position, and the Hounsfield units within the body, which tell a wrong calibration or much noise.
"""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.scan_description import ScanDescription
from appliance.errors import Reason, SeriesRefused
from appliance.segmentation.manifest import Limits, Manifest
from appliance.segmentation.preprocess import BODY_HU

ROUNDING_MM = 0.05
"""What rounding of positions may add to a gap, or take from it."""

PIXEL_ROUNDING_MM = 1e-3
"""What rounding may change in a pixel spacing."""

SAMPLED = 2
"""Every second row and column are asked for their HU: every fourth voxel."""

_LOWEST_HU = -32768
_NOT_SHOWN = re.compile(r"[^A-Za-z0-9 ._+^\\-]")
_SHOWN_CHARACTERS = 16


def check_input(volume: CtVolume, description: ScanDescription, manifest: Manifest) -> tuple[str, ...]:
    """Check a scan against all limits of a model.

    Args:
        volume: the CT.
        description: what its header says beside that; a limit is not kept by a header that says nothing.
        manifest: of the model.

    Returns:
        a sentence for each limit that is not kept and only warns.

    Raises:
        SeriesRefused: INPUT_OUTSIDE_MODEL_LIMITS.
    """
    limits, model = manifest.limits, f"model {manifest.name} {manifest.version}"
    warnings = []
    for name, sentence in _broken(volume, description, limits):
        if name not in limits.warn:
            raise SeriesRefused(Reason.INPUT_OUTSIDE_MODEL_LIMITS, sentence.format(model=model))
        warnings.append(sentence.format(model=model))
    return tuple(warnings)


def body_percentiles(hu: NDArray[np.int16], percentiles: Sequence[float]) -> list[float]:
    """Percentiles of the HU within the body (above BODY_HU) of a CT (z, y, x), from every fourth voxel.

    One slice at a time is looked at. Without any body all are 0.
    """
    counts = np.zeros(2**16, np.int64)
    for plane in hu:
        sampled = plane[::SAMPLED, ::SAMPLED].ravel().astype(np.int32)
        counts += np.bincount(sampled[sampled > BODY_HU] - _LOWEST_HU, minlength=len(counts))
    below = np.cumsum(counts)
    if not below[-1]:
        return [0.0 for _ in percentiles]
    ranks = np.asarray(percentiles) / 100 * (below[-1] - 1)
    return [float(np.searchsorted(below, rank, side="right") + _LOWEST_HU) for rank in ranks]


def _broken(volume: CtVolume, description: ScanDescription, limits: Limits) -> Iterator[tuple[str, str]]:
    """The limits that a scan does not keep: name, and a sentence with a place for the model."""
    yield from _spacings(volume.geometry, limits)
    yield from _extents(volume.geometry, limits)
    for name, what, value, allowed in (
        ("kernels", "kernel", description.kernel, limits.kernels),
        ("body_parts", "body part", description.body_part, limits.body_parts),
        ("patient_positions", "patient position", description.patient_position, limits.patient_positions),
    ):
        if allowed and not _fits(value, allowed):
            said = f"the scan's {what} is {_shown(value)}" if value else f"the scan does not say its {what}"
            yield name, f"{said}; {{model}} is for {', '.join(map(_shown, allowed))}"
    wanted = [one.percentile for one in limits.hu_percentiles]
    for one, found_hu in zip(limits.hu_percentiles, body_percentiles(volume.hu, wanted) if wanted else [], strict=True):
        low_hu, high_hu = one.hu
        if not low_hu <= found_hu <= high_hu:
            usual = f"{{model}} is for scans where that is {low_hu:.0f} to {high_hu:.0f} HU"
            yield "hu_percentiles", f"{one.percentile:g} % of the body lie below {found_hu:.0f} HU; {usual}"


def _spacings(geometry: SeriesGeometry, limits: Limits) -> Iterator[tuple[str, str]]:
    low_mm, high_mm = limits.slice_spacing_mm
    gaps_mm = geometry.gaps_mm if len(geometry.positions_mm) > 1 else np.zeros(1)
    odd_mm = gaps_mm[(gaps_mm < low_mm - ROUNDING_MM) | (gaps_mm > high_mm + ROUNDING_MM)]
    if odd_mm.size:
        yield (
            "slice_spacing_mm",
            f"slices are {odd_mm[0]:.2f} mm apart; {{model}} is for {low_mm:.2f} to {high_mm:.2f} mm",
        )
    if limits.pixel_spacing_mm is not None:
        low_mm, high_mm = limits.pixel_spacing_mm
        pixels_mm = np.array(geometry.pixel_spacing_mm)
        odd_mm = pixels_mm[(pixels_mm < low_mm - PIXEL_ROUNDING_MM) | (pixels_mm > high_mm + PIXEL_ROUNDING_MM)]
        if odd_mm.size:
            yield (
                "pixel_spacing_mm",
                f"pixels are {odd_mm[0]:.3f} mm apart; {{model}} is for {low_mm:.3f} to {high_mm:.3f} mm",
            )


def _extents(geometry: SeriesGeometry, limits: Limits) -> Iterator[tuple[str, str]]:
    rows_mm, columns_mm = (
        count * spacing_mm
        for count, spacing_mm in zip((geometry.rows, geometry.columns), geometry.pixel_spacing_mm, strict=True)
    )
    lengths_mm = (float(geometry.slice_thickness_mm.sum()), rows_mm, columns_mm)
    for axis, length_mm, least_mm in zip("zyx", lengths_mm, limits.min_extent_mm, strict=True):
        if length_mm < least_mm:
            yield (
                "min_extent_mm",
                f"the scan is {length_mm:.0f} mm long along {axis}; {{model}} needs {least_mm:.0f} mm",
            )


def _fits(value: str, allowed: Sequence[str]) -> bool:
    """Whether a header value, or one of several joined by backslashes, fits a pattern, whatever the case."""
    values = {value.upper(), *(part.strip().upper() for part in value.split("\\"))}
    return any(fnmatchcase(one, pattern.upper()) for one in values for pattern in allowed)


def _shown(value: str) -> str:
    """A header value as it may stand in a sentence: short, and nothing but plain characters."""
    return _NOT_SHOWN.sub("?", value)[:_SHOWN_CHARACTERS].replace("\\", "/")
