"""DICOM over TLS: whoever is not who he claims stays outside and leaves a note; slow handshakes keep nobody out."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from appliance.delivery.store_scu import Caller, NotDelivered, echo
from appliance.records.tables import CaseState
from appliance.settings import Peer
from tests.support.appliance_box import ApplianceBox
from tests.support.attackers import Footing, HealthyPeer, Held, connect, read_pdu
from tests.support.certificates import DAY, Authority, Holder
from tests.support.ct_files import make_ct_series
from tests.support.dcmtk import ECHOSCU, STORESCU, WHY_NOT
from tests.support.fake_pacs import FakePacs
from tests.support.free_ports import free_port
from tests.support.hostile_pdus import RELEASE, associate_rq
from tests.support.listening import ListenerProcess
from tests.support.orthanc import Orthanc
from tests.support.patients import make_patient
from tests.support.proof import Tally
from tests.support.resending import send_until_taken
from tests.support.waiting import wait_until

Times = Callable[[int, int], int]
LIMIT_S = 2.0
CLIENT_HELLO_HALF = bytes.fromhex("16030100c8010000c40303") + b"\x55" * 20


@dataclass
class Ground:
    """A listener with a plain port and one for TLS; one peer, bound to certificate and address, who calls over TLS."""

    listener: ListenerProcess
    process: psutil.Process
    authority: Authority
    scanner: Holder
    tls_port: int
    plain_port: int

    def healthy(self) -> HealthyPeer:
        peer = self.listener.me.model_copy(update={"port": self.tls_port, "tls": True})
        return HealthyPeer(Caller("SCANNER", 10.0, self.scanner.files), peer)

    def noted(self, source: str) -> str:
        """What the trail will say of the callers from this address."""
        notes = (note.fields for note in self.listener.spool.notes("audit"))
        return " / ".join(str(fields.get("sentence")) for fields in notes if fields.get("address") == source)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder / "certificates")
    us, scanner = authority.issue("delineate.example"), authority.issue("scanner.example")
    tls_port = free_port()
    intake = {"tls": "both", "tls_port": tls_port, "network_timeout_s": LIMIT_S, "free_space_reserve_mb": 0}
    any_peer = {"host": "127.0.0.1", "port": 104, "tls": True}
    bound = {"certificate": "scanner.example", "addresses": ["127.0.0.0/25"]}
    peers = {
        "scanner": {"ae_title": "SCANNER", **any_peer, **bound},
        "other": {"ae_title": "OTHER", **any_peer, "certificate": "other.example"},
    }
    tables = {"intake": intake, "tls": us.table}
    listener = ListenerProcess.configured(folder / "site", tables, peers=peers, protocols={})
    with listener.running() as started:
        process = psutil.Process(started.pid)
        yield Ground(listener, process, authority, scanner, tls_port, listener.me.port)
        assert started.poll() is None, "the listener ended"


def _client(holder: Holder | None, *, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
    """A client that shows what it is told to and looks at nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    if holder is not None:
        context.load_cert_chain(holder.files.certificate, holder.files.key)
    return context


def _is_let_in(port: int, source: str, tls: ssl.SSLContext | None, title: str = "SCANNER") -> bool:
    """Whether an association comes about."""
    with connect(port, source) as plain, suppress(OSError):
        connection: socket.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")
        with connection:
            connection.sendall(associate_rq(title.encode()))
            answer = read_pdu(connection)
            connection.sendall(RELEASE)
            return answer is not None and answer[0] == 2
    return False


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.fault("a stranger sends", "never wrong")
def test_of_all_callers_only_the_right_one_is_let_in_and_the_others_are_noted(ground: Ground, tally: Tally) -> None:
    issue, right = ground.authority.issue, ground.scanner
    expired = issue("late.example", starts=-2 * DAY, ends=-timedelta(minutes=1))
    stranger = Authority(ground.authority.folder / "elsewhere", "Elsewhere").issue("scanner.example")
    old = ssl.TLSVersion.TLSv1_1
    tls, plain = ground.tls_port, ground.plain_port
    callers = [
        ("127.0.0.10", tls, _client(right), "SCANNER", None),
        ("127.0.0.11", tls, _client(expired), "SCANNER", "certificate has expired"),
        ("127.0.0.12", tls, _client(stranger), "SCANNER", "unable to get local issuer certificate"),
        ("127.0.0.13", tls, _client(ground.authority.self_signed("me.example")), "SCANNER", "self-signed certificate"),
        ("127.0.0.14", tls, _client(None), "SCANNER", "it showed no certificate"),
        ("127.0.0.15", tls, _client(right, newest=old), "SCANNER", "it offers no TLS of version 1.2 or newer"),
        ("127.0.0.16", tls, None, "SCANNER", "what it speaks is not TLS"),
        ("127.0.0.17", plain, _client(right), "SCANNER", "it speaks TLS to the port for plain DICOM"),
        ("127.0.0.18", plain, None, "SCANNER", "calls over TLS alone, and this caller did not"),
        ("127.0.0.19", tls, _client(issue("other.example")), "SCANNER", "has another certificate in peers.toml"),
        ("127.0.0.20", tls, _client(right), "OTHER", "has another certificate in peers.toml"),
        ("127.0.0.21", tls, _client(right), "NOBODY", "is not in peers.toml"),
        ("127.0.0.200", tls, _client(right), "SCANNER", "does not call from 127.0.0.200"),
    ]
    for source, port, context, title, why in callers:
        tally.count(held=_is_let_in(port, source, context, title) is (why is None))
        if why is not None:
            wait_until(lambda source=source, why=why: why in ground.noted(source), 20, f"a note that says: {why}")


@pytest.mark.fault("a stranger sends", "never wrong")
def test_what_comes_over_tls_is_kept_byte_for_byte(ground: Ground, tally: Tally, tmp_path: Path, times: Times) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=times(12, 200))
    peer = ground.healthy().me
    assert send_until_taken(Caller("SCANNER", 10.0, ground.scanner.files), peer, paths) == "0x0000"
    wanted = {path.read_bytes()[-2000:] for path in paths}

    def kept() -> bool:
        return wanted <= {arrival.path.read_bytes()[-2000:] for arrival in ground.listener.spool.arrivals()}

    wait_until(kept, 20, "all slices in the spool")
    tally.counted(len(paths))


def _says_nothing(connection: socket.socket) -> None:
    pass


def _half_a_handshake(connection: socket.socket) -> None:
    connection.sendall(CLIENT_HELLO_HALF)


@pytest.mark.fault("slow associations", "never stuck")
@pytest.mark.parametrize("drip", [b"", b"\x55"], ids=["half a handshake", "one byte of a handshake a second"])
def test_slow_handshakes_hold_no_place(ground: Ground, tally: Tally, times: Times, drip: bytes) -> None:
    healthy = ground.healthy()
    healthy.ask(2)
    wait_until(lambda: not _associations(ground.process), 10, "the first peer to be gone")
    base = Footing.of(ground.process)
    with Held(ground.tls_port, times(60, 200), _half_a_handshake, drip, 250) as held:
        healthy.ask(times(12, 400))
        processes = len(_associations(ground.process))
    tally.counted(healthy.tried, healthy.failed)
    tally.count(held=processes <= 1)
    with suppress(AssertionError):
        wait_until(lambda: Footing.of(ground.process).is_as(base), 20, "everything to be let go")
    tally.count(held=Footing.of(ground.process).is_as(base))
    tally.figures |= {"handshakes begun": str(held.opened), "C-ECHO over TLS, p99": f"{healthy.p99_s:.2f} s"}


def _associations(process: psutil.Process) -> list[psutil.Process]:
    """Processes that serve an association: all but the housekeeper, the eldest."""
    return sorted(process.children(), key=lambda child: child.create_time())[1:]


@pytest.mark.fault("a stranger sends", "never wrong")
def test_a_ct_comes_over_tls_and_its_structure_set_goes_and_is_committed_over_tls(tmp_path: Path, tally: Tally) -> None:
    authority = Authority(tmp_path / "certificates")
    us, pacs_holder = authority.issue("delineate.example"), authority.issue("pacs.example")
    with FakePacs(tls=pacs_holder) as pacs:
        tables = {"tls": us.table, "intake": {"tls": "only", "tls_port": free_port()}}
        box = ApplianceBox(tmp_path / "box", pacs, tables)
        try:
            box.start()
            path = make_patient(tmp_path / "patient", "over tls")[0]
            box.send(path.parent.glob("*.dcm"))
            case = box.wait_for_case(path, CaseState.COMMITTED)
            tally.count(held=len(pacs.stored) == 1)
            assert "commitment_reported" in box.events(case)
            with pytest.raises(OSError, match="refused"):  # nothing listens in plain
                connect(box.settings.intake.port)
        finally:
            box.kill()  # how it stops is tried elsewhere


@pytest.mark.skipif(Orthanc.program() is None, reason="NOT run: Orthanc is not installed")
@pytest.mark.fault("a stranger sends", "never wrong")
def test_orthanc_and_the_box_know_each_other_by_their_certificates(tmp_path: Path, tally: Tally) -> None:
    authority = Authority(tmp_path / "certificates")
    us, theirs = authority.issue("delineate.example"), authority.issue("orthanc.example")
    tls_port, dicom_port, http_port = free_port(), free_port(), free_port()
    orthanc = Orthanc(
        tmp_path / "orthanc", dicom_port=dicom_port, http_port=http_port, appliance_port=tls_port, tls=theirs
    )
    entry = {"ae_title": Orthanc.AE_TITLE, "host": "127.0.0.1", "port": dicom_port, "tls": True}
    peers = {"pacs": {**entry, "certificate": "orthanc.example"}}
    tables = {"intake": {"tls": "only", "tls_port": tls_port}, "tls": us.table}
    listener = ListenerProcess.configured(tmp_path / "site", tables, peers=peers, protocols={})
    orthanc.start()
    try:
        with listener.running():
            orthanc.post("/modalities/delineate/echo", {})
            tally.count(held=True)
            us_calling = Caller("DELINEATE", 10.0, us.files)
            echo(us_calling, Peer.model_validate(peers["pacs"]))
            tally.count(held=True)
            with pytest.raises(NotDelivered, match="not the one that peers"):
                echo(us_calling, Peer.model_validate({**entry, "certificate": "somebody.else"}))
    finally:
        orthanc.stop()


ECHO = [*(str(ECHOSCU), "-ll", "error", "-to", "5", "-ta", "5"), *("-aet", "SCANNER", "-aec", "DELINEATE")]


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
@pytest.mark.fault("a stranger sends", "never wrong")
def test_dcmtk_is_let_in_with_its_certificate_and_stays_outside_without(
    ground: Ground, tally: Tally, tmp_path: Path
) -> None:
    files, wrong = ground.scanner.files, ground.authority.issue("other.example").files
    trust = ["+cf", str(files.authorities)]
    where = ["127.0.0.1", str(ground.tls_port)]
    right = ["+tls", str(files.key), str(files.certificate), *trust]
    tally.count(held=_succeeds([*ECHO, *right, *where]))
    tally.count(held=not _succeeds([*ECHO, "+tls", str(wrong.key), str(wrong.certificate), *trust, *where]))
    tally.count(held=not _succeeds([*ECHO, "+tla", *trust, *where]))
    tally.count(held=not _succeeds([*ECHO, *where]))
    path = make_ct_series(tmp_path / "ct", slices=1)[0]
    store = [str(STORESCU), *ECHO[1:], *right, *where, str(path)]
    tally.count(held=_succeeds(store))


def _succeeds(command: list[str]) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0
