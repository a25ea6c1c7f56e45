"""Slots: what is claimed by one is nobody else's, and wherever one dies, the whole is found and the torn is not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.spool import Buffer, SlotPool, Spool
from appliance.spool.entry import SlotEntry
from appliance.spool.file_meta import file_meta
from appliance.spool.frame import read_frame, whole_frame
from appliance.spool.slots import ABSENT, FILLED, FREE

META = file_meta("1.2", "1.2.3", "1.2.840.10008.1.2", "CT1", "DELINEATE")
SLOT_BYTES = 64 << 10
MUCH_MB = 1 << 20


def _pool(spool: Spool, slots: int = 3) -> SlotPool:
    pool = SlotPool(spool.root / "slots", slots, SLOT_BYTES)
    pool.refill(pool.numbers(ABSENT))
    return pool


def _received(spool: Spool, pool: SlotPool, data_set: bytes) -> SlotEntry:
    entry = spool.begin(Buffer(), META, pool)
    assert isinstance(entry, SlotEntry)
    entry.room(len(data_set))[:] = data_set
    entry.advance(len(data_set))
    return entry


def test_every_free_slot_is_claimed_once_and_then_there_are_none(spool: Spool) -> None:
    pool = _pool(spool)
    claimed = [pool.claim() for _ in range(4)]
    assert sorted(each[0] for each in claimed if each) == [0, 1, 2]
    assert claimed[3] is None


def test_a_new_slot_is_zeros_of_its_full_length_on_the_disk(spool: Spool) -> None:
    pool = _pool(spool)
    assert pool.path(0).read_bytes() == bytes(SLOT_BYTES)
    assert pool.path(0).stat().st_blocks * 512 >= SLOT_BYTES, (
        "blocks that are only promised would cost a journal commit"
    )


def test_what_is_kept_in_a_slot_becomes_an_arrival_of_exactly_its_bytes(spool: Spool) -> None:
    pool = _pool(spool)
    _received(spool, pool, b"data set").keep()
    assert spool.arrivals() == []
    (number,) = pool.numbers(FILLED)
    spool.hand_over(pool, number)
    (arrival,) = spool.arrivals()
    assert arrival.path.read_bytes()[128:] == META + b"data set"
    assert whole_frame(arrival.path) is not None
    assert pool.numbers(ABSENT) == [number]


def test_nothing_of_another_object_is_left_behind_a_shorter_one(spool: Spool) -> None:
    pool, buffer = _pool(spool, 1), Buffer()
    for data_set in (b"A" * 50_000, b"b"):
        entry = spool.begin(buffer, META, pool)
        entry.room(len(data_set))[:] = data_set
        entry.advance(len(data_set))
        if data_set == b"b":
            entry.keep()
        else:
            entry.drop()
    content = pool.path(0).read_bytes()
    frame = read_frame(content)
    assert frame is not None
    spool.hand_over(pool, 0)
    assert b"A" not in spool.arrivals()[0].path.read_bytes()[frame.data_set_at :]


def test_a_slot_that_was_given_back_is_used_again(spool: Spool) -> None:
    pool = _pool(spool, 1)
    _received(spool, pool, b"torn").drop()
    assert pool.numbers(FREE) == [0]
    _received(spool, pool, b"data set").keep()
    assert whole_frame(pool.path(0)) is not None


def _torn(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)


def _headless(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[:4096] = bytes(4096)
    path.write_bytes(content)


def _of_another_envelope(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_torn, _headless, _of_another_envelope])
def test_a_start_finds_what_is_whole_and_takes_what_is_torn_for_free(
    spool: Spool, damage: Callable[[Path], None]
) -> None:
    pool = _pool(spool)
    for data_set in (b"D" * 5000, b"E" * 5000):
        _received(spool, pool, data_set).keep()
    whole, torn = pool.numbers(FILLED)
    damage(pool.path(torn))
    again = SlotPool(spool.root / "slots", 3, SLOT_BYTES)
    assert again.recover(MUCH_MB) == [whole]
    assert len(again.numbers(FREE)) == 2


def test_a_start_removes_slots_of_another_size_or_beyond_the_number(spool: Spool) -> None:
    _pool(spool)
    (spool.root / "slots" / "0001.slot").write_bytes(b"half made")
    again = SlotPool(spool.root / "slots", 2, SLOT_BYTES)
    assert again.recover(MUCH_MB) == []
    assert again.numbers(FREE) == [0]
    assert sorted(path.name for path in (spool.root / "slots").iterdir()) == ["0000.slot"]


def test_a_start_with_a_smaller_pool_finds_what_lies_in_a_slot_beyond_it(spool: Spool) -> None:
    pool = _pool(spool)
    for _ in range(3):
        _received(spool, pool, b"data set").keep()
    again = SlotPool(spool.root / "slots", 1, SLOT_BYTES)
    for number in again.recover(MUCH_MB):
        spool.hand_over(again, number)
    assert len(spool.arrivals()) == 3


def test_slots_take_no_large_share_of_a_small_disk(spool: Spool) -> None:
    pool = SlotPool(spool.root / "slots", 4096, SLOT_BYTES)
    pool.recover(free_mb=100)
    assert pool.slots * SLOT_BYTES <= 5 << 20


def test_what_a_dead_process_had_in_hand_is_found_or_made_anew(spool: Spool) -> None:
    pool = _pool(spool, 2)
    entries = [_received(spool, pool, b"D" * 5000) for _ in range(2)]
    number = entries[0]._number
    entries[0].keep()
    pool._states[number] = os.getpid()  # it died between its flush and saying so
    pool.left_by(os.getpid())
    pool.settle_orphans()
    assert pool.numbers(FILLED) == [number]
    assert pool.numbers(ABSENT) == [entries[1]._number]


def test_only_one_listener_has_the_slots(spool: Spool) -> None:
    first, second = _pool(spool), _pool(spool)
    assert first.lock()
    assert not second.lock()
    first.unlock()
    assert second.lock()
    second.unlock()
