"""What `examine` finds in a structure set from anywhere: nothing in a good one, and each fault by its own rule."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.findings import Finding, Severity
from appliance.dicom.roi import RoiTemplate
from appliance.dicom.structure_check import examine
from tests.support.ct_files import make_ct_series, read_series, set_raw
from tests.support.foreign_structure_sets import FORMS, Form, drawn_structure_set, foreign_structure_set
from tests.support.structure_sets import sample_regions, template

SHAPE = (6, 40, 50)
Drawn = dict[str, list[tuple[int, NDArray[np.float64]]]]
Change = Callable[[FileDataset], object]
ROIS: dict[str, RoiTemplate] = {
    name: template(name, number)
    for number, name in enumerate(("External", "Bladder", "Rectum", "Femur_L", "Femur_R"), start=1)
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], CtSeries]:
    paths = make_ct_series(tmp_path_factory.mktemp("ct"), slices=SHAPE[0], rows=SHAPE[1], columns=SHAPE[2])
    return paths, read_series(paths)


def polygon(series: CtSeries, k: int, *corners: tuple[float, float]) -> tuple[int, NDArray[np.float64]]:
    """A contour on slice k, given by (column, row) indices."""
    return k, series.geometry.plane(k).to_patient_mm(corners)


def square(series: CtSeries, k: int, left: float, top: float, size: float) -> tuple[int, NDArray[np.float64]]:
    right, bottom = left + size, top + size
    return polygon(series, k, (left, top), (right, top), (right, bottom), (left, bottom))


def organs(series: CtSeries) -> Drawn:
    """Two organs, apart from each other and from every border."""
    return {
        "Bladder": [square(series, k, 10.5, 10.5, 8) for k in range(1, 5)],
        "Rectum": [square(series, k, 25.5, 10.5, 8) for k in range(1, 5)],
    }


def found(
    scan: tuple[list[Path], CtSeries], drawn: Drawn | None = None, change: Change = lambda _: None
) -> list[Finding]:
    content = drawn_structure_set(*scan, drawn or organs(scan[1]), Form(change=change, decimals=3))
    return examine(content, scan[1], ROIS)


def first_contour(dataset: FileDataset) -> Dataset:
    return dataset.ROIContourSequence[0].ContourSequence[0]


def test_a_good_file_is_left_in_peace(scan: tuple[list[Path], CtSeries]) -> None:
    assert found(scan) == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_form_of_another_program_is_too_much(scan: tuple[list[Path], CtSeries], form: Form) -> None:
    regions = sample_regions(SHAPE)
    small = {name: regions[name] for name in ("External", "Rings", "Rows", "Nothing")}
    errors = {
        finding.rule
        for finding in examine(foreign_structure_set(*scan, small, form), scan[1], ROIS)
        if finding.severity is Severity.ERROR
    }
    assert errors == ({"element_missing", "file_meta_disagrees"} if form is FORMS["DicomRTTool"] else set())


def shorten(dataset: FileDataset) -> None:
    contour = first_contour(dataset)
    contour.NumberOfContourPoints, contour.ContourData = 2, contour.ContourData[:6]


def lift(dataset: FileDataset, by_mm: float, points: slice) -> None:
    contour = first_contour(dataset)
    points_mm = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
    points_mm[points, 2] += by_mm
    contour.ContourData = [f"{coordinate_mm:.3f}" for coordinate_mm in points_mm.ravel()]


def relate(dataset: FileDataset, number: int) -> None:
    related = Dataset()
    related.ReferencedROINumber = number
    dataset.RTROIObservationsSequence[1].RTRelatedROISequence = [related]


def rename(*names: str) -> Change:
    def change(dataset: FileDataset) -> None:
        for item, name in zip(dataset.StructureSetROISequence, names, strict=False):
            set_raw(item, "ROIName", name.encode())
            item["ROIName"].VR, item["ROIName"]._value = "LO", name

    return change


def drop_listed_image(dataset: FileDataset) -> None:
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    del frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence[1]


FAULTS: dict[str, tuple[Change, tuple[Severity, str, str], str]] = {
    "another patient": (
        lambda ds: setattr(ds, "PatientID", "OTHER"),
        (Severity.ERROR, "patient_differs", ""),
        "the patient's ID is not that of the images",
    ),
    "another name of the patient": (
        lambda ds: setattr(ds, "PatientName", "MÃ¼ller"),
        (Severity.WARNING, "patient_name_differs", ""),
        "the patient's name is written otherwise than in the images",
    ),
    "another study": (
        lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"),
        (Severity.ERROR, "study_differs", ""),
        "its study is not that of the images",
    ),
    "an image that is not listed": (
        drop_listed_image,
        (Severity.WARNING, "image_not_listed", ""),
        "its list of images lacks 1 image with contours",
    ),
    "approved": (
        lambda ds: setattr(ds, "ApprovalStatus", "APPROVED"),
        (Severity.NOTE, "approval", ""),
        "a person approved it",
    ),
    "rejected": (
        lambda ds: setattr(ds, "ApprovalStatus", "REJECTED"),
        (Severity.WARNING, "approval", ""),
        "its approval status is REJECTED",
    ),
    "a long name": (
        rename("Bladder_and_more_"),
        (Severity.WARNING, "name_long", "Bladder_and_more_"),
        "longer than 16 characters",
    ),
    "a name with a space": (rename(" Bladder"), (Severity.WARNING, "name_spaces", "Bladder"), "begins or ends"),
    "one name twice": (
        rename("Bladder", "Bladder"),
        (Severity.ERROR, "name_doubled", "Bladder"),
        "2 structures have this name",
    ),
    "names that differ in case": (
        rename("Bladder", "BLADDER"),
        (Severity.WARNING, "name_doubled", "BLADDER"),
        "upper and lower case only",
    ),
    "an unknown name": (rename("Gallbladder"), (Severity.NOTE, "name_unknown", ""), "not in rois.toml: Gallbladder"),
    "no type": (
        lambda ds: setattr(ds.RTROIObservationsSequence[0], "RTROIInterpretedType", ""),
        (Severity.NOTE, "type_empty", ""),
        "without RT ROI Interpreted Type: Bladder",
    ),
    "a related structure that is not there": (
        lambda ds: relate(ds, 99),
        (Severity.WARNING, "relation_dangling", "Rectum"),
        "related to a structure that is not in the file",
    ),
    "an open contour": (
        lambda ds: setattr(first_contour(ds), "ContourGeometricType", "OPEN_PLANAR"),
        (Severity.NOTE, "contour_type", "Bladder"),
        "1 of its contours are OPEN_PLANAR",
    ),
    "a contour of two points": (
        shorten,
        (Severity.WARNING, "contour_short", "Bladder"),
        "fewer than three points, first at z = -809.0 mm",
    ),
    "a wrong count": (
        lambda ds: setattr(first_contour(ds), "NumberOfContourPoints", 7),
        (Severity.ERROR, "contour_unreadable", "Bladder"),
        "its contour 1 says that it has 7 points and holds 4",
    ),
    "one contour twice": (
        lambda ds: ds.ROIContourSequence[0].ContourSequence.append(first_contour(ds)),
        (Severity.ERROR, "contour_doubled", "Bladder"),
        "the same contour twice at z = -809.0 mm",
    ),
    "a bent contour": (
        lambda ds: lift(ds, 0.3, slice(0, 1)),
        (Severity.ERROR, "contour_not_planar", "Bladder"),
        "1 of its contours are not flat",
    ),
    "a contour a little off": (
        lambda ds: lift(ds, 0.2, slice(None)),
        (Severity.NOTE, "contour_off_plane", "Bladder"),
        "a little off the planes of the images, 0.20 mm at z = -808.8 mm",
    ),
    "a contour off the planes": (
        lambda ds: lift(ds, 1.2, slice(None)),
        (Severity.ERROR, "contour_off_plane", "Bladder"),
        "1 of its contours lie off the planes of the images, 1.20 mm at z = -807.8 mm",
    ),
    "a contour without image": (
        lambda ds: delattr(first_contour(ds), "ContourImageSequence"),
        (Severity.WARNING, "contour_without_image", "Bladder"),
        "1 of its contours name no image",
    ),
    "a contour on the wrong image": (
        lambda ds: setattr(
            first_contour(ds),
            "ContourImageSequence",
            ds.ROIContourSequence[0].ContourSequence[1].ContourImageSequence,
        ),
        (Severity.ERROR, "contour_on_wrong_image", "Bladder"),
        "name another image than they lie on, first at z = -809.0 mm",
    ),
    "a wrong volume": (
        lambda ds: setattr(ds.StructureSetROISequence[1], "ROIVolume", "99.5"),
        (Severity.WARNING, "volume_differs", "Rectum"),
        "it says that its volume is 99.5 cm³, its contours hold 0.9 cm³",
    ),
    "an empty list of contours": (
        lambda ds: setattr(ds.ROIContourSequence[1], "ContourSequence", Sequence()),
        (Severity.WARNING, "contour_sequence_empty", "Rectum"),
        "its Contour Sequence has no items",
    ),
    "no list of contours": (
        lambda ds: delattr(ds.ROIContourSequence[1], "ContourSequence"),
        (Severity.NOTE, "structure_empty", "Rectum"),
        "it is declared and has no contours",
    ),
    "a structure without an observation": (
        lambda ds: ds.RTROIObservationsSequence.pop(),
        (Severity.WARNING, "roi_incomplete", ""),
        "RTROIObservationsSequence lacks ROI number 4",
    ),
    "contours of nobody": (
        lambda ds: setattr(ds.ROIContourSequence[1], "ReferencedROINumber", 99),
        (Severity.ERROR, "roi_number_dangling", ""),
        "ROIContourSequence has ROI number 99, which no structure has",
    ),
    "no number": (
        lambda ds: delattr(ds.StructureSetROISequence[1], "ROINumber"),
        (Severity.ERROR, "roi_number_missing", ""),
        "an item of StructureSetROISequence has no ROI number",
    ),
    "two externals": (
        lambda ds: [setattr(one, "RTROIInterpretedType", "EXTERNAL") for one in ds.RTROIObservationsSequence],
        (Severity.ERROR, "external_doubled", ""),
        "2 structures are of type EXTERNAL (Bladder, Rectum)",
    ),
    "both ways of holes": (
        lambda ds: setattr(first_contour(ds), "ContourGeometricType", "CLOSEDPLANAR_XOR"),
        (Severity.WARNING, "contour_type", "Bladder"),
        "some of its contours are CLOSEDPLANAR_XOR and some are not",
    ),
}


@pytest.mark.parametrize(("change", "expected", "words"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_found_by_its_own_rule(
    scan: tuple[list[Path], CtSeries], change: Change, expected: tuple[Severity, str, str], words: str
) -> None:
    findings = {(one.severity, one.rule, one.roi): one.sentence for one in found(scan, change=change)}
    assert expected in findings
    assert words in findings[expected]
    assert all("OTHER" not in sentence and "ller" not in sentence for sentence in findings.values())


def test_the_gravest_findings_come_first(scan: tuple[list[Path], CtSeries]) -> None:
    def change(dataset: FileDataset) -> None:
        dataset.ApprovalStatus = "APPROVED"
        del dataset.OperatorsName
        dataset.StudyInstanceUID = "1.2.3"

    order = [one.severity for one in found(scan, change=change)]
    assert order == [Severity.ERROR, Severity.WARNING, Severity.NOTE]


def test_what_cannot_be_read_is_one_error(scan: tuple[list[Path], CtSeries]) -> None:
    (finding,) = examine(b"nothing", scan[1], ROIS)
    assert (finding.severity, finding.rule) == (Severity.ERROR, "structure_set_unreadable")


def test_without_images_only_the_file_itself_is_examined(scan: tuple[list[Path], CtSeries]) -> None:
    content = drawn_structure_set(*scan, organs(scan[1]), Form(change=lambda ds: setattr(ds, "PatientID", "OTHER")))
    assert examine(content, None, ROIS) == []
    bent = drawn_structure_set(*scan, organs(scan[1]), Form(change=lambda ds: lift(ds, 0.3, slice(0, 1))))
    assert [one.rule for one in examine(bent, None, ROIS)] == ["contour_not_planar"]


def test_left_and_right_exchanged_is_an_error_and_a_doubtful_side_a_warning(
    scan: tuple[list[Path], CtSeries],
) -> None:
    series = scan[1]  # head first, supine: columns run to the patient's left

    def sides(findings: list[Finding]) -> list[tuple[Severity, str, str]]:
        return [(one.severity, one.rule, one.roi) for one in findings if one.rule.startswith("side")]

    low, high = ([square(series, k, left, 10.5, 6) for k in range(1, 5)] for left in (6.5, 36.5))
    for names in (("Femur_L", "Femur_R"), ("left lung", "right lung"), ("Kidney_Lt", "Kidney_Rt")):
        left, right = names
        assert sides(found(scan, {left: high, right: low})) == []
        assert sides(found(scan, {left: low, right: high})) == [(Severity.ERROR, "sides_exchanged", left)]
        assert sides(found(scan, {left: high, "Bladder": low})) == []
        assert sides(found(scan, {left: low, "Bladder": high})) == [(Severity.WARNING, "side_doubtful", left)]
        assert sides(found(scan, {right: high, "Bladder": low})) == [(Severity.WARNING, "side_doubtful", right)]
    assert sides(found(scan, {"VB_L1": low, "Lobes_L_R": low, "Bladder": high})) == []


def test_organs_that_share_voxels_are_found_unless_one_is_part_of_the_other(
    scan: tuple[list[Path], CtSeries],
) -> None:
    series = scan[1]

    def overlaps(second: float, size: float, change: Change = lambda _: None) -> list[tuple[str, str]]:
        drawn = organs(series)
        drawn["Rectum"] = [square(series, k, second, 10.5, size) for k in range(1, 5)]
        findings = found(scan, drawn, change)
        return [(one.roi, one.sentence.split(";")[0]) for one in findings if one.rule == "organs_overlap"]

    assert overlaps(16.5, 8) == [("Bladder", "25 % of it lie in Rectum as well")]
    assert overlaps(18.5, 8) == []
    assert overlaps(12.5, 4) == []
    assert overlaps(16.5, 8, lambda ds: relate(ds, 3)) == []
    assert overlaps(16.5, 8, lambda ds: setattr(ds.RTROIObservationsSequence[1], "RTROIInterpretedType", "PTV")) == []


def test_a_structure_that_is_cut_off_or_skips_a_slice_is_found(scan: tuple[list[Path], CtSeries]) -> None:
    series = scan[1]

    def words(drawn: list[tuple[int, NDArray[np.float64]]], kind: str = "ORGAN") -> list[str]:
        def change(dataset: FileDataset) -> None:
            dataset.RTROIObservationsSequence[0].RTROIInterpretedType = kind

        return [one.sentence for one in found(scan, {"Bladder": drawn}, change) if one.severity is Severity.WARNING]

    ends = [square(series, k, 10.5, 10.5, 8) for k in range(6)]
    assert words(ends) == ["it reaches the first slice and the last slice, where the scan may cut it off"]
    assert words(ends, "EXTERNAL") == []
    border = [square(series, k, -0.5, 10.5, 8) for k in range(1, 5)]
    assert words(border) == ["it reaches the border of the image, where the scan may cut it off"]
    assert words(border, "EXTERNAL") == words(border)
    assert words(border, "SUPPORT") == []
    skipping = [square(series, k, 10.5, 10.5, 8) for k in (1, 4)]
    assert words(skipping) == [
        "it is missing on 2 slices between its ends, first at z = -806.0 mm; fill them if it goes on there"
    ]
    outside = [square(series, k, -3.5, 10.5, 8) for k in range(1, 5)]
    assert words(outside)[0].startswith("it leaves its image, first at z = -809.0 mm")


def test_contours_that_cross_themselves_are_found_and_those_that_touch_are_not(
    scan: tuple[list[Path], CtSeries],
) -> None:
    series = scan[1]

    def crossing(*corners: tuple[float, float]) -> bool:
        return any(one.rule == "contour_crossing" for one in found(scan, {"Bladder": [polygon(series, 2, *corners)]}))

    bow_tie = [(5.0, 5.0), (25.0, 25.0), (25.0, 5.0), (5.0, 25.0)]
    assert crossing(*bow_tie)
    assert crossing(*bow_tie[::-1])
    assert not crossing((5.0, 5.0), (25.0, 5.0), (25.0, 25.0), (5.0, 25.0))
    keyhole = [(5.0, 5.0), (25.0, 6.0), (25.0, 25.0), (5.0, 25.0), (5.0, 5.0)]
    keyhole += [(10.3, 10.1), (10.0, 20.0), (20.0, 18.0), (18.0, 10.0), (10.3, 10.1)]
    assert not crossing(*keyhole)
    touching = [(5.0, 5.0), (25.0, 5.0), (25.0, 25.0), (15.0, 5.0), (5.0, 25.0)]
    assert not crossing(*touching)
    spiral = [(20 + r * np.cos(2 * r), 20 + r * np.sin(2 * r)) for r in np.linspace(1, 15, 300)]
    assert crossing(*spiral)  # its end runs back through all its turns


def test_hard_shapes_have_no_crossing_and_no_error(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, slices=3, rows=12, columns=15)
    for keyhole in (False, True):
        content = foreign_structure_set(paths, read_series(paths), sample_regions((3, 12, 15)), Form(keyhole=keyhole))
        rules = {one.rule for one in examine(content, read_series(paths), ROIS) if one.severity is not Severity.NOTE}
        assert rules <= {"cut_off", "slices_skipped", "organs_overlap"}
