"""What a process is told about its part of the box."""

from pathlib import Path

from appliance.running.roles import on_device
from tests.support.config_folder import make_settings


def test_workers_on_one_box_have_equal_shares_of_its_memory(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"worker": {"devices": ["cuda:0", "cuda:1"]}})
    assert on_device(settings, "cuda:1").worker.memory_share == 0.5
    alone = make_settings(tmp_path / "alone", {"worker": {"devices": ["cpu"]}})
    assert on_device(alone, None).worker.memory_share == 1.0


def test_a_share_that_a_site_has_set_is_kept(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"worker": {"devices": ["cpu", "cuda:0"], "memory_share": 0.7}})
    assert on_device(settings, "cpu").worker.memory_share == 0.7
