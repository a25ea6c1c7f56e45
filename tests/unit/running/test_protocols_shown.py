"""`delineate protocol` says in words what a protocol will write."""

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

from appliance.cli import main
from appliance.errors import SettingsError
from appliance.running.protocols_shown import (
    find_protocol,
    form_words,
    protocols_table,
    structures_table,
)
from appliance.settings import DerivedRoi, Settings, load_settings
from tests.support.config_folder import BONES, ROIS, write_config

PROTOCOL = """
name = "rings"
title = "Rings [in brackets]"
model = "thresholds"
destinations = ["pacs"]
label = "AI_RINGS"
planning_system = "eclipse"
outputs = ["rtstruct", "seg"]
priority = 5
rois = [
  { roi = "Other", name = "zRing", largest_parts = 1, smooth_mm = 0.5 },
  "Femur_L",
]
match.body_part = ["PELVIS", "HIP"]

[[derived]]
roi = "External"
from_ct = "body"

[[derived]]
roi = "Other"
of = ["Femur_L", "Femur_R"]
ring_mm = [5, 25]
minus = "Bone_Pelvic"
within = "External"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A configuration with a plain protocol and one that uses everything."""
    coded = {
        **ROIS["Femur_L"],
        "code": {"value": "71341001", "meaning": "Femur"},
        "fma": {"value": "24475", "scheme": "FMA", "meaning": "Left femur"},
    }
    folder = write_config(tmp_path, rois={**ROIS, "Femur_L": coded}, protocols={"bones": BONES})
    (folder / "protocols" / "rings.toml").write_text(PROTOCOL)
    (folder / "planning_systems.toml").write_text(
        '[eclipse]\ncodes = "FMA"\nempty_rois = "declare"\nmax_points = 500\n'
    )
    return load_settings(folder)


def _shown(what: RenderableType) -> list[list[str]]:
    """The cells of a table's lines, its head first."""
    console = Console(file=io.StringIO(), width=300)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line[:1] in {"│", "┃"}]
    return [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines]


def test_every_structure_is_shown_as_it_will_be_written_in_the_order_of_the_result(settings: Settings) -> None:
    _, ring, femur = _shown(structures_table(settings, settings.protocols["rings"]))
    made = "Femur_L or Femur_R, what lies 5 to 25 mm outside its surface, without Bone_Pelvic, within External"
    drawn = "largest part; smoothed by up to 0.5 mm"
    assert ring == ["1", "zRing (our Other)", "99", "██ #010203", "ORGAN", "none", made, drawn]
    assert femur == ["2", "Femur_L", "5", "██ #3cb371", "ORGAN", "FMA 24475 Left femur", "the model", ""]


def test_the_form_of_the_whole_is_told_in_sentences(settings: Settings) -> None:
    form = (
        "names of up to 16 characters; what is not found is declared empty; holes joined to the boundary; "
        "up to 500 points in a contour; FMA codes; says UNAPPROVED"
    )
    assert list(form_words(settings, settings.protocols["rings"])) == [
        "Rings [in brackets]. Model: thresholds.",
        "Writes a structure set and a segmentation, labelled AI_RINGS.",
        f"For planning system eclipse: {form}.",
        "Takes series with body_part PELVIS or HIP.",
        "Makes and does not write: External.",
        "Sends to pacs.",
    ]


def test_protocols_are_listed_in_the_order_in_which_they_are_tried(settings: Settings) -> None:
    lines = _shown(protocols_table(settings))
    assert lines[1] == ["rings", "Rings [in brackets]", "thresholds", "2", "eclipse", "pacs", "5"]
    assert [line[0] for line in lines[1:]] == ["rings", "bones"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"of": "A", "margin_mm": 5}, "A, grown by 5 mm"),
        ({"of": "A", "margin_mm": -2.5}, "A, shrunk by 2.5 mm"),
        ({"of": "A", "margin_mm": {"left": 3, "superior": 7}}, "A, grown 3 mm left, 7 mm superior"),
        ({"of": "A", "margin_mm": {"inferior": -4}}, "A, shrunk 4 mm inferior"),
        ({"of": ["A", "B"], "combine": "intersection", "skin_mm": 5}, "A and B, at least 5 mm below the skin"),
        ({"from_ct": "couch", "minus": ["A", "B"]}, "the table in the CT, without A and B"),
    ],
)
def test_a_rule_is_told_in_words(rule: dict[str, object], words: str) -> None:
    assert DerivedRoi.model_validate({"roi": "X", **rule}).in_words() == words


def test_a_protocol_that_does_not_exist_is_named(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="there is no protocol hips; `delineate protocol list` shows"):
        find_protocol(settings, "hips")


def test_the_commands_show_the_shipped_protocol() -> None:
    configs = str(Path(__file__).parents[3] / "configs")
    shown = CliRunner().invoke(main, ["--config", configs, "protocol", "show", "pelvis"])
    assert shown.exit_code == 0
    assert "SCT 71341001 Femur, left" in shown.output
    assert "For planning system generic: " in shown.output
    listed = CliRunner().invoke(main, ["--config", configs, "protocol", "list"])
    assert (listed.exit_code, "pelvis-demo" in listed.output) == (0, True)
    absent = CliRunner().invoke(main, ["--config", configs, "protocol", "show", "hips"])
    assert (absent.exit_code, "there is no protocol hips" in absent.output) == (1, True)
