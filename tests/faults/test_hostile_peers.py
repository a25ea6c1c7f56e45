"""No peer can hold the listener, crash it, leave the spool, or keep others from being served."""

import json
import random
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from appliance.delivery.store_scu import Caller
from appliance.dicom.uid import is_valid_uid
from tests.support.attackers import Footing, HealthyPeer, Held, answers_to, connect, established, read_pdu
from tests.support.hostile_pdus import (
    ASSOCIATE_RQ,
    P_DATA,
    RELEASE,
    associate_rq,
    attacks,
    c_echo,
    c_store,
    lengths,
    pdu,
    uids,
)
from tests.support.listening import ListenerProcess
from tests.support.proof import Tally
from tests.support.waiting import wait_until

Times = Callable[[int, int], int]
LIMIT_S = 1.0
"""Deadlines of the listener under attack, in seconds."""

SCANNER = {"ae_title": "SCANNER", "host": "127.0.0.1", "port": 104, "addresses": ["127.0.0.1", "127.0.0.2"]}
ANYBODY = {"ae_title": "FAKEPACS", "host": "127.0.0.1", "port": 104}
OFFERED = pdu(ASSOCIATE_RQ, b"\0\1", length=200)
SEED = 20261121
MOST_OPEN = 500
"""As many as a flood keeps open: a process may have 1024 descriptors."""


@dataclass
class Ground:
    """A running listener, what it held before anything happened, and a peer who behaves."""

    listener: ListenerProcess
    process: psutil.Process
    base: Footing
    log_began: int = 0  #: bytes of the log before this test

    @property
    def port(self) -> int:
        return self.listener.me.port

    def healthy(self) -> HealthyPeer:
        return HealthyPeer(Caller("SCANNER", 10.0), self.listener.me)

    def log(self) -> list[str]:
        said = (self.listener.folder / "listen.log").read_bytes()[self.log_began :]
        return said.decode(errors="replace").splitlines()

    def uncaught(self) -> list[str]:
        """Lines of the log that tell of an exception that nobody expected, or of a process that died of one."""
        return [line for line in self.log() if any(word in line for word in ("Traceback", '"exception"', "_died"))]

    def returns_to_base(self) -> Footing:
        """What it holds once it holds no more than before."""
        with suppress(AssertionError):
            wait_until(lambda: Footing.of(self.process).is_as(self.base), 20, "everything to be let go")
        return Footing.of(self.process)


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A listener with short deadlines that knows two peers: one bound to its addresses, one who may be anybody.

    It is the same for all attacks, one after another.
    """
    folder = tmp_path_factory.mktemp("ground") / "site"
    tables = {"intake": {"network_timeout_s": LIMIT_S, "free_space_reserve_mb": 0}}
    listener = ListenerProcess.configured(folder, tables, peers={"scanner": SCANNER, "pacs": ANYBODY})
    with listener.running() as started:
        process = psutil.Process(started.pid)
        ground = Ground(listener, process, Footing.of(process))
        ground.healthy().ask(5)
        with ExitStack() as several:  # what is made once, at the first use, is no leak
            for _ in range(3):
                several.enter_context(established(ground.port))
        wait_until(lambda: Footing.of(process).processes <= ground.base.processes, 10, "the first peers to be gone")
        yield ground
        assert started.poll() is None, "the listener ended"


@pytest.fixture
def ground(survivor: Ground) -> Ground:
    """The listener as it is before an attack."""
    log = survivor.listener.folder / "listen.log"
    return replace(survivor, base=Footing.of(survivor.process), log_began=log.stat().st_size)


def _nothing(connection: socket.socket) -> None:
    pass


def _half_header(connection: socket.socket) -> None:
    connection.sendall(OFFERED[:3])


def _half_pdu(connection: socket.socket) -> None:
    connection.sendall(OFFERED + b"\0")


def _half_object(connection: socket.socket) -> None:
    connection.sendall(associate_rq())
    read_pdu(connection)
    connection.sendall(c_store(b"1.2.3", bytes(5000))[:-2500])


SLOW = {
    "silent": (_nothing, b""),
    "half a header": (_half_header, b""),
    "half a PDU": (_half_pdu, b""),
    "one byte a second": (_half_pdu, b"\0"),
    "half an object": (_half_object, b""),
    "one byte of an object a second": (_half_object, b"\0"),
}


@pytest.mark.fault("slow associations", "never stuck")
@pytest.mark.parametrize(
    ("kind", "sources"),
    [(kind, 1) for kind in SLOW]
    + [(kind, 250) for kind in ("silent", "half an object", "one byte of an object a second")],
)
def test_a_healthy_peer_is_served_while_others_hold_connections(
    ground: Ground, tally: Tally, times: Times, kind: str, sources: int
) -> None:
    begin, drip = SLOW[kind]
    healthy = ground.healthy()
    with Held(ground.port, times(60, 200), begin, drip, sources) as held:
        healthy.ask(times(12, 400))
        wait_until(lambda: held.all_were_ended, 60, "the listener to let go of all of them by itself")
    tally.counted(healthy.tried, healthy.failed)
    left = ground.returns_to_base()
    tally.count(held=left.is_as(ground.base))
    tally.figures |= {
        "connections opened": str(held.opened),
        "C-ECHO answered in, p99": f"{healthy.p99_s:.2f} s",
        "left over": f"{left.processes} processes, {left.descriptors} descriptors (before: {ground.base.descriptors})",
    }


@pytest.mark.fault("bad PDUs", "never stuck")
def test_whatever_is_sent_in_whatever_state_the_listener_lives_and_lets_go(
    ground: Ground, tally: Tally, times: Times
) -> None:
    answered = 0
    for attack in attacks(SEED, times(1_500, 20_000)):
        try:
            answers = answers_to(ground.port, attack.before + attack.hostile)
        except OSError as error:
            tally.count(held=isinstance(error, ConnectionError))  # closed on us is an answer, silence is none
            continue
        tally.count(held=all(1 <= answer[0] <= 7 for answer in answers))
        answered += bool(answers)
    _alive_and_as_before(ground, tally)
    tally.figures["connections that were answered"] = str(answered)


@pytest.mark.fault("huge declared lengths", "never stuck")
def test_a_declared_length_reserves_no_memory(ground: Ground, tally: Tally, times: Times) -> None:
    for number, length in enumerate(lengths(SEED, times(150, 1_000))):
        head = pdu(P_DATA, b"\0" * 64, length=length)
        sent = associate_rq() + head if number % 3 else pdu(ASSOCIATE_RQ, associate_rq()[6:], length=length)
        with suppress(ConnectionError):
            answers_to(ground.port, sent)
        tally.count(held=ground.process.is_running())
    _alive_and_as_before(ground, tally)


@pytest.mark.fault("hostile UIDs", "never wrong")
def test_no_uid_names_a_file_and_none_that_is_invalid_is_acknowledged(
    ground: Ground, tally: Tally, times: Times
) -> None:
    spool = ground.listener.spool.root
    outside = _everything_outside(ground.listener.folder.parent, spool)
    hostile = list(uids(SEED, times(400, 5_000)))
    for first in range(0, len(hostile), 4):
        some = hostile[first : first + 4]
        valid = sum(is_valid_uid(uid.rstrip(b"\0").decode("ascii", "replace")) for uid in some)
        with suppress(ConnectionError):
            answers = answers_to(ground.port, associate_rq() + b"".join(map(c_store, some)) + RELEASE)
            tally.counted(len(some), max(0, sum(_status(answer) == 0x0000 for answer in answers) - valid))
    assert _everything_outside(ground.listener.folder.parent, spool) == outside
    names = [path.name for path in spool.rglob("*")]
    assert not [name for name in names if any(word in name for word in ("evil", "passwd", "..", "svg", "reboot"))]
    assert not Path("/tmp/evil").exists()  # noqa: S108 - where a traversal would lead
    _alive_and_as_before(ground, tally)


@pytest.mark.fault("association flood", "never stuck")
def test_a_flood_of_connections_from_one_address_leaves_others_their_place(
    ground: Ground, tally: Tally, times: Times
) -> None:
    healthy = ground.healthy()
    most = 0
    flood: deque[socket.socket] = deque()
    with ExitStack() as everything:
        for _ in range(times(500, 5_000)):
            if len(flood) == MOST_OPEN:
                flood.popleft().close()
            with suppress(OSError):
                flood.append(everything.enter_context(connect(ground.port, "127.0.0.66", timeout_s=2.0)))
                flood[-1].sendall(associate_rq())
            most = max(most, len(ground.process.children()))
            if len(healthy.seconds) < 20:
                healthy.ask(1)
        healthy.ask(10)
    tally.counted(healthy.tried, healthy.failed)
    tally.count(held=most <= 2 * 20 + 8)
    tally.figures |= {"processes at most": str(most), "C-ECHO answered in, p99": f"{healthy.p99_s:.2f} s"}
    _alive_and_as_before(ground, tally)


TITLES = [
    b"<svg/onload=x()>",
    b"'; DROP TABLE --",
    b"../../etc/passwd",
    b'\r\n{"event":"x"}',
    b"\x1b]0;evil\x07",
    b"${jndi:ldap://x}",
    b"%s%s%s%n",
    b"\0\0\0\0",
    b"\xff\xfe\xfd",
    b"FAKEPACS\\X",
    b" " * 16,
]


@pytest.mark.fault("log injection", "never silent")
def test_hostile_titles_are_refused_and_make_no_line_of_their_own_in_the_log(
    ground: Ground, tally: Tally, times: Times
) -> None:
    dice = random.Random(SEED)
    for number in range(times(1_000, 10_000)):
        title = TITLES[number % len(TITLES)] if number < 200 else dice.randbytes(16)
        caller, called = (title, b"DELINEATE") if number % 2 else (b"FAKEPACS", title)
        with suppress(ConnectionError):
            answers = answers_to(ground.port, associate_rq(caller, called) + c_echo())
            tally.count(held=not any(answer[0] == 2 for answer in answers))
    for line in ground.log():
        tally.count(held=_is_event(line))
    for note in ground.listener.spool.notes("audit"):
        tally.count(held=json.loads(json.dumps(note.fields)) == note.fields)
    _alive_and_as_before(ground, tally)


PLANTED = "ZZPLANTED^PATIENT"


@pytest.mark.fault("patient data in logs", "never silent")
def test_nothing_of_what_an_object_says_reaches_the_log_or_a_note(ground: Ground, tally: Tally, times: Times) -> None:
    element = b"\x10\x00\x10\x00PN" + len(PLANTED + " ").to_bytes(2, "little") + f"{PLANTED} ".encode()
    for number in range(times(60, 1_000)):
        uid = b"1.2.%d" % number if number % 2 else f"1.2/{PLANTED}".encode()
        with suppress(ConnectionError):
            answers_to(ground.port, associate_rq() + c_store(uid, element * (1 + number % 3)) + RELEASE)
        tally.count(held=True)
    said = "\n".join(ground.log()) + json.dumps([note.fields for note in ground.listener.spool.notes("audit")])
    tally.count(held="ZZPLANTED" not in said)


OUR_MARK = b"\x89DLN\r\n\x1a"
MAGICS = [b"MZ\x90\0", b"\x7fELF", b"<html><script>", b"PK\3\4", b"%PDF-1.7", b"#!/bin/sh\n"]


@pytest.mark.fault("polyglot preambles", "never wrong")
def test_what_arrives_lies_behind_a_preamble_of_our_own(ground: Ground, tally: Tally) -> None:
    spool = ground.listener.spool
    for number, magic in enumerate(MAGICS):
        answers = answers_to(ground.port, associate_rq() + c_store(b"1.9.%d\0" % number, magic * 40) + RELEASE)
        tally.count(held=any(_status(answer) == 0x0000 for answer in answers))

    def arrived() -> set[Path] | None:
        ours = {one.path for one in spool.arrivals() if any(magic * 40 in one.path.read_bytes() for magic in MAGICS)}
        return ours if len(ours) == len(MAGICS) else None

    for path in wait_until(arrived, 20, "all arrivals"):
        head = path.read_bytes()[:132]
        tally.count(held=head.startswith(OUR_MARK) and head.endswith(b"DICM") and not any(map(head.count, MAGICS)))
        tally.count(held=not path.stat().st_mode & 0o117)


def _status(answer: bytes) -> int | None:
    """The status of a response in one PDU; None for every other PDU."""
    at = answer.find(b"\0\0\0\x09\2\0\0\0") if answer[0] == P_DATA else -1
    return int.from_bytes(answer[at + 8 : at + 10], "little") if at >= 0 else None


def _is_event(line: str) -> bool:
    try:
        return isinstance(json.loads(line).get("event"), str)
    except ValueError:
        return False


def _everything_outside(folder: Path, spool: Path) -> set[Path]:
    return {path for path in folder.parent.rglob("*") if spool not in path.parents and path != spool}


def _alive_and_as_before(ground: Ground, tally: Tally) -> None:
    """The listener answers, nothing was uncaught, nothing is left over, and it grew by no more than 8 MB."""
    healthy = ground.healthy()
    healthy.ask(3)
    tally.counted(healthy.tried, healthy.failed)
    left = ground.returns_to_base()
    grown_kb = left.resident_kb - ground.base.resident_kb
    assert ground.uncaught() == []
    tally.count(held=left.is_as(ground.base))
    tally.count(held=grown_kb <= 8 << 10)
    tally.figures["memory grown by"] = f"{max(grown_kb, 0) / 1024:.1f} MB"
