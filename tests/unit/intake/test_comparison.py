"""Comparing images in a process of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless

from appliance.errors import Reason, SliceRefused
from appliance.intake.comparison import IsolatedComparison
from tests.support.ct_files import compress, make_ct_series


@pytest.fixture(scope="module")
def is_same() -> Iterator[IsolatedComparison]:
    comparison = IsolatedComparison()
    yield comparison
    comparison.stop()


def test_a_recompressed_image_is_the_same_image(is_same: IsolatedComparison, tmp_path: Path) -> None:
    plain = make_ct_series(tmp_path / "plain", slices=3)
    packed = make_ct_series(tmp_path / "packed", slices=3)
    compress(packed[1], JPEG2000Lossless)
    assert is_same(plain[1], packed[1])
    assert not is_same(plain[1], plain[2])


def test_a_decoder_that_crashes_is_a_refusal_and_the_next_image_is_compared(
    is_same: IsolatedComparison, tmp_path: Path
) -> None:
    paths = make_ct_series(tmp_path, slices=3)
    assert is_same(paths[0], paths[0])
    assert is_same._child is not None
    (child,) = is_same._child._processes.values()
    os.kill(child.pid or 0, 11)
    child.join()
    with pytest.raises(SliceRefused) as refused:
        is_same(paths[0], paths[0])
    assert refused.value.reason is Reason.PIXELS_UNDECODABLE
    assert is_same(paths[0], paths[0])
