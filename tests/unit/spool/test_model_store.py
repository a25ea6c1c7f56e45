"""Where a hospital's own models are kept: several versions, one of them active, and nothing half done is ever seen."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ModelRefused, Reason
from appliance.segmentation.model_package import is_still, load_package
from appliance.spool.model_store import ModelStore
from tests.support.dying import deaths_of
from tests.support.model_packages import make_threshold_package

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def _write(folder: Path, name: str, version: str) -> None:
    make_threshold_package(folder, fold_shifts_hu=(0.0,), tile=(4, 8, 8))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "name": name, "version": version}))


def _import(store: ModelStore, name: str, version: str) -> None:
    with store.incoming() as folder:
        _write(folder, name, version)
        store.take_in(folder)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """One bundled model, `pelvis` 1.0.0, and nothing else."""
    _write(tmp_path / "bundled" / "pelvis", "pelvis", "1.0.0")
    return ModelStore(tmp_path / "var" / "models", tmp_path / "bundled")


def _seen(store: ModelStore) -> list[tuple[str, str, bool]]:
    return [(model.name, model.version, model.is_active) for model in store.models()]


def test_a_bundled_model_works_until_a_version_of_the_hospitals_own_is_activated_and_again_after_the_undo(
    store: ModelStore,
) -> None:
    assert store.active("pelvis") == store.bundled / "pelvis"
    _import(store, "pelvis", "2.0.0")
    assert store.active("pelvis") == store.bundled / "pelvis", "importing alone changes nothing"
    store.activate("pelvis", "2.0.0")
    assert store.active("pelvis") == store.imported / "pelvis" / "2.0.0"
    assert _seen(store) == [("pelvis", "1.0.0", False), ("pelvis", "2.0.0", True)]
    store.activate("pelvis", "1.0.0")
    assert store.active("pelvis") == store.bundled / "pelvis"


def test_versions_stand_side_by_side_in_the_order_of_their_numbers(store: ModelStore) -> None:
    for version in ("10.0.0", "9.2.0", "9.10.0"):
        _import(store, "head", version)
    assert [model.version for model in store.versions("head")] == ["9.2.0", "9.10.0", "10.0.0"]
    with pytest.raises(ModelRefused, match="no version of model head is active; choose one"):
        store.active("head")
    store.activate("head", "10.0.0")
    store.activate("head", "9.2.0")
    assert store.find("head").version == "9.2.0"


@pytest.mark.parametrize("name", ["absent", "../pelvis", "", "Pelvis", "a/b", ".incoming", "pelvis\n"])
def test_a_name_that_is_not_there_or_no_name_at_all_is_refused(store: ModelStore, name: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        store.active(name)
    assert refused.value.reason is Reason.MODEL_MISSING


def test_a_version_that_is_not_there_is_refused_with_those_that_are(store: ModelStore) -> None:
    with pytest.raises(ModelRefused, match=r"there is no version 3\.0\.0 of model pelvis \(there: 1\.0\.0\)"):
        store.activate("pelvis", "3.0.0")
    assert store.active("pelvis") == store.bundled / "pelvis"


def test_a_version_that_is_to_be_active_and_is_gone_never_lets_another_take_its_place(store: ModelStore) -> None:
    _import(store, "pelvis", "2.0.0")
    store.activate("pelvis", "2.0.0")
    shutil.rmtree(store.imported / "pelvis" / "2.0.0")
    with pytest.raises(ModelRefused, match=r"version 2\.0\.0 of model pelvis is to be active, and is not there"):
        store.active("pelvis")


@pytest.mark.parametrize("content", [b"", b"newest\n", b"../../elsewhere\n", b"\xff\xfe"])
def test_a_damaged_choice_is_refused_and_not_guessed(store: ModelStore, content: bytes) -> None:
    _import(store, "pelvis", "2.0.0")
    (store.imported / "pelvis" / "active").write_bytes(content)
    with pytest.raises(ModelRefused, match=r"is damaged|names no version"):
        store.active("pelvis")


def test_a_name_and_version_can_be_taken_only_once(store: ModelStore) -> None:
    _import(store, "head", "1.0.0")
    for name, version in (("head", "1.0.0"), ("pelvis", "1.0.0")):
        with pytest.raises(ModelRefused, match=r"there is a version 1\.0\.0 of model .* already"):
            _import(store, name, version)
    assert _seen(store) == [("head", "1.0.0", False), ("pelvis", "1.0.0", True)]


def test_what_is_no_package_is_not_taken_in_and_nothing_of_it_is_left(store: ModelStore) -> None:
    with pytest.raises(ModelRefused), store.incoming() as folder:
        (folder / "manifest.json").write_text("{}")
        store.take_in(folder)
    assert _seen(store) == [("pelvis", "1.0.0", True)]
    assert list((store.imported / ".incoming").iterdir()) == []


def test_what_an_import_that_died_has_left_is_swept_when_it_is_old(store: ModelStore) -> None:
    with store.incoming() as folder:
        incoming = folder.parent
    for name, age in (("old", timedelta(days=2)), ("young", timedelta(hours=2))):
        _write(incoming / name, "head", "1.0.0")
        then = (datetime.now(UTC) - age).timestamp()
        os.utime(incoming / name, (then, then))
    with store.incoming() as folder:
        assert {path.name for path in incoming.iterdir()} == {"young", folder.name}


def test_what_was_removed_comes_back_as_it_was_but_not_as_the_active_one(store: ModelStore) -> None:
    _import(store, "pelvis", "2.0.0")
    store.activate("pelvis", "2.0.0")
    before = load_package(store.active("pelvis"))
    store.remove("pelvis", "2.0.0", NOON)
    assert _seen(store) == [("pelvis", "1.0.0", True)]
    assert [(name, version) for name, version, _ in store.removed()] == [("pelvis", "2.0.0")]
    store.restore("pelvis", "2.0.0")
    assert _seen(store) == [("pelvis", "1.0.0", True), ("pelvis", "2.0.0", False)]
    assert store.removed() == []
    store.activate("pelvis", "2.0.0")
    assert is_still(before, store.active("pelvis"))


def test_the_version_that_was_removed_last_is_the_one_that_comes_back(store: ModelStore) -> None:
    for minute, mark in enumerate(("first", "second")):
        _import(store, "head", "1.0.0")
        (store.imported / "head" / "1.0.0" / mark).touch()
        store.remove("head", "1.0.0", NOON + timedelta(minutes=minute))
    assert (store.restore("head", "1.0.0").folder / "second").exists()
    with pytest.raises(ModelRefused, match=r"there is a version 1\.0\.0 of model head already"):
        store.restore("head", "1.0.0")
    with pytest.raises(ModelRefused, match=r"no version 7\.0\.0 of model head was removed"):
        store.restore("head", "7.0.0")


def test_what_came_with_the_release_is_never_removed(store: ModelStore) -> None:
    with pytest.raises(ModelRefused, match="came with this release and cannot be removed"):
        store.remove("pelvis", "1.0.0", NOON)
    assert store.active("pelvis").is_dir()


def test_a_package_that_changed_on_the_disk_is_not_the_one_that_was_loaded(store: ModelStore) -> None:
    folder = store.active("pelvis")
    package = load_package(folder)
    assert is_still(package, folder)
    _write(folder, "pelvis", "1.0.1")
    assert not is_still(package, folder)


WORK: dict[str, Callable[[ModelStore], Any]] = {
    "import": lambda store: _import(store, "pelvis", "3.0.0"),
    "activate another": lambda store: store.activate("pelvis", "2.1.0"),
    "activate the bundled one": lambda store: store.activate("pelvis", "1.0.0"),
    "remove": lambda store: store.remove("pelvis", "2.1.0", NOON),
    "remove the active one": lambda store: store.remove("pelvis", "2.0.0", NOON),
    "restore": lambda store: store.restore("pelvis", "2.2.0"),
}


@pytest.mark.parametrize("name", WORK)
def test_whenever_the_box_dies_the_store_answers_as_before_or_as_after(
    store: ModelStore, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("2.0.0", "2.1.0", "2.2.0"):
        _import(store, "pelvis", version)
    store.activate("pelvis", "2.0.0")
    store.remove("pelvis", "2.2.0", NOON)
    shutil.copytree(tmp_path / "var", tmp_path / "before")
    states = []
    for _ in deaths_of(lambda: WORK[name](store), monkeypatch):
        for model in store.models():
            assert load_package(model.folder).manifest.version == model.version
        assert store.find("pelvis").folder.is_dir(), "there is always an active version"
        states.append((_seen(store), [(one, version) for one, version, _ in store.removed()]))
        shutil.rmtree(tmp_path / "var")
        shutil.copytree(tmp_path / "before", tmp_path / "var")
    before, after = states[0], states[-1]
    assert before != after
    turns = [index for index in range(1, len(states)) if states[index] != states[index - 1]]
    assert len(turns) == (2 if name == "remove the active one" else 1), "one step; an active version stops first"
