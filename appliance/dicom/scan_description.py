"""What a CT series says about itself that a model may care about, beside its geometry and its values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScanDescription:
    """Header values that all slices share; empty where a series does not say, or its slices differ.

    Attributes:
        kernel: Convolution Kernel (0018,1210), several values joined by a backslash.
        body_part: Body Part Examined (0018,0015).
        patient_position: Patient Position (0018,5100), such as HFS.
    """

    kernel: str = ""
    body_part: str = ""
    patient_position: str = ""
