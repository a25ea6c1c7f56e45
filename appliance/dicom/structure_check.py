"""Is a structure set right? The last look at our own before they leave, and an examination of anybody's.

One list of rules (`rules/`) serves both. A result of our own is refused at the first error, and its contours, filled
again, must give back the voxels that were decided. Of a file from elsewhere everything is reported that a person may
want to know before planning on it.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from appliance.dicom.ct_series import CtSeries
from appliance.dicom.findings import Finding, Severity, error
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiMask, RoiTemplate
from appliance.dicom.rules import RULES, RULES_FOR_PEOPLE, RULES_OF_VOLUME, Examination
from appliance.dicom.standard_check import standard_errors
from appliance.dicom.structure_file import read_structure_file
from appliance.errors import Reason, ResultRefused, StructureSetRefused


def check_structure_set(
    content: bytes,
    series: CtSeries,
    masks: Sequence[RoiMask] = (),
    *,
    planning_system: PlanningSystem | None = None,
) -> list[Finding]:
    """Check a structure set of our own against the series that it was made from.

    Args:
        content: the file.
        series: the images.
        masks: the regions that were drawn, by name; filling the contours must give them back, voxel for voxel.
        planning_system: the form in which it was to be written.

    Returns:
        what is no error and still worth a look: structures that the scan cuts off, that skip a slice, or overlap.

    Raises:
        ResultRefused: RESULT_INVALID, with the first rule that is broken.
    """
    try:
        written = read_structure_file(content)
    except StructureSetRefused as refused:
        raise _invalid(refused.sentence) from refused
    exam = Examination(content, written, series, {}, own=True, planning_system=planning_system or PlanningSystem())
    worth_a_look = []
    for finding in _own_findings(exam, series, masks):
        if finding.severity is Severity.ERROR:
            what, _, _ = finding.sentence.partition("; ")  # the rest says what somebody else would have to do
            raise _invalid(f"{finding.roi}: {what}" if finding.roi else what)
        if finding.severity is Severity.WARNING:
            worth_a_look.append(finding)
    return worth_a_look


def examine(content: bytes, series: CtSeries | None, rois: Mapping[str, RoiTemplate]) -> list[Finding]:
    """Examine a structure set, whoever wrote it, by the appliance's own rules.

    Args:
        content: the file.
        series: the images that it was drawn on; None when they are not at hand.
        rois: the structures that this site knows, by name.

    Returns:
        what was found, the gravest first; a file that cannot be read is one error.
    """
    try:
        exam = Examination(content, read_structure_file(content), series, rois)
    except StructureSetRefused as refused:
        return [error(str(refused.reason), refused.sentence)]
    return findings_of(exam)


def findings_of(exam: Examination) -> list[Finding]:
    """Run every rule on an opened structure set; the gravest findings come first."""
    found = [finding for rule in (*RULES, *RULES_OF_VOLUME, *RULES_FOR_PEOPLE) for finding in rule(exam)]
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))


def _own_findings(exam: Examination, series: CtSeries, masks: Sequence[RoiMask]) -> Iterator[Finding]:
    """Quick rules first, then the voxels and what follows from them, then another program's opinion."""
    for rule in RULES:
        yield from rule(exam)
    regions = {region.name: region for region in exam.regions}
    for mask in masks:
        if mask.name not in regions:
            yield error("structure_missing", f"{mask.name} is missing")
        elif not _holds_the_same_voxels(mask, exam.mask(regions[mask.name], series)):
            yield error("voxels_differ", f"filling the contours of {mask.name} does not give its voxels back")
        else:
            exam.keep(mask)
    for rule in (*RULES_OF_VOLUME, *RULES_FOR_PEOPLE):
        yield from rule(exam)
    yield from standard_errors(exam.content, exam.written)


def _holds_the_same_voxels(first: RoiMask, second: RoiMask) -> bool:
    """Tell whether two masks of one grid are the same, however much empty space their boxes hold."""
    one, other = (
        RoiMask.from_volume(mask.name, mask.voxels).moved([side.start for side in mask.box]) for mask in (first, second)
    )
    if one.is_empty or other.is_empty:
        return one.is_empty and other.is_empty
    return one.box == other.box and np.array_equal(one.voxels, other.voxels)


def _invalid(why: str) -> ResultRefused:
    return ResultRefused(
        Reason.RESULT_INVALID, f"the structure set failed its own check and was not sent: {why}; report it as a defect"
    )
