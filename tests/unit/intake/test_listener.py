"""The listener: success means kept, who may call is checked, and whatever is turned away leaves a note."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import MRImageStorage

from appliance.delivery.store_scu import Caller, NotDelivered, echo, send_files
from appliance.dicom.identity import read_identity
from appliance.intake.listener import Listener
from appliance.settings import Peer
from appliance.spool import Arrival, Spool
from tests.support.arriving import data_set_bytes
from tests.support.config_folder import make_settings
from tests.support.ct_files import make_ct_series
from tests.support.free_ports import free_port
from tests.support.listening import ListenerBeside
from tests.support.raw_sender import association, send_bytes, send_file
from tests.support.waiting import wait_until

Stop = Callable[[Callable[[], None]], None]
HOSTILE = "../../../../etc/passwd"


@dataclass
class Bench:
    """A running listener and what came of it."""

    port: int
    spool: Spool

    @property
    def me(self) -> Peer:
        return Peer(ae_title="DELINEATE", host="127.0.0.1", port=self.port)

    def arrivals(self, count: int) -> list[Arrival]:
        """What has come, once all of it is handed over."""
        return wait_until(lambda: self.spool.arrivals() if len(self.spool.arrivals()) >= count else None, 5, "arrivals")

    def notes(self) -> list[dict[str, object]]:
        return [note.fields for note in self.spool.notes("audit")]

    def note(self) -> dict[str, object]:
        """The one note that is there, or comes within a few seconds."""
        return wait_until(self.notes, 5, "a note")[0]


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path, spool: Spool, stop_meanwhile: Stop) -> Iterator[Bench]:
    """A listener; a test may change its settings by `indirect`."""
    changes: dict[str, Any] = getattr(request, "param", {})
    intake = {"port": free_port(), "free_space_reserve_mb": 0, "network_timeout_s": 5.0, "slots": 4, **changes}
    listener = ListenerBeside(make_settings(tmp_path, {"intake": intake}), spool)
    bench = Bench(listener.start(), spool)
    yield bench
    stop_meanwhile(listener.stop)


def _answers(bench: Bench) -> bool:
    try:
        echo(Caller("FAKEPACS", 5.0), bench.me)
    except NotDelivered:
        return False
    return True


def test_what_was_answered_with_success_is_kept_byte_for_byte(tmp_path: Path, bench: Bench) -> None:
    echo(Caller("FAKEPACS", 5.0), bench.me)
    paths = make_ct_series(tmp_path / "ct", slices=3)
    assert send_files(Caller("FAKEPACS", 5.0), bench.me, paths) == "0x0000"
    arrivals = bench.arrivals(3)
    assert [data_set_bytes(arrival.path) for arrival in arrivals] == [data_set_bytes(path) for path in paths]
    identity = read_identity(arrivals[0].path)
    assert (identity.source_ae, identity.called_ae) == ("FAKEPACS", "DELINEATE")
    assert bench.notes() == []


def test_strangers_and_wrong_titles_are_turned_away_with_a_note(bench: Bench) -> None:
    for caller, called in (("STRANGER", "DELINEATE"), ("FAKEPACS", "SOMEBODY")):
        with association(bench.port, caller=caller, called=called) as opened:
            assert opened.is_rejected
    first, second = wait_until(lambda: bench.notes() if len(bench.notes()) == 2 else None, 5, "two notes")
    assert first["event"] == second["event"] == "association_refused"
    assert first["sentence"] == "the AE title 'STRANGER' is not in peers.toml; add it there if this system may send"
    assert second["sentence"] == "it called 'SOMEBODY', and this is 'DELINEATE'; correct it at the sender"


@pytest.mark.parametrize("bench", [{"known_peers_only": False}], indirect=True)
def test_strangers_may_call_where_the_site_wants_it(bench: Bench) -> None:
    echo(Caller("STRANGER", 5.0), bench.me)


@pytest.mark.parametrize("bench", [{"max_associations": 1}], indirect=True)
def test_too_many_associations_are_turned_away_until_one_ends(bench: Bench) -> None:
    with association(bench.port), association(bench.port) as second:
        assert second.is_rejected
    wait_until(lambda: _answers(bench), 5, "the place to be free again")


def test_an_object_that_is_no_ct_is_not_even_offered_a_way_in(bench: Bench) -> None:
    with association(bench.port, sop_class=MRImageStorage) as opened:
        assert opened.accepted_contexts == []
    assert bench.spool.arrivals() == []


@pytest.mark.parametrize("bench", [{"free_space_reserve_mb": 1 << 40}], indirect=True)
def test_below_the_reserve_of_the_disk_images_are_turned_away_and_questions_are_not(bench: Bench) -> None:
    with association(bench.port) as opened:
        assert opened.is_rejected
    echo(Caller("FAKEPACS", 5.0), bench.me)
    notes = wait_until(lambda: bench.notes() if len(bench.notes()) == 2 else None, 5, "two notes")
    assert {note["event"] for note in notes} == {"storage_low", "association_refused"}
    assert any("free some and send again" in str(note.get("sentence")) for note in notes)


@pytest.mark.filterwarnings("ignore:.*VR UI:UserWarning")  # pydicom says so too
@pytest.mark.parametrize("uid", [HOSTILE, "1.2.03", "", "1." + "2" * 64])
def test_an_object_under_a_malformed_uid_is_kept_but_not_acknowledged(tmp_path: Path, bench: Bench, uid: str) -> None:
    path = make_ct_series(tmp_path / "ct", slices=1)[0]
    with association(bench.port) as opened:
        assert send_file(opened, path, uid) == 0xC000
    assert [data_set_bytes(arrival.path) for arrival in bench.arrivals(1)] == [data_set_bytes(path)]
    assert bench.note()["event"] == "object_refused"
    assert not any("passwd" in each.name for each in tmp_path.rglob("*")), "names on disk are never a peer's"


def test_an_aborted_association_leaves_what_was_acknowledged_and_a_note(tmp_path: Path, bench: Bench) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=2)
    with association(bench.port) as opened:
        for path in paths:
            assert send_file(opened, path, read_identity(path).sop_instance_uid) == 0x0000
        opened.abort()
    assert bench.note() == {"event": "association_aborted", "source_ae": "FAKEPACS", "stored": 2}
    assert len(bench.arrivals(2)) == 2


def test_bytes_that_are_no_dicom_at_all_are_kept_as_they_are(bench: Bench) -> None:
    with association(bench.port) as opened:
        assert send_bytes(opened, b"\xff" * 101, "1.2.3") == 0x0000
    assert bench.arrivals(1)[0].path.read_bytes().endswith(b"\xff" * 101)


def test_what_a_dead_listener_left_half_written_is_swept_at_the_start(tmp_path: Path, spool: Spool) -> None:
    (spool.root / "tmp" / "half.dcm").write_bytes(b"half")
    listener = ListenerBeside(make_settings(tmp_path, {"intake": {"port": free_port(), "slots": 0}}), spool)
    listener.start()
    listener.stop()
    assert list((spool.root / "tmp").iterdir()) == []


def test_a_port_in_use_is_an_error_at_the_start(tmp_path: Path, spool: Spool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = Listener(make_settings(tmp_path, {"intake": {"port": taken.getsockname()[1]}}), spool)
        with pytest.raises(OSError, match="in use"):
            listener.start()
