"""A protocol names the models that draw; a mistake in that stops the start, with its file and line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.casework.draft import recipe_digest
from appliance.errors import SettingsError
from appliance.running.roles import on_device
from appliance.settings import Settings, load_settings
from tests.support.config_folder import BONES, make_settings, toml, write_config

HEAD = toml({key: value for key, value in BONES.items() if key not in {"model", "rois", "match"}})
LINES_BEFORE = HEAD.count("\n")
TWO = 'model = ["pelvis", "thorax"]\n'
DRAWN = {"pelvis": ("External", "Bone_Pelvic"), "thorax": ("External", "Femur_L")}
Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a configuration whose protocol `bones` says this after its first lines."""

    def _load(text: str) -> Settings:
        folder = write_config(tmp_path)
        (folder / "protocols" / "bones.toml").write_text(HEAD + text)
        return load_settings(folder)

    return _load


@pytest.mark.parametrize(
    ("text", "models"), [('model = "pelvis"\n', ("pelvis",)), (TWO, ("pelvis", "thorax"))], ids=["one", "two"]
)
def test_a_protocol_names_one_model_or_several(load: Load, text: str, models: tuple[str, ...]) -> None:
    assert load(text + 'rois = ["External"]\n').protocols["bones"].models == models


def test_the_first_model_that_can_draws_a_structure_unless_another_is_named(load: Load) -> None:
    plain = load(TWO + 'rois = ["External", "Femur_L"]\n').protocols["bones"]
    assert plain.drawn_by(DRAWN) == {"External": "pelvis", "Bone_Pelvic": "pelvis", "Femur_L": "thorax"}
    named = load(TWO + 'rois = [{ roi = "External", model = "thorax" }]\n').protocols["bones"]
    assert named.drawn_by(DRAWN)["External"] == "thorax"


def test_a_structure_that_its_named_model_does_not_draw_is_drawn_by_nobody(load: Load) -> None:
    named = load(TWO + 'rois = [{ roi = "Femur_L", model = "pelvis" }]\n').protocols["bones"]
    assert "Femur_L" not in named.drawn_by(DRAWN)


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (
            TWO + 'rois = [\n  "External",\n  { roi = "Femur_L", model = "thrax" },\n]\n',
            4,
            "Femur_L is to be drawn by thrax, which `model` does not list; add it there",
        ),
        (
            TWO + 'rois = [\n  { roi = "Other", model = "thorax" },\n]\n[[derived]]\nroi = "Other"\nof = "External"\n',
            3,
            "Other is derived, so no model draws it; leave out its `model`",
        ),
        (
            'model = ["pelvis", "pelvis"]\nrois = ["External"]\n',
            1,
            "pelvis is named twice in model; leave one",
        ),
        ("model = []\nrois = []\n", 1, "model: "),
        ('models = ["pelvis"]\nrois = ["External"]\n', 1, "models is not a setting; did you mean model?"),
    ],
    ids=["unknown", "derived", "twice", "none", "misspelt"],
)
def test_a_mistake_is_named_with_its_file_and_line(load: Load, text: str, line: int, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(text)
    place, said = str(refused.value).split(": ", 1)
    assert place == f"protocols/bones.toml, line {LINES_BEFORE + line}"
    assert said.startswith(sentence)


def test_the_recipe_of_a_protocol_with_one_model_is_what_it_always_was(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    protocol = settings.protocols["bones"]
    digest = recipe_digest(protocol, settings.planning_system_of(protocol))
    assert digest == "488608d07f33c5ec9370945255b036c5f453aa795fcabe571fb2c069a90ae7aa"


def test_which_model_is_to_draw_a_structure_makes_another_recipe(load: Load) -> None:
    texts = ('rois = ["External"]\n', 'rois = [{ roi = "External", model = "thorax" }]\n')
    digests = set()
    for text in texts:
        settings = load(TWO + text)
        protocol = settings.protocols["bones"]
        digests.add(recipe_digest(protocol, settings.planning_system_of(protocol)))
    assert len(digests) == 2


def test_a_worker_works_on_one_device(tmp_path: Path) -> None:
    two = make_settings(tmp_path, {"worker": {"devices": ["cuda:0", "cuda:1"]}})
    assert on_device(two, "cuda:1").worker.devices == ("cuda:1",)
    with pytest.raises(SettingsError, match="say which with `delineate work --device`"):
        on_device(two, None)
    one = make_settings(tmp_path / "one")
    assert on_device(one, None).worker.devices == ("auto",)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:1 ", ""])
def test_a_device_that_does_not_exist_is_named(tmp_path: Path, device: str) -> None:
    with pytest.raises(SettingsError, match="is no device; name auto, cpu, cuda or one GPU"):
        on_device(make_settings(tmp_path), device)
    tables: dict[str, Any] = {"worker": {"devices": [device]}}
    with pytest.raises(SettingsError, match=r"appliance.toml, line 4: worker.devices.0: "):
        make_settings(tmp_path / "written", tables)
