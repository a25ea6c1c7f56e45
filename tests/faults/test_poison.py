"""F24: objects that are made to kill whoever reads them. Each harms itself; healthy series beside it go on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from appliance.intake.reading_process import ADDRESS_SPACE_BYTES
from appliance.records import Database
from appliance.records.tables import CaseState, Instance, InstanceState
from tests.support.bombs import claimed_size, deflated_bomb, endless_value, nested_sequences, rle_bomb
from tests.support.ct_files import make_ct_series
from tests.support.overseen import Overseen
from tests.support.patients import make_patient
from tests.support.proof import Tally
from tests.support.reading import READING

DEEPEST = 20_000
GB = 1 << 30
BENIGN = {"unreadable", "parser_died", "pixels_truncated", "element_invalid", "element_missing", "pixels_undecodable"}


@contextmanager
def _watched() -> Iterator[list[int]]:
    """The most memory, in bytes, that each reader held while the block ran; the last entry is the peak."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            reader = READING._reader
            if reader is not None:
                try:
                    peak[0] = max(peak[0], psutil.Process(reader.process.pid).memory_info().rss)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _bombs(good: Path, folder: Path, count: int) -> list[Path]:
    """So many bombs, each of another size, kind by kind."""
    folder.mkdir()
    kinds: list[Callable[[int], bytes]] = [
        lambda number: deflated_bomb(good, GB + (number << 26)),
        lambda number: nested_sequences(good, 1 + DEEPEST * (number + 1) // count),
        lambda number: rle_bomb(good, 4096, 1000 + number),
        lambda number: claimed_size(good, 30_000 + number),
        lambda number: endless_value(good) + bytes(number),
    ]
    paths = []
    for number in range(count):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(kinds[number % len(kinds)](number))
    return paths


@pytest.mark.fault("F24", "never stuck")
def test_bombs_harm_only_themselves_and_the_reader_stays_within_its_limit(
    tmp_path: Path, database: Database, tally: Tally, times: Callable[[int, int], int]
) -> None:
    box = Overseen(tmp_path, database)
    (good,) = make_ct_series(tmp_path / "good", slices=1, series="bomb")
    bombs = _bombs(good, tmp_path / "bombs", times(25, 200))
    healthy = make_patient(tmp_path / "healthy", "healthy", slices=6)
    with _watched() as peak:
        box.receive([*bombs[: len(bombs) // 2], *healthy, *bombs[len(bombs) // 2 :]])
    with database.reading() as tx:
        rows = {row.digest: row for row in tx.query(Instance)}
    usable = [row for row in rows.values() if row.state is not InstanceState.QUARANTINED]
    refused = [row for row in rows.values() if row.state is InstanceState.QUARANTINED]
    tally.counted(len(bombs), len(bombs) + len(healthy) - len(rows))
    tally.count(held=all(row.reason in BENIGN for row in refused))
    by_series = {case.series_instance_uid: case for case in box.cases()}
    queued = [case for case in by_series.values() if case.state is CaseState.QUEUED]
    tally.count(held=len(queued) == 1 and queued[0].slices == len(healthy))
    tally.count(held=peak[0] <= ADDRESS_SPACE_BYTES)
    tally.figures["largest reader"] = f"{peak[0] >> 20} MB"
    tally.figures["set aside, and refused with their series"] = f"{len(refused)}, {len(usable) - len(healthy)}"


@pytest.mark.fault("F24", "never wrong")
def test_sequences_in_sequences_are_read_or_refused_however_deep(tmp_path: Path, tally: Tally) -> None:
    (good,) = make_ct_series(tmp_path / "good", slices=1)
    deep = tmp_path / "deep.dcm"
    for depth in (1, 10, 100, 240, 250, 300, 1000, 5000, DEEPEST):
        deep.write_bytes(nested_sequences(good, depth))
        (found,) = READING.identities([deep])
        reason = getattr(found, "reason", None)
        tally.count(held=reason in {"unreadable", "element_missing"})


@pytest.mark.fault("F24", "never stuck")
def test_pixels_that_swell_while_they_are_decoded_are_refused_and_the_worker_goes_on(
    tmp_path: Path, database: Database, tally: Tally
) -> None:
    box = Overseen(tmp_path, database)
    paths = make_patient(tmp_path / "poison", "poison", slices=6)
    paths[3].write_bytes(rle_bomb(paths[3], 48, 200_000))
    box.receive(paths)
    box.receive(make_patient(tmp_path / "healthy", "healthy", slices=6))
    for case in box.cases():
        box.overseer.attend(case.id)
    box.overseer.stop()
    poison, healthy = box.cases()
    tally.count(held=(poison.state, poison.reason) == (CaseState.REFUSED, "pixels_undecodable"))
    tally.count(held=healthy.state is CaseState.SENDING)
