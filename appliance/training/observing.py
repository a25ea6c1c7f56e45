"""What a model does on scans whose truth is known: how good each structure is, and how sure the model was of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.dicom.ct_series import assemble_series
from appliance.dicom.ct_slice import CT_IMAGE_STORAGE, parse_slice
from appliance.dicom.ct_volume import CtVolume, load_volume
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.header import read_header
from appliance.dicom.scan_description import ScanDescription
from appliance.dicom.structure_reader import read_regions
from appliance.dicom.structure_set import RT_STRUCTURE_SET_STORAGE
from appliance.errors import Reason, SeriesRefused
from appliance.phantoms import make_phantom
from appliance.phantoms.faults import Fault, spoiled, turned
from appliance.segmentation.agreement import dice
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.input_check import body_percentiles
from appliance.segmentation.quality import RoiQuality, mean_known
from appliance.segmentation.segment import segment

Mask = npt.NDArray[np.bool_]

PERCENTILES = (5.0, 25.0, 50.0, 75.0, 95.0)
"""Of the HU within the body: the tails that noise and metal reach are left out."""

FAULTS = tuple(fault for fault in Fault if fault not in (Fault.CLEAN, Fault.MIRRORED))
"""Those that can be seen in the images: nothing can be learnt from a patient who was only mirrored."""

_PHANTOM_SPACING_MM = (4.0, 4.0, 4.0)
FAULTS_A_CASE = 4
"""So that a case is read, or drawn, once for five runs of the model, and all faults come equally often."""


@dataclass(frozen=True, eq=False)
class Case:
    """A scan with its truth.

    Attributes:
        name: for people.
        fault: what was made wrong with it; CLEAN for a scan as it is usual.
        truth: where each structure really is, (z, y, x) on the volume's grid; structures that nobody drew are absent.
        description: what its header says.
    """

    name: str
    fault: Fault
    volume: CtVolume
    truth: Mapping[str, Mask]
    description: ScanDescription = field(default_factory=ScanDescription)


@dataclass(frozen=True, slots=True)
class Observation:
    """One structure of one case.

    Attributes:
        dice: of what was found with the truth; 0 where nothing was found.
        quality: what the model said of it; None where nothing was found, which every result says in words.
    """

    case: str
    fault: Fault
    roi: str
    dice: float
    quality: RoiQuality | None


@dataclass(frozen=True, slots=True)
class CaseObservation:
    """One case.

    Attributes:
        draft_entropy: mean entropy of all structures that were found.
        body_hu: the PERCENTILES of the HU within the body.
        warnings: what was said about the scan.
        rois: one for each structure that the truth and the model both have.
    """

    case: str
    fault: Fault
    draft_entropy: float | None
    body_hu: tuple[float, ...]
    warnings: tuple[str, ...]
    rois: tuple[Observation, ...]


def observe(ensemble: Ensemble, case: Case) -> CaseObservation:
    """Segment one case and compare every structure of its truth.

    Raises:
        SeriesRefused: the scan is outside the model's limits.
    """
    found = segment(ensemble, case.volume, case.description)
    masks = {mask.name: mask for mask in found.masks}
    quality = {one.name: one for one in found.quality}
    shape = case.volume.geometry.shape
    truth = {name.casefold(): mask for name, mask in case.truth.items()}
    rois = []
    for roi in ensemble.package.manifest.rois:
        expected = truth.get(roi.name.casefold())
        if expected is not None:
            overlap = dice(masks[roi.name].in_grid(shape), expected) if roi.name in masks else 0.0
            rois.append(Observation(case.name, case.fault, roi.name, overlap, quality.get(roi.name)))
    entropies = mean_known([one.entropy for one in found.quality])
    body_hu = tuple(body_percentiles(case.volume.hu, PERCENTILES))
    return CaseObservation(case.name, case.fault, entropies, body_hu, found.warnings, tuple(rois))


def phantom_cases(seeds: Sequence[int]) -> Iterator[Case]:
    """Phantoms with all kinds of faults; the same seeds always give the same cases."""
    for index, seed in enumerate(seeds):
        yield from with_faults(phantom_case(seed), index, np.random.default_rng([seed, 3]))


def phantom_case(seed: int) -> Case:
    """One phantom as it is."""
    phantom = make_phantom(seed, spacing_mm=_PHANTOM_SPACING_MM)
    geometry = SeriesGeometry.axial(phantom.hu.shape, phantom.spacing_mm, phantom.origin_mm)
    return Case(f"phantom {seed}", Fault.CLEAN, CtVolume(phantom.hu, geometry), phantom.truth)


def count_phantom_cases(seeds: Sequence[int]) -> int:
    """How many cases that makes."""
    return len(seeds) * (1 + FAULTS_A_CASE)


def hospital_cases(folder: Path) -> Iterator[Case]:
    """A hospital's own cases, and each of them with faults.

    Args:
        folder: one folder for each case, with the files of one CT series and of one structure set that a person drew;
            structures are taken by the names that the model gives them, whatever the case of the letters.

    Raises:
        Refused: a file cannot be read, or the structure set is not of these images.
        SeriesRefused: a folder holds no structure set, or several.
        OSError: a file cannot be read.
    """
    for index, case in enumerate(_case_folders(folder)):
        clean = _read_case(case, name=f"case {index + 1}")  # folders are often named after patients
        yield from with_faults(clean, index, np.random.default_rng([index, 4]))


def with_faults(clean: Case, index: int, rng: np.random.Generator) -> Iterator[Case]:
    """A case as it is, and with four of the seven faults in turn, each of a severity of its own."""
    yield clean
    for step in range(FAULTS_A_CASE):
        fault = FAULTS[((1 + FAULTS_A_CASE) * index + step) % len(FAULTS)]
        yield with_fault(clean, fault, float(rng.random()), rng)


def with_fault(clean: Case, fault: Fault, severity: float, rng: np.random.Generator) -> Case:
    """A case with one fault; the truth lies where the fault put it."""
    geometry = clean.volume.geometry
    hu = spoiled(clean.volume.hu, fault, severity, geometry.spacing_mm, rng)
    truth = {name: turned(mask, fault) for name, mask in clean.truth.items()}
    return replace(clean, fault=fault, volume=CtVolume(hu, geometry), truth=truth)


def count_hospital_cases(folder: Path) -> int:
    """How many cases a folder gives, with their faults."""
    return len(_case_folders(folder)) * (1 + FAULTS_A_CASE)


def _case_folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir())


def _read_case(folder: Path, name: str) -> Case:
    classes: dict[str, list[Path]] = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        classes.setdefault(read_header(path.read_bytes()).uid("SOPClassUID"), []).append(path)
    drawn = classes.get(RT_STRUCTURE_SET_STORAGE, [])
    if len(drawn) != 1:
        raise SeriesRefused(
            Reason.STRUCTURE_SET_UNCLEAR,
            f"{name} of the folder holds {len(drawn)} structure sets where one belongs; leave the one that is true",
        )
    series = assemble_series([parse_slice(path) for path in classes.get(CT_IMAGE_STORAGE, [])], uneven_gaps=True)
    volume = load_volume(series)
    regions = read_regions(drawn[0], series)
    truth = {roi: mask.in_grid(volume.geometry.shape) for roi, mask in regions.items() if not mask.is_empty}
    return Case(name, Fault.CLEAN, volume, truth, series.description)
