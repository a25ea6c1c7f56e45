"""Everything that a site may set about its structures, all the way to the PACS."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from appliance.records.tables import CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.contour_judge import fill_structure_set
from tests.support.ct_files import all_slices
from tests.support.patients import SPACING_MM, make_patient

HEIGHTS_MM = np.cumsum([0.0] + [3.0] * 6 + [5.0] * 5)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """A scan that goes on with thicker slices, from a gantry that is tilted by 12 degrees."""
    cosine, sine = float(np.cos(np.radians(12))), float(np.sin(np.radians(12)))

    def mutate(index: int, dataset: Dataset) -> None:
        all_slices(BodyPartExamined="KNEE")(index, dataset)
        dataset.ImagePositionPatient = [-94.0, -94.0, f"{HEIGHTS_MM[index] / cosine:.6f}"]

    return make_patient(tmp_path / "ct", "site", orientation=(1.0, 0.0, 0.0, 0.0, cosine, sine), mutate=mutate)


def test_names_margins_rings_and_forms_reach_the_pacs_on_a_tilted_uneven_scan(
    box: ApplianceBox, paths: list[Path]
) -> None:
    box.send(paths)
    case = box.wait_for_case(paths[0], CaseState.COMMITTED)
    structure_set = box.pacs.structure_set(case.result_sop_instance_uid or "")
    names = [item.ROIName for item in structure_set.StructureSetROISequence]
    assert names == ["BODY", "Bone", "Bone_PRV04", "zShell", "Other"]
    assert "not found: Other" in structure_set.StructureSetDescription
    filled = fill_structure_set(structure_set, sorted(paths))
    assert not filled["Other"].any()
    # a bone that is round with a radius of 24 mm, in a body of 77 mm
    in_plane_mm2 = SPACING_MM[1] * SPACING_MM[2]
    radii_mm = {
        name: np.sqrt(np.count_nonzero(filled[name][3]) * in_plane_mm2 / np.pi)
        for name in ("BODY", "Bone", "Bone_PRV04")
    }
    assert radii_mm["BODY"] == pytest.approx(76.8, abs=2.0)
    assert radii_mm["Bone"] == pytest.approx(24.0, abs=1.5)
    assert radii_mm["Bone_PRV04"] - radii_mm["Bone"] == pytest.approx(4.0, abs=1.0)
    ring_mm2 = np.count_nonzero(filled["zShell"][5]) * in_plane_mm2
    assert ring_mm2 == pytest.approx(np.pi * ((24 + 20) ** 2 - (24 + 8) ** 2), rel=0.12)
    assert not (filled["zShell"] & filled["Bone_PRV04"]).any()
    assert max(contour.NumberOfContourPoints for contour in _contours(structure_set)) <= 60
    related = {item.ROIObservationLabel: item.get("RTRelatedROISequence", ()) for item in _observations(structure_set)}
    assert [one.ReferencedROINumber for one in related["zShell"]] == [7, 1]
    assert "structure_set_examined" in box.events(case)


def test_the_same_scan_is_refused_where_the_protocol_does_not_take_uneven_gaps(
    box: ApplianceBox, tmp_path: Path
) -> None:
    def mutate(index: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [-94.0, -94.0, f"{HEIGHTS_MM[index]:.6f}"]

    paths = make_patient(tmp_path / "ct", "uneven", mutate=mutate)
    box.send(paths)
    case = box.wait_for_case(paths[0], CaseState.REFUSED)
    assert case.reason == "slice_gaps_uneven"


def _contours(structure_set: Dataset) -> list[Dataset]:
    return [contour for item in structure_set.ROIContourSequence for contour in item.get("ContourSequence", ())]


def _observations(structure_set: Dataset) -> list[Dataset]:
    return list(structure_set.RTROIObservationsSequence)
