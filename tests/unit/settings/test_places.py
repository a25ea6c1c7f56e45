"""A mistake is found on its line, whatever stands around it."""

import tomllib

import pytest

from appliance.settings.places import Key, line_of

TEXT = '''# [Femur_L] in a comment is no table, and \u2028 ends no line
title = "a text with [Femur_L] and number = 5"
long = """
[Femur_L]
number = 5
"""
rois = [
  "External",
  { roi = "Femur_L", name = "Hip_L" },
  "Femur_R",
]

[Femur_L]   # the table itself
colour = [1,
  2, 3]
code = { value = "71341001", meaning = "Femur" }
number = 5

[match]
body_part = ["PELVIS"]

[[derived]]
roi = "Femurs"
of = ["Femur_L", "Femur_R"]

[[derived]]
roi = "zRing1"

[match.more]
number = 7
'''


@pytest.mark.parametrize(
    ("keys", "word", "line"),
    [
        (("Femur_L",), "", 13),
        (("Femur_L", "number"), "", 17),
        (("Femur_L", "code", "meaning"), "", 16),
        (("Femur_L", "absent"), "", 13),
        (("rois",), "", 7),
        (("rois", 1), "", 7),
        (("rois", 1, "name"), "Hip_L", 9),
        (("rois", 2), "Femur_R", 10),
        (("rois", 2), "Nobody", 7),
        (("match", "body_part", 0), "", 20),
        (("derived", 0, "of"), "", 24),
        (("derived", 1), "", 26),
        (("derived", 1, "of"), "", 26),
        (("derived", 2), "", 22),
        (("match", "more", "number"), "", 30),
        (("absent",), "", None),
        ((), "", None),
    ],
)
def test_keys_lead_to_their_line(keys: tuple[Key, ...], word: str, line: int | None) -> None:
    assert line_of(TEXT, keys, word) == line


def test_every_line_of_a_long_file_is_found() -> None:
    text = "".join(f"# {number}\n[ROI_{number}]\nnumber = {number}\n" for number in range(150))
    assert len(tomllib.loads(text)) == 150
    assert [line_of(text, (f"ROI_{number}", "number")) for number in (0, 1, 74, 149)] == [3, 6, 225, 450]
