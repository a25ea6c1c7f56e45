"""The demo runs the installed protocols, so all that they name goes along."""

from pathlib import Path

from appliance.running.demo.box import _configure
from appliance.settings import load_settings
from tests.support.config_folder import BONES, write_config


def test_a_protocol_for_a_planning_system_of_the_sites_own_can_be_shown(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "installed", protocols={"bones": {**BONES, "planning_system": "ours"}})
    (folder / "planning_systems.toml").write_text('[ours]\nholes = "xor"\n')
    settings = _configure(load_settings(folder), tmp_path / "demo")
    assert settings.planning_system_of(settings.protocols["bones"]).holes == "xor"


def test_a_site_without_planning_systems_needs_no_file_of_them(tmp_path: Path) -> None:
    settings = _configure(load_settings(write_config(tmp_path / "installed")), tmp_path / "demo")
    assert list(settings.planning_systems) == []
