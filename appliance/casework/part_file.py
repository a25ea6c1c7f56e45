"""What one model found in a scan, as a file: so that another worker can go on with it, and no crash costs it.

A NumPy archive of arrays and one JSON text; nothing in it is ever executed.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance import __version__
from appliance.clock import Effort
from appliance.dicom.roi import RoiMask
from appliance.errors import ApplianceError
from appliance.segmentation.quality import RoiQuality
from appliance.segmentation.segment import Segmented

_FORMAT = 1


class PartDamaged(ApplianceError):
    """What a model found cannot be read any more; the model has to be asked again."""


def part_file(input_digest: str, model_digest: str) -> str:
    """The name under which it is kept: the same scan, model and release always give the same."""
    return f"{sha256(f'{input_digest} {model_digest} {__version__}'.encode()).hexdigest()}.npz"


def encode(found: Segmented) -> bytes:
    """Write down everything that a model found, compressed."""
    arrays: dict[str, NDArray[np.uint8]] = {}
    masks = []
    for number, mask in enumerate(found.masks):
        arrays[f"voxels_{number}"] = np.packbits(mask.voxels)
        if mask.certainty is not None:
            arrays[f"certainty_{number}"] = mask.certainty
        masks.append({"name": mask.name, "box": [[side.start, side.stop] for side in mask.box]})
    told = {
        "format": _FORMAT,
        "masks": masks,
        "quality": [asdict(one) for one in found.quality],
        "warnings": found.warnings,
        "networks": [asdict(one) for one in found.network_effort],
    }
    file = BytesIO()
    np.savez_compressed(file, told=np.frombuffer(json.dumps(told).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def decode(content: bytes | None) -> Segmented:
    """Read it again, exactly as it was.

    Raises:
        PartDamaged: it is not there, cut short or altered.
    """
    if content is None:
        raise PartDamaged("what a model found is not in the spool any more")
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            told = json.loads(arrays["told"].tobytes())
            if told["format"] != _FORMAT:
                raise PartDamaged("what a model found was written by another release")
            return Segmented(
                tuple(_mask(number, one, arrays) for number, one in enumerate(told["masks"])),
                tuple(RoiQuality(**{**one, "flags": tuple(one["flags"])}) for one in told["quality"]),
                tuple(told["warnings"]),
                tuple(Effort(**one) for one in told["networks"]),
            )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise PartDamaged(f"what a model found cannot be read ({type(error).__name__})") from error


def _mask(number: int, told: Mapping[str, Any], arrays: Mapping[str, NDArray[np.uint8]]) -> RoiMask:
    z, y, x = (slice(start, stop) for start, stop in told["box"])
    shape = tuple(side.stop - side.start for side in (z, y, x))
    voxels = np.unpackbits(arrays[f"voxels_{number}"], count=int(np.prod(shape))).reshape(shape).astype(np.bool_)
    return RoiMask(told["name"], (z, y, x), voxels, arrays.get(f"certainty_{number}"))
