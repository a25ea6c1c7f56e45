"""The picture of a result: three axial slices with the contours drawn, and a legend."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from appliance.dicom.contours import RoiContours
from appliance.dicom.ct_volume import CtVolume

Colour: TypeAlias = tuple[int, int, int]

_WINDOW_HU = (-160.0, 240.0)
_PANEL_PX, _LEGEND_PX, _OVERSAMPLE, _MARGIN_MM = 480, 150, 2, 15.0

_WINDOWS = ((0.22, 0.36), (0.42, 0.56), (0.64, 0.78))
"""Which parts of the scan the three slices are taken from: what lies between keeps them apart."""


def draw(
    path: Path, volume: CtVolume, rois: Mapping[str, RoiContours], colours: Mapping[str, Colour], title: str
) -> None:
    """Write a PNG of the three slices that show most, with every structure in its own colour (red, green, blue)."""
    panels = [_panel(volume, rois, colours, k) for k in _telling_slices(volume.hu.shape[0], rois)]
    height = max(*(panel.height + 34 for panel in panels), 54 + 24 * len(rois))
    sheet = Image.new("RGB", (sum(panel.width for panel in panels) + _LEGEND_PX, height), (18, 18, 20))
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 34))
        left += panel.width
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    pen.text((10, 8), title, fill=(235, 235, 235), font=font)
    for row, name in enumerate(rois):
        top = 44 + 24 * row
        pen.rectangle((left + 12, top + 3, left + 26, top + 15), fill=colours[name])
        pen.text((left + 34, top), name, fill=(235, 235, 235), font=font)
    sheet.save(path)


def _telling_slices(count: int, rois: Mapping[str, RoiContours]) -> list[int]:
    """Three slices, well apart, on which the most structures are to be seen."""
    seen: list[set[str]] = [set() for _ in range(count)]
    for name, roi in rois.items():
        for contour in roi.contours:
            seen[contour.slice_index].add(name)
    windows = [range(int(low * count), max(int(low * count) + 1, int(high * count))) for low, high in _WINDOWS]
    return [max(window, key=lambda k: len(seen[k])) for window in windows]


def _panel(volume: CtVolume, rois: Mapping[str, RoiContours], colours: Mapping[str, Colour], k: int) -> Image.Image:
    top, bottom, left, right = _box_of_all(volume, rois)
    low, high = _WINDOW_HU
    grey = np.clip((volume.hu[k, top:bottom, left:right].astype(np.float32) - low) / (high - low), 0.0, 1.0) * 255
    row_mm, column_mm = volume.geometry.pixel_spacing_mm
    scale = _PANEL_PX * _OVERSAMPLE / ((right - left) * column_mm)
    size = (_PANEL_PX * _OVERSAMPLE, round((bottom - top) * row_mm * scale))
    image = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(image)
    for name, roi in rois.items():
        for contour in roi.contours:
            if contour.slice_index == k:
                columns, rows = volume.geometry.plane(k).to_pixels(contour.points_mm).T
                across, down = (columns + 0.5 - left) * column_mm * scale, (rows + 0.5 - top) * row_mm * scale
                corners = list(zip(across.tolist(), down.tolist(), strict=True))
                pen.line([*corners, corners[0]], fill=colours[name], width=3, joint="curve")
    label = f"slice {k + 1} of {volume.hu.shape[0]}"
    pen.text((12, size[1] - 40), label, fill=(235, 235, 235), font=ImageFont.load_default(26))
    return image.resize((size[0] // _OVERSAMPLE, size[1] // _OVERSAMPLE), Image.Resampling.LANCZOS)


def _box_of_all(volume: CtVolume, rois: Mapping[str, RoiContours]) -> tuple[int, int, int, int]:
    """Rows and columns that show every contour of every slice, with a margin."""
    geometry = volume.geometry
    pixels = [geometry.plane(one.slice_index).to_pixels(one.points_mm) for roi in rois.values() for one in roi.contours]
    columns, rows = np.concatenate(pixels).T
    margin = _MARGIN_MM / geometry.pixel_spacing_mm[1]
    top, left = (max(0, int(axis.min() - margin)) for axis in (rows, columns))
    bottom = min(geometry.rows, int(rows.max() + margin) + 2)
    right = min(geometry.columns, int(columns.max() + margin) + 2)
    return top, bottom, left, right
