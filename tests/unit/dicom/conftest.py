from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.dicom.ct_slice import CtSlice, parse_slice
from appliance.errors import Reason, SliceRefused
from tests.support.ct_files import Mutation, make_ct_series


@pytest.fixture
def parse_mutated(tmp_path: Path) -> Callable[..., CtSlice]:
    """Write one slice with a mutation, and parse it."""

    def parse(mutation: Mutation, **series: object) -> CtSlice:
        return parse_slice(make_ct_series(tmp_path, slices=1, mutate=mutation, **series)[0])

    return parse


@pytest.fixture
def reason_of(parse_mutated: Callable[..., CtSlice]) -> Callable[..., Reason]:
    """Write one slice with a mutation, and return the reason for which it is refused."""

    def reason(mutation: Mutation, **series: object) -> Reason:
        with pytest.raises(SliceRefused) as refusal:
            parse_mutated(mutation, **series)
        return refusal.value.reason

    return reason
