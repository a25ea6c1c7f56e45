"""Reading aside: the same values as reading here, and whatever kills the reader is one object's refusal."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from pydicom.uid import JPEG2000Lossless

from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.identity import InstanceIdentity, read_identity
from appliance.errors import Reason, SliceRefused
from appliance.intake import limited_reading
from appliance.intake.limited_reading import LimitedReading
from tests.support.bombs import deflated_bomb
from tests.support.ct_files import compress, make_ct_series
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def reading() -> Iterator[LimitedReading]:
    aside = LimitedReading()
    yield aside
    aside.stop()


def _pid(reading: LimitedReading) -> int:
    assert reading._reader is not None
    return reading._reader.process.pid


def _refusal(reading: LimitedReading, path: Path) -> SliceRefused:
    (refused,) = reading.identities([path])
    assert isinstance(refused, SliceRefused)
    return refused


def test_what_is_read_aside_is_what_would_be_read_here(reading: LimitedReading, tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path, slices=4)
    assert reading.identities(paths) == [read_identity(path) for path in paths]
    assert reading.identity(paths[0]) == read_identity(paths[0])
    assert reading.slices(paths) == [parse_slice(path) for path in paths]


def test_a_recompressed_image_is_the_same_image(reading: LimitedReading, tmp_path: Path) -> None:
    plain = make_ct_series(tmp_path / "plain", slices=3)
    packed = make_ct_series(tmp_path / "packed", slices=3)
    compress(packed[1], JPEG2000Lossless)
    assert reading.one_image(plain[1], packed[1])
    assert not reading.one_image(plain[1], plain[2])


def test_a_refusal_comes_back_with_its_reason(reading: LimitedReading, tmp_path: Path) -> None:
    path = tmp_path / "no.dcm"
    path.write_bytes(b"not DICOM")
    with pytest.raises(SliceRefused) as here:
        read_identity(path)
    assert (_refusal(reading, path).reason, _refusal(reading, path).sentence) == (
        here.value.reason,
        here.value.sentence,
    )
    with pytest.raises(SliceRefused, match="unreadable"):
        reading.slices([path])


def test_a_refusal_among_others_does_not_mix_up_whose_answer_is_whose(reading: LimitedReading, tmp_path: Path) -> None:
    first, second, third = make_ct_series(tmp_path, slices=3)
    bad = tmp_path / "no.dcm"
    bad.write_bytes(b"not DICOM")
    with pytest.raises(SliceRefused):
        reading.slices([bad, first, second])
    with pytest.raises(FileNotFoundError):
        reading.slices([tmp_path / "gone.dcm", first])
    assert reading.slices([third]) == [parse_slice(third)]


def test_a_file_that_the_disk_does_not_give_is_no_refusal(reading: LimitedReading, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        reading.identities([tmp_path / "gone.dcm"])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "reading it crashed the reader (SIGSEGV)"),
        (signal.SIGKILL, "reading it got stuck, or was ended because memory ran out"),
        (signal.SIGPROF, "reading it took more than 10 s of CPU"),
    ],
)
def test_an_object_that_kills_the_reader_is_refused_and_the_others_of_its_batch_are_read(
    reading: LimitedReading, tmp_path: Path, number: signal.Signals, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_reading, "WALL_S", 30.0)
    paths = make_ct_series(tmp_path, slices=3)
    poison = tmp_path / "poison"
    os.mkfifo(poison)  # opening it waits for somebody to write: the reader is at it until it is killed
    reading.identity(paths[0])
    victim = psutil.Process(_pid(reading))
    batch = [paths[0], poison, paths[1], paths[2]]
    killer = threading.Thread(target=_kill_when_it_waits, args=(victim, poison, number))
    killer.start()
    found = reading.identities(batch)
    killer.join()
    refused = found.pop(1)
    assert isinstance(refused, SliceRefused)
    assert (refused.reason, refused.sentence) == (Reason.PARSER_DIED, f"{words}; export it again at its source")
    assert found == [read_identity(path) for path in paths]
    assert _pid(reading) != victim.pid


def _kill_when_it_waits(victim: psutil.Process, pipe: Path, number: signal.Signals) -> None:
    """Kill a reader once it has opened the pipe, to which nobody writes."""
    end = wait_until(lambda: _open_end(pipe), 20, "the reader at the pipe")
    victim.send_signal(number)
    os.close(end)


def _open_end(pipe: Path) -> int:
    """Our end of it; 0 while nobody is at the other."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return 0


def test_a_reader_that_does_not_answer_is_not_waited_for(
    reading: LimitedReading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = tmp_path / "poison"
    os.mkfifo(poison)
    monkeypatch.setattr(limited_reading, "WALL_S", 0.5)
    assert _refusal(reading, poison).reason is Reason.PARSER_DIED


def test_an_object_that_burns_time_is_cut_off_by_the_kernel(reading: LimitedReading, tmp_path: Path) -> None:
    reading.identities(make_ct_series(tmp_path, slices=1))
    timers = Path(f"/proc/{_pid(reading)}/limits").read_text()
    limits = {line[:26].strip(): line[26:].split()[0] for line in timers.splitlines()[1:]}
    assert (limits["Max address space"], limits["Max file size"]) == (str(1 << 30), "0")
    assert limits["Max core file size"] == "0"


def test_a_deflated_bomb_is_refused_and_the_reader_stays_small(reading: LimitedReading, tmp_path: Path) -> None:
    (good,) = make_ct_series(tmp_path, slices=1)
    bomb = tmp_path / "bomb.dcm"
    bomb.write_bytes(deflated_bomb(good, 3 << 30))
    assert _refusal(reading, bomb).reason in {Reason.UNREADABLE, Reason.PARSER_DIED}
    assert isinstance(reading.identities([good])[0], InstanceIdentity)
    assert psutil.Process(_pid(reading)).memory_info().rss < 1 << 30


@pytest.mark.parametrize(
    "answer",
    [
        b"no JSON",
        b"[]",
        b'{"value": 7}',
        b'{"value": {"rows": NaN}}',
        b'{"refused": ["made_up", "words"]}',
        b'{"refused": 1}',
        json.dumps({"value": {"sop_class_uid": "1.2"}}).encode(),
    ],
)
def test_a_reader_in_wrong_hands_is_not_believed(answer: bytes, tmp_path: Path) -> None:
    (path,) = make_ct_series(tmp_path, slices=1)
    reading = LimitedReading()
    reading.identity(path)
    assert reading._reader is not None
    reading._reader._lines.append(answer)
    try:
        with pytest.raises(SliceRefused, match="parser_died"):
            reading.slices([path])
    finally:
        reading.stop()


def test_a_reader_cannot_point_to_another_file(tmp_path: Path) -> None:
    first, second = make_ct_series(tmp_path, slices=2)
    reading = LimitedReading()
    try:
        reading.identity(first)
        assert reading._reader is not None
        fields = {name: value for name, value in asdict(parse_slice(first)).items() if name != "path"}
        fields["header"] = {name: value.decode("latin-1") for name, value in fields["header"].items()}
        reading._reader._lines.append(json.dumps({"value": {**fields, "path": "/etc/passwd"}}).encode())
        assert reading.slices([second])[0].path == second
    finally:
        reading.stop()
