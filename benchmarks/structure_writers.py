"""One structure set, written by one writer, in a process of its own: `python -m benchmarks.structure_writers`.

Arguments: writer, folder of the case, file to write. Loading libraries and masks is not counted; reading what the
writer wants to know of the CT, and writing the file, is. Each peer is used as its own documentation shows, with its
own defaults.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.structure_case import MB, Case, Meter


def delineate(case: Case, out: Path, meter: Meter, *, uneven_gaps: bool = False, keyhole: bool = False) -> None:
    from appliance.dicom.contours import Drawing, trace
    from appliance.dicom.ct_series import assemble_series
    from appliance.dicom.ct_slice import parse_slice
    from appliance.dicom.roi import RoiMask

    masks = case.masks()
    meter.begin()
    with meter.stage("headers"):
        series = assemble_series([parse_slice(path) for path in case.ct.iterdir()], uneven_gaps=uneven_gaps)
    with meter.stage("boxes"):
        boxes = [RoiMask.from_volume(name, mask) for name, mask in masks.items()]
    with meter.stage("trace"):
        contours = [trace(box, series.geometry, Drawing(keyhole=keyhole)) for box in boxes]
    _delineate_file(out, meter, series, boxes, contours, holes="keyhole" if keyhole else "nested")


def delineate_keyhole(case: Case, out: Path, meter: Meter) -> None:
    delineate(case, out, meter, keyhole=True)


def delineate_uneven(case: Case, out: Path, meter: Meter) -> None:
    delineate(case, out, meter, uneven_gaps=True)


def delineate_probabilities(case: Case, out: Path, meter: Meter, *, simplify_mm: float = 0.0) -> None:
    """The same from probabilities; they are handed over one by one, as they would not fit into a small memory."""
    from appliance.dicom.contours import Drawing, trace
    from appliance.dicom.ct_series import assemble_series
    from appliance.dicom.ct_slice import parse_slice
    from appliance.dicom.roi import RoiMask

    boxes, contours = [], []
    meter.begin()
    with meter.stage("headers"):
        series = assemble_series([parse_slice(path) for path in case.ct.iterdir()])
    for name in case.names:
        probability = case.probability(name)
        with meter.stage("boxes", probability.nbytes / MB):
            boxes.append(RoiMask.from_probabilities(name, probability))
        with meter.stage("trace", probability.nbytes / MB):
            contours.append(trace(boxes[-1], series.geometry, Drawing(simplify_mm=simplify_mm)))
    del probability
    _delineate_file(out, meter, series, boxes, contours)


def delineate_simplified(case: Case, out: Path, meter: Meter) -> None:
    delineate_probabilities(case, out, meter, simplify_mm=0.1)


def _delineate_file(
    out: Path, meter: Meter, series: object, boxes: list, contours: list, *, holes: str = "nested"
) -> None:
    """Write the file, and check it as the appliance does before it sends one, which is measured by itself."""
    from appliance.dicom.planning_system import PlanningSystem
    from appliance.dicom.roi import RoiTemplate
    from appliance.dicom.roi_elements import DrawnRoi
    from appliance.dicom.structure_check import check_structure_set
    from appliance.dicom.structure_set import build_structure_set
    from appliance.errors import Refused
    from tests.support.structure_sets import PROVENANCE

    with meter.stage("write"):
        rois = []
        for number, (box, one) in enumerate(zip(boxes, contours, strict=True), start=1):
            kind = "EXTERNAL" if one.name == "External" else "ORGAN"
            colour = (250 - 9 * number, 9 * number, 0)
            template = RoiTemplate(name=one.name, number=number, colour=colour, interpreted_type=kind)
            rois.append(DrawnRoi(template=template, contours=one, volume_cm3=box.volume_cm3(series.geometry)))
        content = build_structure_set(series, rois, PROVENANCE, PlanningSystem(holes=holes)).content
        out.write_bytes(content)
    checking = Meter()
    checking.begin()
    verdict = "passed"
    with checking.stage("check"):
        try:
            check_structure_set(content, series, boxes)
        except Refused as refusal:
            verdict = str(refusal)
    meter.report(check_s=checking.stages["check"], check=verdict)


def rt_utils(case: Case, out: Path, meter: Meter) -> None:
    from rt_utils import RTStructBuilder

    masks = case.masks()
    meter.begin()
    with meter.stage("all"):
        structure_set = RTStructBuilder.create_new(dicom_series_path=str(case.ct))
        for name, mask in masks.items():
            structure_set.add_roi(mask=np.moveaxis(mask, 0, -1), name=name)
        structure_set.save(str(out))
    meter.report()


def pydicomrt(case: Case, out: Path, meter: Meter) -> None:
    from pydicomrt.rs.builder import RTStructBuilder
    from pydicomrt.utils.image_series_loader import load_sorted_image_series

    masks = case.masks()
    meter.begin()
    with meter.stage("all"):
        builder = RTStructBuilder(load_sorted_image_series(str(case.ct)))
        for name, mask in masks.items():
            builder.add_roi(mask=mask, name=name)
        builder.build().save_as(out, enforce_file_format=True)
    meter.report()


def plastimatch(case: Case, out: Path, meter: Meter) -> None:
    """The command-line program; its masks are image files with the geometry that ITK reads from the CT."""
    import SimpleITK as sitk

    folder, masks = out.parent / "plastimatch", out.parent / "masks"
    for one in (folder, masks):
        one.mkdir()
    ct = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(case.ct)))
    for name in case.names:
        image = sitk.GetImageFromArray(case.mask(name).astype(np.uint8))
        image.CopyInformation(ct)
        sitk.WriteImage(image, masks / f"{name}.mha")
    program = Path(sys.executable).parent / "plastimatch"
    command = [program, "convert", "--input-prefix", masks, "--referenced-ct", case.ct, "--output-dicom", folder]
    meter.begin()
    with meter.stage("all"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    (written,) = (path for path in folder.iterdir() if path.name.startswith("rtss"))
    written.rename(out)
    said = [line for line in done.stdout.splitlines() if "inequal" in line or "arning" in line]
    meter.report(said=said[:1])


def dicomrttool(case: Case, out: Path, meter: Meter) -> None:
    from DicomRTTool.ReaderWriter import DicomReaderWriter

    names = case.names
    regions = np.stack([np.zeros_like(case.mask(names[0])), *case.masks().values()], axis=-1).astype(np.uint8)
    folder = out.parent / "dicomrttool"
    meter.begin()
    with meter.stage("all"):
        reader = DicomReaderWriter(description="benchmark", arg_max=False, verbose=False)
        reader.walk_through_folders(str(case.ct))
        reader.get_images()
        reader.prediction_array_to_RT(regions, str(folder), names)
    (written,) = folder.glob("*.dcm")
    written.rename(out)
    meter.report()


WRITERS: dict[str, Callable[[Case, Path, Meter], None]] = {
    "delineate": delineate,
    "delineate-keyhole": delineate_keyhole,
    "delineate-uneven": delineate_uneven,
    "delineate-probabilities": delineate_probabilities,
    "delineate-simplified": delineate_simplified,
    "rt-utils": rt_utils,
    "pydicomrt": pydicomrt,
    "plastimatch": plastimatch,
    "DicomRTTool": dicomrttool,
}

if __name__ == "__main__":
    WRITERS[sys.argv[1]](Case(Path(sys.argv[2])), Path(sys.argv[3]), Meter())
