"""`delineate check`: a structure set from anywhere, examined in words; with its CT, also where it lies."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from appliance.dicom.ct_series import CtSeries, assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.findings import Finding, Severity, amount, error, note, warning
from appliance.dicom.header import read_header
from appliance.dicom.roi import RoiTemplate
from appliance.dicom.rules import Examination
from appliance.dicom.rules.examination import ExaminedRegion
from appliance.dicom.rules.identity import printable
from appliance.dicom.standard_check import standard_findings
from appliance.dicom.structure_check import findings_of
from appliance.dicom.structure_file import WrittenStructureSet, read_structure_file
from appliance.errors import Refused, StructureSetRefused

_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@dataclass(frozen=True, slots=True)
class Structure:
    """One line of the table: what a file holds of a structure.

    Attributes:
        volume_cm3: volume of its voxels; None without images.
        z_mm: lowest and highest z of its points; None when it has none.
        slices: first and last slice that it is drawn on, from 1; None without images.
    """

    name: str
    type: str
    contours: int
    points: int
    volume_cm3: float | None
    z_mm: tuple[float, float] | None
    slices: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out about a structure set file.

    Attributes:
        images: a sentence about the images that it was compared with, or why with none.
        findings: the gravest first.
    """

    images: str
    structures: tuple[Structure, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are so grave."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def has_errors(self) -> bool:
        """Whether anything must be corrected."""
        return self.count(Severity.ERROR) > 0

    @property
    def summary(self) -> str:
        """One line for the end."""
        counts = [amount(self.count(severity), str(severity)) for severity in Severity if self.count(severity)]
        found = ", ".join(counts) or "nothing to complain of"
        where = f", {self.images}" if self.images else ""
        return f"{found} in {amount(len(self.structures), 'structure')}{where}."


def check_file(file: Path, folder: Path | None, rois: Mapping[str, RoiTemplate]) -> Report:
    """Examine a structure set file, against the CT series that it refers to if `folder` holds that.

    Raises:
        OSError: the file cannot be read.
    """
    content = file.read_bytes()
    try:
        written = read_structure_file(content)
    except StructureSetRefused as refused:
        return Report("", (), (error(str(refused.reason), refused.sentence),))
    series, about_images = _series_of(written, folder)
    exam = Examination(content, written, series, rois)
    found = [*findings_of(exam), *standard_findings(content, written), about_images]
    order = list(Severity)
    findings = sorted(filter(None, found), key=lambda finding: order.index(finding.severity))
    structures = tuple(_structure(exam, region) for region in exam.regions)
    return Report(_images_in_words(series), structures, tuple(findings))


def structures_table(report: Report) -> Table:
    """The structures as a table for a terminal."""
    table = Table(title="Structures", title_justify="left")
    for heading in ("Name", "Type"):
        table.add_column(heading)
    for heading in ("Contours", "Points", "Volume cm³", "Slices", "z mm"):
        table.add_column(heading, justify="right")
    for one in report.structures:
        volume = "" if one.volume_cm3 is None else f"{one.volume_cm3:.1f}"
        slices = "" if one.slices is None else f"{one.slices[0]} to {one.slices[1]}"
        z_mm = "" if one.z_mm is None else f"{one.z_mm[0]:.1f} to {one.z_mm[1]:.1f}"
        table.add_row(Text(one.name), Text(one.type), str(one.contours), str(one.points), volume, slices, z_mm)
    return table


def finding_line(finding: Finding) -> Text:
    """One finding for a terminal."""
    about = f"{finding.roi}: " if finding.roi else ""
    sentence = f"{about}{finding.sentence} ({finding.rule})"
    plain = "".join(character if character.isprintable() else "?" for character in sentence)
    return Text.assemble((f"{finding.severity:<8}", _COLOURS[finding.severity]), plain)


def as_json(report: Report) -> str:
    """The report for programs."""
    counts = {f"{severity}s": report.count(severity) for severity in Severity}
    fields: dict[str, Any] = {"images": report.images, **counts}
    fields["structures"] = [asdict(structure) for structure in report.structures]
    fields["findings"] = [asdict(finding) for finding in report.findings]
    return json.dumps(fields, ensure_ascii=False, indent=2)


def _series_of(written: WrittenStructureSet, folder: Path | None) -> tuple[CtSeries | None, Finding | None]:
    """The CT series that a structure set refers to; without one, a finding that says why."""
    if folder is None:
        words = "without the CT nobody can say whether it fits the images; name its folder with --ct"
        return None, note("images_missing", words)
    slices = list(_slices_in(folder, written))
    if not slices:
        return None, warning("images_missing", f"{folder} does not hold the CT series that it refers to")
    try:
        return assemble_series([parse_slice(path) for path in slices], uneven_gaps=True), None
    except Refused as refused:
        return None, warning("images_unusable", f"its CT cannot be used: {refused.sentence} ({refused.reason})")


def _slices_in(folder: Path, written: WrittenStructureSet) -> Iterator[Path]:
    """Find the images that a structure set refers to, each once: by series, or else by instance."""
    seen = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = read_header(path.read_bytes())
        except (Refused, OSError):
            continue  # whatever else lies there
        if header.text("Modality") == "RTSTRUCT":
            continue
        instance, series = header.text("SOPInstanceUID"), header.text("SeriesInstanceUID")
        wanted = series in written.series_uids if written.series_uids else instance in written.image_uids
        if wanted and instance not in seen:
            seen.add(instance)
            yield path


def _structure(exam: Examination, region: ExaminedRegion) -> Structure:
    z_mm = region.points.points_mm[:, 2]
    on = region.slices[region.usable] + 1 if exam.series is not None else region.slices
    return Structure(
        name=printable(region.name),
        type=printable(region.kind),
        contours=len(region.all_contours),
        points=len(region.points.points_mm),
        volume_cm3=None if exam.series is None else exam.volume_cm3(region, exam.series),
        z_mm=(float(np.min(z_mm)), float(np.max(z_mm))) if z_mm.size else None,
        slices=(int(np.min(on)), int(np.max(on))) if on.size else None,
    )


def _images_in_words(series: CtSeries | None) -> str:
    if series is None:
        return ""
    slices, rows, columns = series.geometry.shape
    return f"compared with its CT of {slices} slices of {rows} x {columns}"
