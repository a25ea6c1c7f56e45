"""CT series to put the analytic phantom on: a large plain one, and small ones of every geometry that scanners make."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import cos, radians, sin
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tests.support.ct_files import ORIENTATIONS, all_slices, make_ct_series

Vector = tuple[float, float, float]

_CENTRE_MM = (-12.0, 38.0, 150.0)
"""What lies in the middle of the small series: the upper thorax."""
_FEW = ("External", "Skin", "Lung_L", "Lung_R", "Heart", "SpinalCord", "Esophagus", "PTV", "CouchSurface")


@dataclass(frozen=True, kw_only=True)
class PhantomSeries:
    """How a CT series lies in the patient, and how its files differ from plain ones.

    Attributes:
        names: the structures that are drawn on it; empty for all.
        spacing_mm: distance between rows, distance between columns.
        heights_mm: where each slice lies along the line of the slices.
        cosines: Image Orientation (Patient).
        step: unit vector from slice to slice; None for the normal.
        origin_mm: centre of the first voxel; None puts the phantom's thorax into the middle.
        missing: slices, by number, that are left out.
        elements: what is set in each data set besides, by keyword, for the index of a slice; None deletes the element.
    """

    title: str
    names: tuple[str, ...] = _FEW
    rows: int = 256
    columns: int = 256
    spacing_mm: tuple[float, float] = (1.9531, 1.9531)
    heights_mm: tuple[float, ...] = tuple(3.0 * index for index in range(60))
    cosines: Sequence[float] = ORIENTATIONS["HFS"]
    position: str = "HFS"
    step: Vector | None = None
    origin_mm: Vector | None = None
    missing: tuple[int, ...] = ()
    elements: Callable[[int], dict[str, object]] = field(default=lambda _index: {})

    def write(self, folder: Path) -> list[Path]:
        """Write the files, under names whose order says nothing; returns them in that order."""
        positions_mm = self._positions_mm()

        def change(index: int, dataset: Dataset) -> None:
            dataset.ImagePositionPatient = [f"{along_mm:.6f}" for along_mm in positions_mm[index]]
            dataset.PatientPosition = self.position
            all_slices(**self.elements(index))(index, dataset)

        slices = len(self.heights_mm)
        paths = make_ct_series(
            folder,
            slices=slices,
            rows=self.rows,
            columns=self.columns,
            pixel_spacing_mm=self.spacing_mm,
            orientation=self.cosines,
            patient_name="Müller^Jürgen".encode(),
            charset="ISO_IR 192",
            hu=np.broadcast_to(np.int16(0), (slices, self.rows, self.columns)),
            series=self.title,
            mutate=change,
        )
        for index in self.missing:
            paths[index].unlink()
        kept = [path for index, path in enumerate(paths) if index not in self.missing]
        random.Random(0).shuffle(kept)
        return [path.rename(folder / f"IM{number:05d}.dcm") for number, path in enumerate(kept)]

    def _positions_mm(self) -> np.ndarray:
        along_row, along_column = np.array(self.cosines[:3]), np.array(self.cosines[3:])
        step = np.cross(along_row, along_column) if self.step is None else np.array(self.step)
        heights_mm = np.array(self.heights_mm)
        if self.origin_mm is not None:
            return np.array(self.origin_mm) + np.outer(heights_mm - heights_mm[0], step)
        across_mm = self.spacing_mm[1] * (self.columns - 1) / 2.0 * along_row
        down_mm = self.spacing_mm[0] * (self.rows - 1) / 2.0 * along_column
        middle_mm = (heights_mm[0] + heights_mm[-1]) / 2.0
        return np.array(_CENTRE_MM) - across_mm - down_mm + np.outer(heights_mm - middle_mm, step)


def _oblique(about_x: float, about_y: float) -> tuple[float, ...]:
    """Return the cosines of an axial image turned by so many degrees."""
    a, b = radians(about_x), radians(about_y)
    return (cos(b), 0.0, -sin(b), sin(a) * sin(b), cos(a), sin(a) * cos(b))


def _long_decimals(index: int) -> dict[str, object]:
    return {
        "PixelSpacing": ["1.95312500000123", "1.95312500000123"],
        "ImagePositionPatient": ["-261.85712345678", "-210.98765432109", f"{61.5123456789012 + 3.0 * index:.13f}"[:16]],
    }


BASE = PhantomSeries(
    title="base",
    names=(),
    rows=512,
    columns=512,
    spacing_mm=(0.9766, 0.9766),
    heights_mm=tuple(2.5 * index for index in range(200)),
    origin_mm=(-261.857, -210.98, -123.7),
)
PLAIN = PhantomSeries(title="HFS")
VARIANTS = (
    PLAIN,
    *(
        PhantomSeries(title=name, position=name, cosines=ORIENTATIONS[name])
        for name in ("HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR")
    ),
    PhantomSeries(title="oblique 20/15 degrees", cosines=_oblique(20, 15)),
    PhantomSeries(
        title="gantry tilt 15 degrees",
        cosines=(1.0, 0.0, 0.0, 0.0, cos(radians(15)), -sin(radians(15))),
        step=(0.0, 0.0, 1.0),
    ),
    PhantomSeries(title="non-square pixels", columns=320, spacing_mm=(1.953, 1.5625)),
    PhantomSeries(title="decimals of 16 characters", elements=_long_decimals),
    PhantomSeries(
        title="uneven gaps",
        heights_mm=(*(4.5 * index for index in range(20)), *(90.0 + 7.2 * index for index in range(20))),
    ),
    PhantomSeries(title="2 missing slices", missing=(20, 40)),
    PhantomSeries(title="reversed InstanceNumber", elements=lambda index: {"InstanceNumber": 60 - index}),
    PhantomSeries(title="no InstanceNumber", elements=lambda _index: {"InstanceNumber": None}),
)


def small(series: PhantomSeries, *, every: int) -> PhantomSeries:
    """Return a series of the same geometry on fewer, larger voxels: every so many rows, columns and slices."""
    return replace(
        series,
        rows=series.rows // every,
        columns=series.columns // every,
        spacing_mm=(series.spacing_mm[0] * every, series.spacing_mm[1] * every),
        heights_mm=series.heights_mm[::every],
        missing=tuple(sorted({index // every for index in series.missing})),
    )
