"""What a name in the spool promises about the bytes behind it."""

import os
import stat
from pathlib import Path

import pytest

from appliance.spool.durable import make_folder, write_durably


def test_a_name_appears_with_all_its_bytes(tmp_path: Path) -> None:
    write_durably((b"first ", b"", b"second"), tmp_path / "temporary", tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == b"first second"
    assert not (tmp_path / "temporary").exists()


def test_a_write_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_durably((b"bytes",), tmp_path / "temporary", final)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert list(final.iterdir()) == []


def test_a_file_that_somebody_else_is_writing_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "temporary").write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        write_durably((b"bytes",), tmp_path / "temporary", tmp_path / "final")
    assert (tmp_path / "temporary").read_bytes() == b"somebody else's"
    assert not (tmp_path / "final").exists()


def test_received_files_are_not_for_everybody_to_read(tmp_path: Path) -> None:
    write_durably((b"bytes",), tmp_path / "temporary", tmp_path / "final")
    make_folder(tmp_path / "folder")
    assert (tmp_path / "final").stat().st_mode & 0o007 == 0
    assert (tmp_path / "folder").stat().st_mode & 0o007 == 0


def test_a_folder_is_made_with_its_parents_and_only_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_bytes_are_flushed_before_they_get_their_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    flush, rename = os.fsync, os.rename

    def flushed(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def renamed(*names: Path) -> None:
        steps.append("name")
        rename(*names)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", renamed)
    write_durably((b"bytes",), tmp_path / "temporary", tmp_path / "final")
    assert steps == ["file", "name", "folder"]
