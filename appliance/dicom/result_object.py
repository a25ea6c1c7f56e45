"""What every result of a case has in common, whatever kind of DICOM object it is."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """A result as a DICOM file.

    Attributes:
        content: the whole file (PS3.10).
        referenced_sop_instance_uids: the images that it refers to, in the order of the slices.
    """

    sop_instance_uid: str
    series_instance_uid: str
    referenced_sop_instance_uids: tuple[str, ...]
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the file, 64 hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()
