"""The picture of a result: three axial slices with the contours drawn, and a legend."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from appliance.dicom.contours import RoiContours
from appliance.dicom.ct_volume import CtVolume
from appliance.settings import Settings

_WINDOW_HU = (-160.0, 240.0)
_PANEL_PX, _LEGEND_PX, _OVERSAMPLE = 460, 150, 2


def draw(path: Path, volume: CtVolume, rois: Mapping[str, RoiContours], settings: Settings, title: str) -> None:
    """Write a PNG of the three slices that show most, with every structure in its own colour."""
    panels = [_panel(volume, rois, settings, k) for k in _telling_slices(volume.hu.shape[0], rois)]
    height = max(panel.height for panel in panels) + 34
    sheet = Image.new("RGB", (sum(panel.width for panel in panels) + _LEGEND_PX, height), (18, 18, 20))
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 34))
        left += panel.width
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    pen.text((10, 8), title, fill=(235, 235, 235), font=font)
    for row, name in enumerate(rois):
        top = 44 + 24 * row
        pen.rectangle((left + 12, top + 3, left + 26, top + 15), fill=settings.rois[name].colour)
        pen.text((left + 34, top), name, fill=(235, 235, 235), font=font)
    sheet.save(path)


def _telling_slices(count: int, rois: Mapping[str, RoiContours]) -> list[int]:
    """Three slices, well apart, on which the most structures are to be seen."""
    seen: list[set[str]] = [set() for _ in range(count)]
    for name, roi in rois.items():
        for contour in roi.contours:
            seen[contour.slice_index].add(name)
    thirds = np.array_split(np.arange(count), 3)
    return [max(third.tolist(), key=lambda k: (len(seen[k]), -abs(k - int(third.mean())))) for third in thirds]


def _panel(volume: CtVolume, rois: Mapping[str, RoiContours], settings: Settings, k: int) -> Image.Image:
    geometry = volume.geometry
    low, high = _WINDOW_HU
    grey = np.clip((volume.hu[k].astype(np.float32) - low) / (high - low), 0.0, 1.0) * 255
    row_mm, column_mm = geometry.pixel_spacing_mm
    scale = _PANEL_PX * _OVERSAMPLE / (geometry.columns * column_mm)
    size = (_PANEL_PX * _OVERSAMPLE, round(geometry.rows * row_mm * scale))
    image = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(image)
    for name, roi in rois.items():
        for contour in roi.contours:
            if contour.slice_index == k:
                corners = _to_pixels(volume, k, contour.points_mm, scale)
                pen.line([*corners, corners[0]], fill=settings.rois[name].colour, width=3, joint="curve")
    label = f"slice {k + 1} of {volume.hu.shape[0]}"
    pen.text((12, size[1] - 40), label, fill=(235, 235, 235), font=ImageFont.load_default(26))
    return image.resize((size[0] // _OVERSAMPLE, size[1] // _OVERSAMPLE), Image.Resampling.LANCZOS)


def _to_pixels(volume: CtVolume, k: int, points_mm: NDArray[np.float64], scale: float) -> Sequence[tuple[float, float]]:
    plane = volume.geometry.plane(k)
    offset = points_mm - np.asarray(plane.origin_mm)
    row_mm, column_mm = plane.pixel_spacing_mm
    across = (offset @ np.asarray(plane.row_direction) + column_mm / 2) * scale
    down = (offset @ np.asarray(plane.column_direction) + row_mm / 2) * scale
    return list(zip(across.tolist(), down.tolist(), strict=True))
