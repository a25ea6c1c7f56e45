"""One structure set, read as masks by one reader, in a process of its own: `python -m benchmarks.structure_readers`.

Arguments: reader, folder of the case, structure set, folder for its files. Loading libraries is not counted, reading
what the reader wants to know of the CT is. The masks are compared with the truth afterwards.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.structure_case import Case, Meter

Masks = dict[str, NDArray]


def delineate(case: Case, source: Path, _folder: Path, meter: Meter) -> Masks:
    from appliance.dicom.ct_series import assemble_series
    from appliance.dicom.ct_slice import parse_slice
    from appliance.dicom.structure_reader import read_regions

    meter.begin()
    with meter.stage("headers"):
        series = assemble_series([parse_slice(path) for path in case.ct.iterdir()])
    with meter.stage("read"):
        regions = read_regions(source, series)
    return {name: region.in_grid(series.geometry.shape) for name, region in regions.items()}


def rt_utils(case: Case, source: Path, _folder: Path, meter: Meter) -> Masks:
    from rt_utils import RTStructBuilder

    meter.begin()
    with meter.stage("all"):
        structure_set = RTStructBuilder.create_from(dicom_series_path=str(case.ct), rt_struct_path=str(source))
        masks = {name: structure_set.get_roi_mask_by_name(name) for name in structure_set.get_roi_names()}
    return {name: np.moveaxis(mask, -1, 0) for name, mask in masks.items()}


def pydicomrt(case: Case, source: Path, _folder: Path, meter: Meter) -> Masks:
    from pydicom import dcmread
    from pydicomrt.rs.rs_to_volume import calc_image_series_affine_mapping, rtstruct_to_masks
    from pydicomrt.utils.image_series_loader import load_sorted_image_series

    meter.begin()
    with meter.stage("all"):
        affine, shape = calc_image_series_affine_mapping(load_sorted_image_series(str(case.ct)))
        regions = rtstruct_to_masks(dcmread(source), affine, shape)
    return {name: region["mask_volume"] for name, region in regions.items()}


def plastimatch(case: Case, source: Path, folder: Path, meter: Meter) -> Masks:
    program = Path(sys.executable).parent / "plastimatch"
    command = [program, "convert", "--input", source, "--referenced-ct", case.ct, "--output-prefix", folder]
    meter.begin()
    with meter.stage("all"):
        subprocess.run([*command, "--prefix-format", "mha"], capture_output=True, check=True)
    return _images(folder.glob("*.mha"))


def dicomrttool(case: Case, source: Path, folder: Path, meter: Meter) -> Masks:
    from DicomRTTool.ReaderWriter import DicomReaderWriter

    for path in [*case.ct.iterdir(), source]:
        (folder / path.name).symlink_to(path.resolve())
    meter.begin()
    with meter.stage("all"):
        reader = DicomReaderWriter(description="benchmark", arg_max=False, verbose=False)
        reader.walk_through_folders(str(folder))
        names = reader.return_rois(print_rois=False)
        reader.set_contour_names_and_associations(contour_names=names)
        reader.get_images_and_mask()
        masks = reader.mask
    return {name: masks[..., number] for number, name in enumerate(names, start=1)}


def dcmrtstruct2nii(case: Case, source: Path, folder: Path, meter: Meter) -> Masks:
    from dcmrtstruct2nii import dcmrtstruct2nii

    meter.begin()
    with meter.stage("all"):
        dcmrtstruct2nii(str(source), str(case.ct), str(folder), gzip=False, convert_original_dicom=False)
    return _images(folder.glob("mask_*.nii"))


def platipy(case: Case, source: Path, folder: Path, meter: Meter) -> Masks:
    from platipy.dicom.io.rtstruct_to_nifti import convert_rtstruct

    meter.begin()
    with meter.stage("all"):
        convert_rtstruct(str(case.ct), str(source), prefix="", output_dir=folder)
    return _images(folder.glob("*.nii.gz"))


def _images(paths: Iterable[Path]) -> Masks:
    import SimpleITK as sitk

    masks = {}
    for path in paths:
        name = path.name.split(".")[0].removeprefix("mask_")
        masks[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
    return masks


def _dice(found: Masks, case: Case) -> dict[str, float | None]:
    """Return the overlap with the truth by name; 0 for what was not found, None for masks of another shape."""
    by_plain_name = {_plain(name): mask for name, mask in found.items()}
    scores: dict[str, float | None] = {}
    for name in case.names:
        truth, mask = case.mask(name), by_plain_name.get(_plain(name))
        if mask is None:
            scores[name] = 0.0
        elif mask.shape != truth.shape:
            scores[name] = None
        else:
            inside = mask.astype(bool)
            scores[name] = float(2 * (inside & truth).sum() / max(1, inside.sum() + truth.sum()))
    return scores


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


READERS: dict[str, Callable[[Case, Path, Path, Meter], Masks]] = {
    "delineate": delineate,
    "rt-utils": rt_utils,
    "pydicomrt": pydicomrt,
    "plastimatch": plastimatch,
    "DicomRTTool": dicomrttool,
    "dcmrtstruct2nii": dcmrtstruct2nii,
    "platipy": platipy,
}

if __name__ == "__main__":
    one_case, one_meter = Case(Path(sys.argv[2])), Meter()
    read = READERS[sys.argv[1]](one_case, Path(sys.argv[3]), Path(sys.argv[4]), one_meter)
    one_meter.report(dice=_dice(read, one_case))
