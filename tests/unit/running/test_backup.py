"""A backup: rows first, then files in the direction in which they move; what came later is queued again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.intake.arrivals import index_arrivals
from appliance.records import Database
from appliance.records.dumping import DumpFailed, dump
from appliance.running.backup import BackupFailed, back_up, restore
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.arriving import arrive_all
from tests.support.config_folder import make_settings
from tests.support.ct_files import make_ct_series
from tests.support.reading import READING
from tests.support.rows import NOON

Box = tuple[Settings, Database, Spool]


@pytest.fixture
def make_box(tmp_path: Path) -> Callable[[str], Box]:
    """A box of this name, with an empty database and an empty spool."""

    def make(name: str) -> Box:
        settings = make_settings(tmp_path / name)
        return settings, Database(settings.database_url), Spool(settings.data_dir / "spool")

    return make


def _receive(box: Box, folder: Path, series: str, *, indexed: bool = True) -> None:
    _, database, spool = box
    arrive_all(spool, make_ct_series(folder / series, slices=3, series=series))
    if indexed:
        index_arrivals(database, spool, NOON, READING)


def test_the_rows_are_copied_before_the_files_and_those_that_move_before_those_that_stay(
    tmp_path: Path, make_box: Callable[[str], Box]
) -> None:
    box = make_box("first")
    box[1].migrate()
    _receive(box, tmp_path, "indexed")
    _receive(box, tmp_path, "waiting", indexed=False)
    back_up(box[0], tmp_path / "backup")
    files = tmp_path / "backup" / "data" / "spool"
    waiting = [path.stat().st_ctime_ns for path in (files / "arrivals").iterdir()]
    lasting = [path.stat().st_ctime_ns for path in (files / "instances").rglob("*.dcm")]
    rows = (tmp_path / "backup" / "database.sqlite").stat().st_ctime_ns
    assert rows < min(waiting) <= max(waiting) < min(lasting)


def test_what_came_after_the_rows_were_copied_is_queued_again_and_nothing_is_missing(
    tmp_path: Path, make_box: Callable[[str], Box]
) -> None:
    first, second = make_box("first"), make_box("second")
    first[1].migrate()
    _receive(first, tmp_path, "before")
    (tmp_path / "backup").mkdir()
    dump(first[1], tmp_path / "backup")
    _receive(first, tmp_path, "meanwhile")
    back_up(first[0], tmp_path / "backup", database_is_done=True)
    restored = restore(second[0], tmp_path / "backup")
    assert (restored.queued_again, restored.missing) == (3, ())
    assert len(second[2].arrivals()) == 3
    index_arrivals(second[1], second[2], NOON, READING)
    with first[1].reading() as ours, second[1].reading() as theirs:
        question = "SELECT digest, state FROM instances ORDER BY digest"
        assert ours.connection().exec_driver_sql(question).all() == theirs.connection().exec_driver_sql(question).all()


def test_a_second_backup_into_the_same_folder_copies_what_is_new(
    tmp_path: Path, make_box: Callable[[str], Box]
) -> None:
    box = make_box("first")
    box[1].migrate()
    _receive(box, tmp_path, "one")
    assert "3 new files" in back_up(box[0], tmp_path / "backup")
    _receive(box, tmp_path, "two")
    assert "3 new files" in back_up(box[0], tmp_path / "backup")
    assert restore(make_box("second")[0], tmp_path / "backup").missing == ()


def test_a_file_that_the_backup_lacks_is_named(tmp_path: Path, make_box: Callable[[str], Box]) -> None:
    box = make_box("first")
    box[1].migrate()
    _receive(box, tmp_path, "one")
    back_up(box[0], tmp_path / "backup")
    lost = next((tmp_path / "backup" / "data" / "spool" / "instances").rglob("*.dcm"))
    lost.unlink()
    (sentence,) = restore(make_box("second")[0], tmp_path / "backup").missing
    assert sentence == f"instances/{lost.stem} is not in the backup"


def test_a_dump_that_is_not_there_is_not_taken_for_done(tmp_path: Path, make_box: Callable[[str], Box]) -> None:
    box = make_box("first")
    box[1].migrate()
    with pytest.raises(BackupFailed, match="no dump of the database"):
        back_up(box[0], tmp_path / "backup", database_is_done=True)
    back_up(box[0], tmp_path / "backup")
    (tmp_path / "backup" / "database.sqlite").rename(tmp_path / "backup" / "database.dump")
    with pytest.raises(DumpFailed, match="another kind of database"):
        restore(make_box("second")[0], tmp_path / "backup")
