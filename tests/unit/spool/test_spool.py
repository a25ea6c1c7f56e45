"""The spool: what was received stays, byte for byte, whatever is done twice or left undone."""

import hashlib
import os
import random
from pathlib import Path

from pydicom.uid import CTImageStorage

from appliance.spool import Arrival, Spool
from appliance.spool.entry import PIECE
from appliance.spool.file_meta import file_meta

SYNTAX = "1.2.840.10008.1.2"
META = file_meta(CTImageStorage, "1.2.3", SYNTAX, "CT1", "DELINEATE")
OTHER_META = file_meta(CTImageStorage, "1.2.3", SYNTAX, "PACS", "DELINEATE")


def _keep(spool: Spool, data_set: bytes = b"data set") -> Arrival:
    return spool.keep(META, data_set)


def test_an_arrival_holds_exactly_the_bytes_that_came(spool: Spool) -> None:
    for length in (1, 4096, PIECE - 1, 5 * PIECE, 5 * PIECE + 17):
        data_set = random.Random(length).randbytes(length)
        content = _keep(spool, data_set).path.read_bytes()
        assert content[128:] == META + data_set


def test_the_digest_covers_transfer_syntax_and_data_set_but_not_the_envelope(spool: Spool) -> None:
    expected = hashlib.sha256(SYNTAX.encode() + b"\0data set").hexdigest()
    assert _keep(spool).digest == expected
    assert spool.keep(OTHER_META, b"data set").digest == expected
    other_syntax = file_meta(CTImageStorage, "1.2.3", SYNTAX + ".1", "CT1", "DELINEATE")
    assert spool.keep(other_syntax, b"data set").digest != expected
    assert {arrival.digest for arrival in spool.arrivals()} >= {expected}


def test_arrivals_come_back_in_order_of_arrival(spool: Spool) -> None:
    kept = [_keep(spool, bytes([count])) for count in range(20)]
    assert spool.arrivals() == kept
    assert spool.arrivals(limit=3) == kept[:3]


def test_the_same_object_twice_is_two_arrivals_of_one_content(spool: Spool) -> None:
    first, second = _keep(spool), _keep(spool)
    assert first.path != second.path
    assert first.digest == second.digest


def test_an_arrival_stays_until_it_is_released(spool: Spool) -> None:
    arrival = _keep(spool)
    spool.settle(arrival, spool.instance_path(arrival.digest))
    assert Spool(spool.root).arrivals() == [arrival]
    spool.release(arrival)
    assert spool.arrivals() == []
    assert spool.instance_path(arrival.digest).read_bytes()[128:] == META + b"data set"


def test_settling_and_releasing_twice_is_harmless(spool: Spool) -> None:
    arrival = _keep(spool)
    final = spool.instance_path(arrival.digest)
    for _ in range(2):
        spool.settle(arrival, final)
    for _ in range(2):
        spool.release(arrival)
    assert final.read_bytes()[128:] == META + b"data set"


def test_a_second_arrival_of_known_content_leaves_the_first_file_untouched(spool: Spool) -> None:
    first = _keep(spool)
    spool.settle(first, spool.instance_path(first.digest))
    second = spool.keep(OTHER_META, b"data set")
    spool.settle(second, spool.instance_path(second.digest))
    assert spool.instance_path(first.digest).read_bytes()[128:] == META + b"data set"


def test_leftovers_of_a_dead_process_are_swept_and_nothing_else(spool: Spool) -> None:
    arrival = _keep(spool)
    spool.keep_result("result.dcm", b"result")
    (spool.root / "tmp" / "half.dcm").write_bytes(META[:50])
    old, new = (spool.root / "tmp" / name for name in ("old.part", "new.part"))
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    assert Spool(spool.root).sweep() == 2
    assert list((spool.root / "tmp").iterdir()) == [new], "another process may be writing it at this moment"
    assert spool.arrivals() == [arrival]
    assert (spool.root / "results" / "result.dcm").read_bytes() == b"result"


def test_a_half_written_object_is_no_arrival(spool: Spool) -> None:
    (spool.root / "tmp" / f"1-2-{'a' * 64}.dcm").write_bytes(META)
    assert spool.arrivals() == []


def test_the_same_result_again_changes_nothing(spool: Spool) -> None:
    before = spool.keep_result("result.dcm", b"result").stat()
    after = spool.keep_result("result.dcm", b"result").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_damaged_result_is_replaced_as_a_whole(spool: Spool) -> None:
    path = spool.keep_result("result.dcm", b"result")
    path.write_bytes(b"res")
    assert spool.keep_result("result.dcm", b"result").read_bytes() == b"result"


def test_notes_are_read_oldest_first_until_they_are_removed(spool: Spool) -> None:
    for count in range(5):
        spool.leave_note("audit", {"count": count})
    spool.leave_note("commitment", {"count": 99})
    notes = list(Spool(spool.root).notes("audit"))
    assert [note.fields["count"] for note in notes] == [0, 1, 2, 3, 4]
    notes[0].path.unlink()
    assert [note.fields["count"] for note in spool.notes("audit")] == [1, 2, 3, 4]


def test_a_kind_of_note_that_nobody_left_yields_nothing(spool: Spool) -> None:
    assert list(spool.notes("audit")) == []


def test_free_space_is_that_of_the_spools_own_disk(tmp_path: Path) -> None:
    assert Spool(tmp_path / "spool").free_mb() > 0
