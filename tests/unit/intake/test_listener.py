"""The listener: success means kept, who may call is checked, and whatever is turned away leaves a note."""

import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage
from pynetdicom import AE, StoragePresentationContexts, build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from appliance.delivery.store_scu import Caller, NotDelivered, echo, send_files
from appliance.dicom.identity import read_identity
from appliance.intake.listener import Listener
from appliance.settings import Peer
from appliance.spool import Arrival, Spool
from appliance.spool.frame import whole_frame
from tests.support.arriving import data_set_bytes
from tests.support.bare_peer import BarePeer, association_request, content_of
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
    listener: ListenerBeside

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
    yield Bench(listener.start(), spool, listener)
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
    first, second = wait_until(lambda: bench.notes() if len(bench.notes()) == 2 else None, 20, "two notes")
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
    notes = wait_until(lambda: bench.notes() if len(bench.notes()) == 2 else None, 20, "two notes")
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
    assert bench.note() == {
        "event": "association_aborted",
        "source_ae": "FAKEPACS",
        "stored": 2,
        "address": "127.0.0.1",
    }
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


def test_an_object_of_another_class_than_its_context_is_answered_so_and_not_kept(bench: Bench) -> None:
    with BarePeer(bench.port) as peer:
        assert peer.store("1.2.1", sop_class=MRImageStorage) == 0xA900
        assert peer.store("1.2.2") == 0x0000
    assert data_set_bytes(bench.arrivals(1)[0].path) == content_of("1.2.2")
    assert len(bench.spool.arrivals()) == 1


@pytest.mark.parametrize("again", [False, True], ids=["one association", "another association"])
def test_other_content_under_a_known_uid_is_kept_too_and_the_sender_hears_of_it(bench: Bench, *, again: bool) -> None:
    with BarePeer(bench.port) as first, BarePeer(bench.port) as second:
        peer = second if again else first
        assert first.store("1.2.3", b"one") == 0x0000
        assert peer.store("1.2.3", b"one") == 0x0000, "the same again is no news"
        assert peer.store("1.2.3", b"other") == 0x0111
        assert peer.store("1.2.3", b"one") == 0x0000
    contents = [data_set_bytes(arrival.path) for arrival in bench.arrivals(4)]
    assert contents.count(b"other") == 1
    assert bench.note()["status"] == "0x0111"


@pytest.mark.parametrize("bench", [{"max_object_mb": 1}], indirect=True)
def test_an_object_beyond_the_limit_ends_the_association_and_leaves_nothing(bench: Bench) -> None:
    with BarePeer(bench.port) as peer:
        assert peer.store("1.2.1", bytes(1 << 20)) == 0x0000
        with pytest.raises(OSError):  # noqa: PT011 - aborted or reset, as the timing has it
            peer.store("1.2.2", bytes((1 << 20) + 1))
    assert len(bench.arrivals(1)) == 1
    assert "max_object_mb" in str(bench.note()["sentence"])


@pytest.mark.parametrize("bench", [{"slots": 2, "slot_kb": 64}], indirect=True)
@pytest.mark.parametrize("size", [1, 4096, 65_000, 70_000, 1 << 20, (3 << 20) + 7])
def test_objects_of_any_size_are_kept_whether_there_is_a_slot_or_not(bench: Bench, size: int) -> None:
    contents = [random.Random(f"{size} {count}").randbytes(size) for count in range(4)]
    with BarePeer(bench.port) as peer:
        assert [peer.store(f"1.2.{count}", content) for count, content in enumerate(contents)] == [0x0000] * 4
    arrived = [data_set_bytes(arrival.path) for arrival in bench.arrivals(4)]
    assert sorted(arrived) == sorted(contents)
    assert all(whole_frame(arrival.path) is not None for arrival in bench.spool.arrivals())


def _ask_for_commitment(bench: Bench, asked: Dataset, action: int = 1) -> int:
    ae = AE("FAKEPACS")
    ae.add_requested_context(StorageCommitmentPushModel)
    opened = ae.associate("127.0.0.1", bench.port, ae_title="DELINEATE")
    status, _ = opened.send_n_action(asked, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    opened.release()
    return int(status.Status)


def _request(transaction: str, *uids: str) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = transaction
    asked.ReferencedSOPSequence = [Dataset() for _ in uids]
    for item, uid in zip(asked.ReferencedSOPSequence, uids, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid
    return asked


def test_who_asks_us_to_commit_is_answered_once_that_is_remembered(bench: Bench) -> None:
    with BarePeer(bench.port) as peer:
        assert [peer.store(f"1.2.{count}") for count in range(20)] == [0x0000] * 20
    assert _ask_for_commitment(bench, _request("1.2.9", "1.2.1", "1.2.2")) == 0x0000
    (note,) = bench.spool.notes("commitment_asked")
    assert len(bench.spool.arrivals()) == 20, "and what was sent before is where it is looked for"
    asked = [[CTImageStorage, "1.2.1"], [CTImageStorage, "1.2.2"]]
    assert note.fields == {"transaction_uid": "1.2.9", "caller": "FAKEPACS", "asked": asked}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
@pytest.mark.parametrize(
    ("uids", "action", "status"),
    [
        (("1.2.9", "1.2.1"), 2, 0x0123),
        (("1.2.9",), 1, 0x0115),
        (("1.2.9", "../etc"), 1, 0x0115),
        (("", "1.2.1"), 1, 0x0115),
    ],
    ids=["another action", "nothing", "no UID", "no transaction"],
)
def test_what_is_no_request_for_commitment_is_refused_and_not_remembered(
    bench: Bench, uids: tuple[str, ...], action: int, status: int
) -> None:
    assert _ask_for_commitment(bench, _request(*uids), action) == status
    assert list(bench.spool.notes("commitment_asked")) == []


def test_whoever_is_turned_away_again_and_again_is_counted_and_does_not_fill_the_disk(bench: Bench) -> None:
    for _ in range(30):
        with pytest.raises(ConnectionRefusedError):
            BarePeer(bench.port, association_request(calling_ae="STRANGER"))
    assert bench.note()["event"] == "association_refused"
    bench.listener.stop()
    assert [note["event"] for note in bench.notes()] == ["association_refused", "repeated_from_address"]
    assert bench.notes()[1]["count"] == 29


def test_a_sender_may_propose_every_class_there_is_and_hears_which_are_taken(bench: Bench) -> None:
    ae = AE("FAKEPACS")
    for context in [*StoragePresentationContexts[:119], build_context(CTImageStorage)]:
        ae.add_requested_context(context.abstract_syntax)
    opened = ae.associate("127.0.0.1", bench.port, ae_title="DELINEATE")
    assert {context.abstract_syntax for context in opened.accepted_contexts} == {CTImageStorage}
    assert {context.result for context in opened.rejected_contexts} == {0x03}
    assert len(opened.accepted_contexts) + len(opened.rejected_contexts) == len(ae.requested_contexts)
    opened.release()
