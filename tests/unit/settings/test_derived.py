"""Rules for derived structures are checked before the first case comes."""

from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance.settings import Settings, SixWayMargin, load_settings
from tests.support.config_folder import BONES, write_config


def with_derived(tmp_path: Path, *rules: str) -> Settings:
    rois = ["External", "Bone_Pelvic", "Femur_L", "Femur_R", "Other"]
    folder = write_config(tmp_path, protocols={"bones": {**BONES, "rois": rois}})
    protocol = folder / "protocols" / "bones.toml"
    protocol.write_text(protocol.read_text() + "".join(f"\n[[derived]]\n{rule}\n" for rule in rules))
    return load_settings(folder)


def refusal(tmp_path: Path, *rules: str) -> str:
    with pytest.raises(SettingsError) as refused:
        with_derived(tmp_path, *rules)
    return str(refused.value)


def test_rules_are_read_in_their_order(tmp_path: Path) -> None:
    settings = with_derived(
        tmp_path,
        'roi = "Femur_L"\nof = "Bone_Pelvic"\nmargin_mm = { left = 5, superior = 7 }',
        'roi = "Other"\nof = ["Femur_L", "Femur_R"]\nring_mm = [0, 10]\nminus = "Femur_R"\nskin_mm = 5',
    )
    first, second = settings.protocols["bones"].derived
    assert first.margin_mm == SixWayMargin(left=5, superior=7)
    assert first.of == ("Bone_Pelvic",)
    assert second.ring_mm == (0, 10)
    assert second.sources == ("Femur_L", "Femur_R", "Femur_R")


@pytest.mark.parametrize("key", ["of", "minus", "within"])
def test_a_structure_is_not_made_from_itself(tmp_path: Path, key: str) -> None:
    source = "" if key == "of" else 'of = "External"\n'
    message = refusal(tmp_path, f'roi = "Other"\n{source}{key} = "Other"')
    assert message.startswith("protocols/bones.toml")
    assert message.endswith("derived Other is made from itself; give the result a name of its own")


def test_a_structure_uses_only_what_was_derived_before_it(tmp_path: Path) -> None:
    message = refusal(tmp_path, 'roi = "Other"\nof = "Femur_L"', 'roi = "Femur_L"\nof = "External"')
    assert message.startswith("protocols/bones.toml, line ")
    assert message.endswith("derived Other uses Femur_L, which is derived after it; put Femur_L first")


def test_a_circle_of_structures_is_found(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, 'roi = "Femur_L"\nof = "Femur_R"', 'roi = "Femur_R"\nwithin = "Femur_L"\nof = "External"'
    )
    assert "derived Femur_L uses Femur_R, which is derived after it" in message


def test_a_structure_that_nobody_gets_to_see_is_a_mistake(tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    protocol = folder / "protocols" / "bones.toml"
    protocol.write_text(protocol.read_text() + '\n[[derived]]\nroi = "Other"\nof = "External"\n')
    with pytest.raises(
        SettingsError, match="derived Other is neither written nor used; add it to rois or leave it out"
    ):
        load_settings(folder)


def test_a_source_must_be_a_known_structure(tmp_path: Path) -> None:
    message = refusal(tmp_path, 'roi = "Other"\nof = "Femur_Left"')
    assert message.endswith("protocol bones: ROI 'Femur_Left' is not defined; did you mean Femur_L?")


@pytest.mark.parametrize("later", ['roi = "External"\nfrom_ct = "body"', 'roi = "External"\nof = "Bone_Pelvic"'])
def test_the_surface_of_the_body_comes_before_what_is_measured_from_it(tmp_path: Path, later: str) -> None:
    message = refusal(tmp_path, 'roi = "Other"\nof = "Femur_L"\nskin_mm = 5', later)
    assert message.endswith(
        "protocol bones: derived Other has skin_mm, but External is derived no earlier; put it first"
    )
    assert with_derived(tmp_path / "right", later, 'roi = "Other"\nof = "Femur_L"\nskin_mm = 5').protocols


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ('of = "External"\nfrom_ct = "body"', "give either `of` or `from_ct`"),
        ("margin_mm = 3", "give either `of` or `from_ct`"),
        ('of = "External"\nmargin_mm = 3\nring_mm = [0, 5]', "give either `margin_mm` or `ring_mm`"),
        ('of = "External"\nring_mm = [5, 5]', "ring_mm is [inner, outer] with inner < outer"),
        ('of = "External"\nmargin_mm = { left = 5, right = -5 }', "a margin either grows or shrinks"),
        ('of = "External"\nmargin_mm = nan', "margin_mm"),
        ('of = "External"\nmargin_mm = 1000', "margin_mm"),
        ('of = "External"\nskin_mm = 0', "skin_mm"),
        ('of = "External"\nmargin = 3', "derived.0.margin is not a setting"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(tmp_path: Path, rule: str, sentence: str) -> None:
    message = refusal(tmp_path, f'roi = "Other"\n{rule}')
    assert message.startswith("protocols/bones.toml")
    assert sentence in message
