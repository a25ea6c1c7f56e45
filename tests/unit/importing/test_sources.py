import os
import zipfile
from pathlib import Path

import pytest

from appliance.errors import ModelRefused, Reason
from appliance.importing.sources import checked_source, digests, inside, unpacked


def archive(path: Path, entries: dict[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(entry, content)
    return path


def test_an_archive_is_unpacked_to_its_one_folder(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.zip", {"bundle/configs/a.json": b"{}", "bundle/models/b": b"1"})
    (tmp_path / "into").mkdir()
    folder = unpacked(path, tmp_path / "into")
    assert folder.name == "bundle"
    assert (folder / "configs" / "a.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a\\..\\out", "C:/out"])
def test_an_archive_that_writes_elsewhere_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "model.zip", {"first": b"1", name: b"2"})
    (tmp_path / "into").mkdir()
    with pytest.raises(ModelRefused) as caught:
        unpacked(path, tmp_path / "into")
    assert caught.value.reason is Reason.MODEL_UNSAFE
    assert list((tmp_path / "into").iterdir()) == []


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.zip", {"link": b"/etc/passwd"}, mode=0o120777)
    with pytest.raises(ModelRefused, match="link"):
        unpacked(path, tmp_path / "into")


def test_an_archive_that_is_far_larger_than_it_looks_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.zip", {"bomb": bytes(2**24)})
    with pytest.raises(ModelRefused, match="larger than it looks"):
        unpacked(path, tmp_path / "into")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.zip", {"a": os.urandom(1000)})
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    (tmp_path / "into").mkdir()
    with pytest.raises(ModelRefused, match="damaged"):
        unpacked(path, tmp_path / "into")


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("1")
    os.mkfifo(tmp_path / "model" / "pipe")
    with pytest.raises(ModelRefused, match="pipe"):
        checked_source(tmp_path / "model")
    (tmp_path / "model" / "pipe").unlink()
    (tmp_path / "model" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ModelRefused) as caught:
        checked_source(tmp_path / "model")
    assert caught.value.reason is Reason.MODEL_UNSAFE


def test_nothing_is_refused_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelRefused, match="empty"):
        checked_source(tmp_path / "empty")
    with pytest.raises(ModelRefused) as caught:
        checked_source(tmp_path / "nowhere")
    assert caught.value.reason is Reason.MODEL_MISSING


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", ""])
def test_a_name_in_a_description_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_text("1")
    with pytest.raises(ModelRefused):
        inside(tmp_path / "model", name)


def test_digests_name_what_was_read_and_every_description(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    for name in ("configs/a.json", "weights.pt", "image.nii"):
        (tmp_path / name).write_text("1")
    assert list(digests(tmp_path, ["weights.pt"])) == ["configs/a.json", "weights.pt"]
