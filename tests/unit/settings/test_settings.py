"""Configuration is read once, checked as a whole, and a mistake in it stops the start with a sentence."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from appliance.errors import SettingsError
from appliance.settings import Settings, load_settings
from tests.support.config_folder import BONES, PACS, ROIS, make_settings, write_config

SHIPPED = Path(__file__).parents[3] / "configs"


def _refusal(folder: Path) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(folder)
    return str(refused.value)


def test_the_shipped_configuration_is_good() -> None:
    settings = load_settings(SHIPPED)
    assert settings.protocols
    assert settings.peers


def test_what_the_shipped_file_calls_a_default_is_the_default() -> None:
    text = (SHIPPED / "appliance.toml").read_text()
    uncommented = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    settings = Settings(folder=SHIPPED)
    shown = {(table, key): value for table, keys in uncommented.items() for key, value in keys.items()}
    examples = {("database", "url"), ("broker", "url"), ("appliance", "models_dir")}
    examples |= {("worker", "memory_mb"), ("worker", "memory_share")}
    examples |= {("tls", "certificate"), ("tls", "key"), ("tls", "authorities")}
    examples |= {("audit", "collector"), ("audit", "collector_certificate")}
    for table, key in shown.keys() - examples:
        default = getattr(getattr(settings, table), key)
        default = list(default) if isinstance(default, tuple) else default
        default = default.model_dump() if isinstance(default, BaseModel) else default
        assert str(default) == str(shown[table, key]), f"[{table}] {key}"


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        (
            "appliance.toml",
            "[intake]\nseries_quite_s = 5",
            "appliance.toml, line 2: intake.series_quite_s is not a setting; did you mean series_quiet_s?",
        ),
        ("appliance.toml", "[intak]\nport = 5", "appliance.toml, line 1: intak is not a setting; did you mean intake?"),
        ("appliance.toml", "[worker]\nzebra = 5", "appliance.toml, line 2: worker.zebra is not a setting"),
        (
            "peers.toml",
            '[pacs]\nae_titel = "A"\nhost = "h"\nport = 1',
            "peers.toml, line 2: [pacs]: ae_titel is not a setting; did you mean ae_title?",
        ),
        (
            "rois.toml",
            "[External]\nnumber = 1\ncolor = [1, 2, 3]",
            "rois.toml, line 3: [External]: color is not a setting; did you mean colour?",
        ),
    ],
)
def test_a_misspelt_key_is_named_with_its_file_and_the_right_spelling(
    tmp_path: Path, file: str, text: str, sentence: str
) -> None:
    folder = write_config(tmp_path)
    (folder / file).write_text(text)
    message = _refusal(folder)
    # where a required key is missing too, the misspelt one is what the operator must hear of
    assert message == sentence


def test_a_misspelt_key_of_a_protocol_is_named(tmp_path: Path) -> None:
    folder = write_config(tmp_path, protocols={"bones": {**BONES, "match": {"bodypart": ["PELVIS"]}}})
    assert _refusal(folder) == "protocols/bones.toml, line 9: match.bodypart is not a setting; did you mean body_part?"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"destinations": ["pac"]}, "protocol bones: destination 'pac' is not defined; did you mean pacs?"),
        ({"rois": ["Femur_Left"]}, "protocol bones: ROI 'Femur_Left' is not defined; did you mean Femur_L?"),
        ({"rois": ["Zebra"]}, "protocol bones: ROI 'Zebra' is not defined"),
    ],
)
def test_a_protocol_may_only_name_what_is_defined(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    folder = write_config(tmp_path, protocols={"bones": {**BONES, **change}})
    line = 5 if "destinations" in change else 4
    assert _refusal(folder) == f"protocols/bones.toml, line {line}: {sentence}"


@pytest.mark.parametrize("key", ["rois", "destinations"])
def test_a_protocol_names_each_structure_and_destination_once(tmp_path: Path, key: str) -> None:
    twice = [BONES[key][0], BONES[key][0]]
    folder = write_config(tmp_path, protocols={"bones": {**BONES, key: twice}})
    message = _refusal(folder)
    line = 4 if key == "rois" else 5
    assert message == f"protocols/bones.toml, line {line}: {twice[0]} is named twice in {key}; leave one"


def test_two_structures_may_not_share_a_number(tmp_path: Path) -> None:
    folder = write_config(tmp_path, rois={**ROIS, "Femur_R": {**ROIS["Femur_R"], "number": 5}})
    line = 1 + (folder / "rois.toml").read_text().splitlines().index("[Femur_R]") + 1
    sentence = "Femur_L and Femur_R have the same number 5; give one of them another"
    assert _refusal(folder) == f"rois.toml, line {line}: {sentence}"


def test_two_protocols_may_not_share_a_name(tmp_path: Path) -> None:
    folder = write_config(tmp_path, protocols={"one": BONES, "two": BONES})
    assert _refusal(folder) == "protocols/two.toml, line 1: the name 'bones' is taken by another protocol"


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("intake", 'port = "eleven"'),
        ("intake", "port = 0"),
        ("intake", "port = 65536"),
        ("intake", 'ae_title = "SEVENTEEN_LETTERS"'),
        ("intake", "ae_title = 'BACK\\SLASH'"),
        ("intake", 'ae_title = " PADDED"'),
        ("intake", 'ae_title = ""'),
        ("intake", "max_associations = 0"),
        ("intake", "series_quiet_s = 0"),
        ("intake", "series_quiet_s = -1"),
        ("intake", "series_quiet_s = inf"),
        ("intake", "incomplete_wait_s = nan"),
        ("intake", "incomplete_wait_s = 1e300"),
        ("worker", "attempts = 0"),
        ("worker", "threads = -1"),
        ("delivery", "retry_cap_s = inf"),
        ("appliance", 'station_name = "A STATION NAME 17"'),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_its_key(tmp_path: Path, table: str, line: str) -> None:
    folder = write_config(tmp_path)
    (folder / "appliance.toml").write_text(f"[{table}]\n{line}\n")
    assert _refusal(folder).startswith(f"appliance.toml, line 2: {table}.{line.split(maxsplit=1)[0]}: ")


def test_a_file_that_is_no_toml_is_named_with_the_line(tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / "peers.toml").write_text("[pacs\n")
    message = _refusal(folder)
    assert str(folder / "peers.toml") in message
    assert "line 1" in message


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / "rois.toml").write_bytes(b"\xff\xfe")
    assert str(folder / "rois.toml") in _refusal(folder)


def test_a_folder_without_appliance_toml_is_told_what_to_do(tmp_path: Path) -> None:
    assert "copy configs/" in _refusal(tmp_path)


@pytest.mark.parametrize("table", ["peers", "protocols", "rois"])
def test_tables_with_a_file_of_their_own_belong_there(tmp_path: Path, table: str) -> None:
    folder = write_config(tmp_path, {table: {"pacs": 1}})
    assert _refusal(folder) == f"appliance.toml, line 2: {table} has a file of its own; move it there"


def test_settings_never_change_once_they_are_read(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with pytest.raises(ValidationError):
        settings.intake.port = 1
    with pytest.raises(ValidationError):
        settings.intake = settings.intake  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.protocols["bones"].rois = ()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {})
    assert settings.intake.ae_title == "DELINEATE"
    assert settings.intake.known_peers_only
    assert settings.data_dir == (tmp_path / "var").resolve()
    assert settings.database_url == f"sqlite:///{settings.data_dir / 'delineate.sqlite'}"
    assert settings.broker_url == "redis://127.0.0.1:16379/0"


def test_paths_are_relative_to_the_configuration_not_to_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path / "box" / "configs", {"appliance": {"data_dir": "../var", "models_dir": "../models"}})
    monkeypatch.chdir(tmp_path)
    settings = load_settings(Path("box/configs"))
    assert settings.data_dir == (tmp_path / "box" / "var").resolve()
    assert settings.models_dir == (tmp_path / "box" / "models").resolve()


def test_a_real_database_and_broker_take_the_place_of_the_embedded_ones(tmp_path: Path) -> None:
    urls = {"database": {"url": "postgresql://u:p@db/x"}, "broker": {"url": "redis://broker:6379/1"}}
    settings = make_settings(tmp_path, urls)
    assert settings.database_url == "postgresql://u:p@db/x"
    assert settings.broker_url == "redis://broker:6379/1"


def test_peers_are_what_their_file_says(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, peers={"pacs": {**PACS, "storage_commitment": True}})
    assert settings.peers["pacs"].ae_title == "FAKEPACS"
    assert settings.peers["pacs"].storage_commitment
