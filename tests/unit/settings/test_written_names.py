"""How structures are named in a result; a name that would mislead stops the start, with its file and line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import SettingsError
from appliance.settings import Settings, load_settings
from tests.support.config_folder import BONES, ROIS, toml, write_config

HEAD = toml({key: value for key, value in BONES.items() if key not in {"rois", "match"}})
LINES_BEFORE = HEAD.count("\n")
SYSTEMS = """
[short]
max_name_length = 6
long_names = "cut"

[strict]
max_name_length = 6
"""
Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a configuration whose protocol `bones` says this after its first lines."""

    def _load(text: str, rois: dict[str, Any] | None = None) -> Settings:
        folder = write_config(tmp_path, rois={**ROIS, **(rois or {})})
        (folder / "planning_systems.toml").write_text(SYSTEMS)
        (folder / "protocols" / "bones.toml").write_text(HEAD + text)
        return load_settings(folder)

    return _load


def _names(settings: Settings) -> dict[str, str]:
    written = settings.written_templates(settings.protocols["bones"])
    return {name: template.name for name, template in written.items()}


def test_structures_are_written_in_the_protocols_order_under_their_new_names(load: Load) -> None:
    settings = load('rois = ["Femur_R", { roi = "External", name = "BODY" }, "Femur_L"]\n')
    assert list(_names(settings).items()) == [("Femur_R", "Femur_R"), ("External", "BODY"), ("Femur_L", "Femur_L")]
    body = settings.written_templates(settings.protocols["bones"])["External"]
    assert body == settings.rois["External"].model_copy(update={"name": "BODY"})


def test_names_are_cut_where_the_planning_system_says_so(load: Load) -> None:
    settings = load('planning_system = "short"\nrois = ["External", { roi = "Femur_L", name = "L_Femur" }]\n')
    assert _names(settings) == {"External": "Extern", "Femur_L": "L_Femu"}


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (
            'planning_system = "strict"\nrois = [\n  "Other",\n  "External",\n]\n',
            4,
            "'External' has 8 characters and strict keeps 6; give it a shorter name",
        ),
        (
            'rois = [{ roi = "External", name = "A_name_of_17_char" }]\n',
            1,
            "'A_name_of_17_char' has 17 characters and generic keeps 16; give it a shorter name",
        ),
        (
            'planning_system = "short"\nrois = ["Femur_L", "Femur_R"]\n',
            2,
            "Femur_L and Femur_R would both be written as 'Femur_', cut to 6 characters; give one of them another name",
        ),
        (
            'rois = [\n  { roi = "Femur_L", name = "Hip" },\n  { roi = "Femur_R", name = "HIP" },\n]\n',
            3,
            "Femur_L and Femur_R would both be written as 'HIP'; give one of them another name",
        ),
        (
            'rois = ["Other", { roi = "Femur_L", name = "Hip_R" }]\n',
            1,
            "Femur_L is on the left and would be written as 'Hip_R'; correct its name",
        ),
        (
            'rois = ["External", "Body"]\n',
            1,
            "External and Body are all of type EXTERNAL, but a patient has one outline; leave one",
        ),
        (
            'rois = ["Other"]\n[[derived]]\nroi = "Ring"\nof = "Femur_L"\n[[derived]]\nroi = "Other"\nof = "Ring"\n',
            2,
            "ROI 'Ring' is not defined",
        ),
        (
            'rois = ["Other"]\nplanning_system = "Short"\n',
            2,
            "planning system 'Short' is not defined; did you mean short?",
        ),
    ],
)
def test_what_cannot_be_written_stops_the_start_in_one_sentence_with_its_line(
    load: Load, text: str, line: int, sentence: str
) -> None:
    body = {"number": 98, "colour": [9, 9, 9], "interpreted_type": "EXTERNAL"}
    with pytest.raises(SettingsError) as refused:
        load(text, {"Body": body})
    assert str(refused.value) == f"protocols/bones.toml, line {LINES_BEFORE + line}: protocol bones: {sentence}"


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (
            'rois = [\n  { roi = "Other", name = "Hip" },\n  { roi = "Femur_L", name = "L Hip" },\n]\n',
            3,
            "rois.1.name: 'L Hip' is no name of a structure: it takes 1 to 64 letters, digits and _ ~ ^ + -, no space",
        ),
        (
            'rois = ["Other"]\n[[derived]]\nroi = "Other"\n',
            2,
            "derived.0: give either `of` or `from_ct`",
        ),
    ],
)
def test_what_a_protocol_may_not_say_is_named_with_its_line(load: Load, text: str, line: int, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(text)
    assert str(refused.value) == f"protocols/bones.toml, line {LINES_BEFORE + line}: {sentence}"


@pytest.mark.parametrize("label", ["", "SEVENTEEN_LETTERS", " PADDED", "PADDED ", "BACK\\\\SLASH", "Entwürfe", "A\\nB"])
def test_a_label_that_dicom_would_not_keep_stops_the_start(tmp_path: Path, label: str) -> None:
    folder = write_config(tmp_path)
    file = folder / "protocols" / "bones.toml"
    file.write_text(file.read_text().replace(BONES["label"], label))
    with pytest.raises(SettingsError, match=r"^protocols/bones.toml, line 6: label: .* is no Structure Set Label: "):
        load_settings(folder)


@pytest.mark.parametrize(("name", "side"), [("Femur_L", "right"), ("Femur_R", "left"), ("Lung_LUL", "right")])
def test_a_structure_whose_name_and_side_disagree_stops_the_start(load: Load, name: str, side: str) -> None:
    said = {"left": "right", "right": "left"}[side]
    with pytest.raises(SettingsError) as refused:
        load('rois = ["Other"]\n', {name: {"number": 97, "colour": [7, 7, 7], "side": side}})
    assert f"{name} is the {said} one by its name, but its side says {side}; correct one of them" in str(refused.value)
    assert str(refused.value).startswith("rois.toml, line ")


def test_a_structure_without_a_side_may_have_any_name(load: Load) -> None:
    settings = load('rois = ["Other"]\n', {"Ramus_L": {"number": 97, "colour": [7, 7, 7]}})
    assert settings.rois["Ramus_L"].side is None


def test_the_model_is_asked_for_what_no_rule_makes_before_it_is_used(load: Load) -> None:
    rings = """rois = ["External", "Other", "Bone_Pelvic"]
[[derived]]
roi = "Bone_Pelvic"
of = ["Femur_L", "External"]
[[derived]]
roi = "Other"
of = "Bone_Pelvic"
minus = "Femur_R"
"""
    asked = load(rings).protocols["bones"].asked_of_model
    assert asked == ("External", "Femur_L", "Femur_R")


def test_the_shipped_planning_systems_are_the_ones_that_the_file_says() -> None:
    settings = load_settings(Path(__file__).parents[3] / "configs")
    assert list(settings.planning_systems) == ["generic", "eclipse", "raystation", "monaco", "pinnacle"]
    forms = settings.planning_systems
    assert forms["generic"] == Settings(folder=settings.folder).planning_system_of(settings.protocols["pelvis"])
    assert forms["monaco"] == forms["pinnacle"] == forms["generic"]
    assert (forms["eclipse"].codes, forms["eclipse"].empty_rois) == ("FMA", "declare")
    assert {form.max_name_length for form in forms.values()} == {16}
