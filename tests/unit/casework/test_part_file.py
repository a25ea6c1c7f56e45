"""What one model found goes through a file and comes back as it was, or not at all."""

from io import BytesIO

import numpy as np
import pytest

from appliance.casework.part_file import PartDamaged, decode, encode, part_file
from appliance.clock import Effort
from appliance.dicom.roi import RoiMask
from appliance.segmentation.quality import RoiQuality
from appliance.segmentation.segment import Segmented

DICE = np.random.default_rng(7)
BOX = (slice(2, 5), slice(10, 17), slice(0, 9))
FOUND = Segmented(
    masks=(
        RoiMask("Bladder", BOX, DICE.random((3, 7, 9)) > 0.5, DICE.integers(1, 255, (3, 7, 9), np.uint8)),
        RoiMask("Rectum", BOX, DICE.random((3, 7, 9)) > 0.5),
    ),
    quality=(RoiQuality("Bladder", 0.9123456789, None, 12.5, ("the folds differ",)),),
    warnings=("slices are thicker than usual",),
    network_effort=(Effort(1.25, 2.5),),
)


def test_everything_that_was_found_comes_back_exactly() -> None:
    again = decode(encode(FOUND))
    assert (again.quality, again.warnings, again.network_effort) == (
        FOUND.quality,
        FOUND.warnings,
        FOUND.network_effort,
    )
    for mask, before in zip(again.masks, FOUND.masks, strict=True):
        assert (mask.name, mask.box, mask.voxels.dtype) == (before.name, before.box, np.bool_)
        np.testing.assert_array_equal(mask.voxels, before.voxels)
    assert FOUND.masks[0].certainty is not None
    np.testing.assert_array_equal(again.masks[0].certainty, FOUND.masks[0].certainty)
    assert again.masks[1].certainty is None


def test_a_model_that_found_nothing_can_say_so() -> None:
    assert decode(encode(Segmented((), ()))).masks == ()


def test_a_file_that_is_gone_cut_short_or_altered_is_no_result() -> None:
    content = encode(FOUND)
    altered = bytearray(content)
    altered[len(content) // 3] ^= 0xFF
    for damaged in (None, b"", content[: len(content) // 2], bytes(altered)):
        with pytest.raises(PartDamaged):
            decode(damaged)


def test_a_pickle_in_such_a_file_is_not_opened() -> None:
    file = BytesIO()
    np.savez_compressed(file, told=np.array([object()], dtype=object))
    with pytest.raises(PartDamaged, match="ValueError"):
        decode(file.getvalue())


def test_the_name_of_a_file_depends_on_scan_and_model() -> None:
    names = {part_file("1" * 64, "2" * 64), part_file("1" * 64, "3" * 64), part_file("2" * 64, "2" * 64)}
    assert len(names) == 3
    assert part_file("1" * 64, "2" * 64) in names
    assert max(map(len, names)) <= 120
