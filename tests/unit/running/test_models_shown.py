import pytest

from appliance.running.models_shown import _roi_words
from appliance.segmentation.manifest import RoiRule


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("all", []),
        ("largest", ["the largest part"]),
        ("min_fraction:0.1", ["parts of at least 10 % of the largest"]),
        ("min_share:0.1", ["parts of at least 10 % of all parts together, and the largest"]),
    ],
)
def test_which_parts_of_a_structure_are_kept_is_said_as_the_rule_means_it(keep: str, words: list[str]) -> None:
    assert list(_roi_words(RoiRule(name="Bowel", classes=("bowel",), keep=keep))) == words
