"""A real CT with another model's labels as a second opinion: for looking at the bundled model, never for training.

The labels are TotalSegmentator's class numbers (Wasserthal et al., Radiology: AI 2023), an array "labels" (z, y, x)
in ascending slice position. It has no rectum: the lowest part of its colon, behind a plane, stands for it.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from appliance.dicom.ct_series import assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.ct_volume import CtVolume, load_volume

_BODY_HU = -300
_LABELS: dict[str, tuple[int, ...]] = {
    "Bladder": (21,),
    "Prostate": (22,),
    "Femur_L": (75,),
    "Femur_R": (76,),
    "Bone_Pelvic": (77, 78),
    "Sacrum": (25, 26),
    "Bowel": (18, 19, 20),
}
_COLON = 20
_RECTUM_LAST_SLICE, _RECTUM_FIRST_ROW = 26, 55
"""Where the colon of this one CT is called rectum: up to this slice and from this row backwards."""


def read_reference_ct(series_folder: Path, labels_path: Path) -> tuple[CtVolume, dict[str, npt.NDArray[np.bool_]]]:
    """Read the CT and its reference masks (z, y, x), one for each ROI that the labels hold.

    Raises:
        Refused: the series is not one regular stack of CT slices.
        ValueError: the labels lie on another grid.
    """
    series = assemble_series([parse_slice(path) for path in sorted(series_folder.iterdir())])
    volume = load_volume(series)
    with np.load(labels_path) as stored:
        labels = stored["labels"]
    if labels.shape != volume.hu.shape:
        raise ValueError(f"labels of shape {labels.shape} do not fit a CT of shape {volume.hu.shape}")
    masks = {name: np.isin(labels, numbers) for name, numbers in _LABELS.items()}
    rectum = labels == _COLON
    rectum[_RECTUM_LAST_SLICE + 1 :] = False
    rectum[:, :_RECTUM_FIRST_ROW] = False
    masks["Rectum"] = rectum
    masks["Bowel"] &= ~rectum
    masks["External"] = _body(volume.hu)
    return volume, {name: mask for name, mask in masks.items() if mask.any()}


def _body(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """The largest thing that is denser than air, without the couch, with its gas filled slice by slice."""
    dense = hu > _BODY_HU
    parts, _ = ndimage.label(ndimage.binary_opening(dense, iterations=2))
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    smooth = largest | (ndimage.binary_dilation(largest) & dense)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in smooth])
