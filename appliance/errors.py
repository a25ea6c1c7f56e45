"""What can go wrong, drawn as one tree, and the stable codes for every refusal.

    ApplianceError
    ├── SettingsError        a configuration file is wrong; the start is stopped
    └── Refused              an object is not processed any further, for a stated reason
        ├── SliceRefused     one CT instance
        ├── SeriesRefused    a whole CT series
        ├── ModelRefused     a model package
        ├── ResultRefused    a structure set of our own that may not leave
        └── StructureSetRefused  a structure set, whoever wrote it, that cannot be read with certainty

A refusal carries a `Reason`, whose value never changes once released (dashboards and hospitals count them),
and one sentence that says what is wrong and what to do about it.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Stable reason codes, in the order in which a case can meet them."""

    UNREADABLE = "unreadable"  #: not a DICOM data set that can be parsed
    PARSER_DIED = "parser_died"  #: reading the object crashed, hung or ate up the memory of the process that reads
    UID_INVALID = "uid_invalid"  #: an empty, over-long or malformed UID
    SOP_CLASS_NOT_CT = "sop_class_not_ct"  #: the object is not a CT Image
    ELEMENT_MISSING = "element_missing"  #: a header element that the geometry or the result needs is absent
    ELEMENT_INVALID = "element_invalid"  #: a header element holds a value outside its meaning
    DECIMAL_NOT_FINITE = "decimal_not_finite"  #: NaN, infinity or no number at all in a decimal string
    PIXELS_TRUNCATED = "pixels_truncated"  #: fewer pixel bytes than rows x columns need
    PIXELS_UNDECODABLE = "pixels_undecodable"  #: the compressed pixel stream cannot be decoded
    PATIENT_MIXED = "patient_mixed"  #: slices of one series name different patients
    STUDY_MIXED = "study_mixed"  #: slices of one series name different studies
    FRAME_OF_REFERENCE_MIXED = "frame_of_reference_mixed"  #: slices of one series have different frames of reference
    ORIENTATION_MIXED = "orientation_mixed"  #: slices of one series have different orientations
    SPACING_MIXED = "spacing_mixed"  #: slices of one series differ in rows, columns or pixel spacing
    RESCALE_MIXED = "rescale_mixed"  #: slices of one series are rescaled to Hounsfield units differently
    INSTANCE_CONFLICT = "instance_conflict"  #: one SOP Instance UID came with two different contents
    POSITION_DUPLICATE = "position_duplicate"  #: two slices lie at one position
    SLICE_MISSING = "slice_missing"  #: a gap in the series that a missing slice explains
    SLICE_GAPS_UNEVEN = "slice_gaps_uneven"  #: distances between slices differ
    TOO_FEW_SLICES = "too_few_slices"  #: fewer slices than a volume needs
    SERIES_INCOMPLETE = "series_incomplete"  #: the PACS has more slices of the series than came
    COUNT_UNKNOWN = "count_unknown"  #: the protocol wants the PACS's count of the series, and it could not be had
    ORIENTATION_UNSUPPORTED = "orientation_unsupported"  #: the planes are not close to axial, or not in one line
    NO_PROTOCOL = "no_protocol"  #: no protocol fits the series
    MODEL_MISSING = "model_missing"  #: the protocol names a model package that is not installed
    MODEL_INVALID = "model_invalid"  #: a manifest or network that cannot be used
    MODEL_ALTERED = "model_altered"  #: a fold's digest differs from the manifest
    MODEL_UNSAFE = "model_unsafe"  #: a model to import that would execute code by being read
    INPUT_OUTSIDE_MODEL_LIMITS = "input_outside_model_limits"  #: the scan is outside what the model was made for
    MEMORY_TOO_SMALL = "memory_too_small"  #: the case needs more memory than there is, whatever is given up
    NOTHING_FOUND = "nothing_found"  #: the model found none of the protocol's structures
    RESULT_INVALID = "result_invalid"  #: the structure set failed its own check before leaving
    STRUCTURE_SET_UNREADABLE = "structure_set_unreadable"  #: not an RT Structure Set that can be parsed
    STRUCTURE_SET_MISMATCH = "structure_set_mismatch"  #: a structure set of other images than those at hand
    STRUCTURE_SET_UNCLEAR = "structure_set_unclear"  #: a structure set that contradicts itself or leaves a place open
    WORKER_LOST = "worker_lost"  #: the worker died or failed on this case too often
    DESTINATION_REFUSES = "destination_refuses"  #: the destination answered that it will never take the object
    PARKED_BY_OPERATOR = "parked_by_operator"  #: a person stopped the case until somebody tries it again
    CANCELLED_BY_OPERATOR = "cancelled_by_operator"  #: a person ended the case without a result


class ApplianceError(Exception):
    """Anything that this appliance raises on purpose."""


class SettingsError(ApplianceError):
    """A configuration file is wrong; the message names the file, the key and the remedy."""


class Refused(ApplianceError):
    """An object is not processed any further.

    Attributes:
        reason: the stable code.
        sentence: one sentence for people; it never holds a patient's name.
    """

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(reason, sentence)
        self.reason = reason
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.reason}: {self.sentence}"


class SliceRefused(Refused):
    """One CT instance cannot be used."""


class SeriesRefused(Refused):
    """A CT series cannot become a volume."""


class ModelRefused(Refused):
    """A model package may not be used."""


class ResultRefused(Refused):
    """A structure set may not leave the appliance."""


class StructureSetRefused(Refused):
    """A structure set cannot be read, or not with certainty about which voxels it means."""
