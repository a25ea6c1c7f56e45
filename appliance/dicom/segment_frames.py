"""The frames of a Segmentation: one for each segment and each slice that it reaches, and where each lies.

A frame lies exactly where its slice lies, by the slice's own position, so that gaps may differ and a tilted stack
stays tilted. Slices that a segment does not reach have no frame (PS3.3 §C.7.6.16, §C.8.20.3).
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.valuerep import format_number_as_ds

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.explicit_vr import coded, data_set
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.implicit_vr import Value
from appliance.dicom.roi import RoiMask

EVEN_MM = 0.01
"""How far the thickness of slices may differ for one number to tell it."""

_AT_ONCE = 8
"""Frames that are packed together: of eight frames the bits always fill whole bytes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Which segment, counted from 1, in which slice of the series, counted from 0."""

    segment: int
    slice_index: int


def frames_of(masks: Sequence[RoiMask]) -> list[Frame]:
    """List every slice that each mask reaches, by segment and then along the series."""
    return [
        Frame(segment, mask.box[0].start + int(plane))
        for segment, mask in enumerate(masks, start=1)
        for plane in np.flatnonzero(mask.voxels.any(axis=(1, 2)))
    ]


def packed(frames: Sequence[Frame], masks: Sequence[RoiMask], geometry: SeriesGeometry) -> Iterator[bytes]:
    """Pack frames to one bit a voxel, the first in the lowest bit, without a pause between frames (PS3.5 §8.1.1)."""
    for start in range(0, len(frames), _AT_ONCE):
        group = frames[start : start + _AT_ONCE]
        planes = np.zeros((len(group), geometry.rows, geometry.columns), np.bool_)
        for plane, frame in zip(planes, group, strict=True):
            mask = masks[frame.segment - 1]
            z, y, x = mask.box
            plane[y, x] = mask.voxels[frame.slice_index - z.start]
        yield np.packbits(planes, bitorder="little").tobytes()


def packed_length(frames: Sequence[Frame], geometry: SeriesGeometry) -> int:
    """Return how many bytes the packed frames take."""
    return -(-len(frames) * geometry.rows * geometry.columns // 8)


def any_overlap(masks: Sequence[RoiMask], geometry: SeriesGeometry) -> bool:
    """Whether a voxel belongs to two masks."""
    for index in range(len(geometry.positions_mm)):
        seen = np.zeros((geometry.rows, geometry.columns), np.bool_)
        for mask in masks:
            z, y, x = mask.box
            if z.start <= index < z.stop:
                plane = mask.voxels[index - z.start]
                if (seen[y, x] & plane).any():
                    return True
                seen[y, x] |= plane
    return False


def shared_groups(geometry: SeriesGeometry) -> bytes:
    """Encode what all frames have in common: orientation, and pixel measures where the slices are evenly thick."""
    orientation = data_set(ImageOrientationPatient=_decimals(*geometry.row_direction, *geometry.column_direction))
    groups: dict[str, Value] = {"PlaneOrientationSequence": [orientation]}
    if _is_even(geometry):
        groups["PixelMeasuresSequence"] = [_even_measures(geometry)]
    return data_set(**groups)


def frame_groups(frames: Sequence[Frame], series: CtSeries) -> list[bytes]:
    """Encode an item of the Per-frame Functional Groups Sequence for each frame."""
    segments = _ranks(frame.segment for frame in frames)
    slices = _ranks(frame.slice_index for frame in frames)
    lying = {index: _slice_groups(series, index) for index in slices}
    return [
        data_set(
            FrameContentSequence=[_dimension_index(segments[frame.segment], slices[frame.slice_index])],
            SegmentIdentificationSequence=[data_set(ReferencedSegmentNumber=frame.segment)],
            **lying[frame.slice_index],
        )
        for frame in frames
    ]


def _ranks(numbers: Iterable[int]) -> dict[int, int]:
    """Count the numbers that occur from 1 on, without gaps, as an index has to be (PS3.3 §C.7.6.17.1)."""
    return {number: rank for rank, number in enumerate(sorted(set(numbers)), start=1)}


def _dimension_index(*ranks: int) -> bytes:
    return data_set(DimensionIndexValues=struct.pack(f"<{len(ranks)}L", *ranks))


def _slice_groups(series: CtSeries, index: int) -> dict[str, Value]:
    """Where the frames of one slice lie, and from which image they are."""
    image, geometry = series.slices[index], series.geometry
    source = data_set(
        ReferencedSOPClassUID=image.sop_class_uid,
        ReferencedSOPInstanceUID=image.sop_instance_uid,
        PurposeOfReferenceCodeSequence=[coded("121322", "DCM", "Source image for image processing operation")],
        SpatialLocationsPreserved="YES",
    )
    derivation = data_set(SourceImageSequence=[source], DerivationCodeSequence=[coded("113076", "DCM", "Segmentation")])
    position = data_set(ImagePositionPatient=_decimals(*geometry.positions_mm[index].tolist()))
    groups: dict[str, Value] = {"DerivationImageSequence": [derivation], "PlanePositionSequence": [position]}
    if not _is_even(geometry):
        groups["PixelMeasuresSequence"] = [_measures(geometry, float(geometry.slice_thickness_mm[index]))]
    return groups


def _is_even(geometry: SeriesGeometry) -> bool:
    return float(np.ptp(geometry.slice_thickness_mm)) <= EVEN_MM


def _even_measures(geometry: SeriesGeometry) -> bytes:
    """Of a tilted stack no spacing is told: who stacks frames by it would straighten the stack."""
    gap = _decimals(geometry.slice_gap_mm)
    spacing: dict[str, Value] = {"SpacingBetweenSlices": gap} if geometry.is_regular else {}
    return _measures(geometry, geometry.slice_gap_mm, **spacing)


def _measures(geometry: SeriesGeometry, thickness_mm: float, **spacing: Value) -> bytes:
    pixel_spacing = _decimals(*geometry.pixel_spacing_mm)
    return data_set(PixelSpacing=pixel_spacing, SliceThickness=_decimals(thickness_mm), **spacing)


def _decimals(*values: float) -> list[str]:
    """Write numbers as exactly as 16 characters allow (PS3.5 §6.2)."""
    return [format_number_as_ds(value + 0.0) for value in values]
