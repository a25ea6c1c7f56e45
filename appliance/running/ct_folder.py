"""Which files of a folder are the CT series, and why the others are not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.dicom.ct_slice import CT_IMAGE_STORAGE, ENHANCED_CT_IMAGE_STORAGE
from appliance.dicom.findings import amount
from appliance.dicom.identity import InstanceIdentity, read_identity
from appliance.errors import ApplianceError, Refused


@dataclass(frozen=True)
class CtFolder:
    """What a folder holds.

    Attributes:
        paths: the files of the one CT series.
        skipped: every other file, with the reason in words.
    """

    paths: list[Path]
    skipped: dict[Path, str]


@dataclass
class _Sorting:
    series: dict[str, dict[Path, InstanceIdentity]] = field(default_factory=dict)
    skipped: dict[Path, str] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        try:
            identity = read_identity(path)
        except Refused as refused:
            self.skipped[path] = refused.sentence
            return
        except OSError as error:
            self.skipped[path] = f"cannot be read ({error.strerror})"
            return
        if identity.sop_class_uid not in {CT_IMAGE_STORAGE, ENHANCED_CT_IMAGE_STORAGE}:
            self.skipped[path] = f"is no CT image ({identity.modality or 'no modality'})"
            return
        members = self.series.setdefault(identity.series_instance_uid, {})
        twins = [other for other, one in members.items() if one.sop_instance_uid == identity.sop_instance_uid]
        if any(other.read_bytes() == path.read_bytes() for other in twins):
            self.skipped[path] = f"is a copy of {twins[0].name}"
        else:
            members[path] = identity


def sort_folder(folder: Path, series_uid: str | None, on_step: Callable[[str, int, int], None]) -> CtFolder:
    """Find the CT series in a folder and in the folders below; the step is "find".

    Args:
        folder: where to look.
        series_uid: Series Instance UID of the one that is meant; not needed where there is only one.
        on_step: called after each file.

    Raises:
        ApplianceError: there is no CT series, not the one that is meant, or more than one and none is meant.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sorting = _Sorting()
    for done, path in enumerate(files, 1):
        sorting.add(path)
        on_step("find", done, len(files))
    found = {uid: list(members) for uid, members in sorting.series.items()}
    listed = "; ".join(f"{uid} ({amount(len(members), 'slice')})" for uid, members in found.items())
    if series_uid is None and len(found) > 1:
        raise ApplianceError(f"{folder} holds {len(found)} CT series: {listed}; name one with --series")
    if series_uid is not None and series_uid not in found:
        raise ApplianceError(f"{folder} does not hold series {series_uid}; there: {listed or 'no CT series'}")
    if not found:
        raise ApplianceError(f"{folder} holds no CT image among {amount(len(files), 'file')}")
    chosen = series_uid or next(iter(found))
    others = {path: "is of another series" for uid, members in found.items() if uid != chosen for path in members}
    return CtFolder(found[chosen], {**sorting.skipped, **others})
