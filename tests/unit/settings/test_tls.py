"""DICOM over TLS: files that cannot be used stop the start in a sentence, and only who should be is let through."""

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.clock import now_utc
from appliance.errors import SettingsError
from appliance.settings import Peer, load_settings
from appliance.settings.certificates import check_files
from appliance.settings.tls import CIPHERS_1_2, ShownCertificate, TlsFiles, calling_context, in_words, listening_context
from tests.support.certificates import DAY, Authority, Holder
from tests.support.config_folder import PACS, make_settings, write_config

Break = Callable[[Authority, TlsFiles], TlsFiles]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


def _meet(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "127.0.0.1") -> tuple[Any, Any]:
    """Shake hands; what each side found out: the certificate of the other, or its error."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    found: list[Any] = []

    def serve() -> None:
        try:
            with server.wrap_socket(ours, server_side=True) as secured:
                found.append(ShownCertificate.of(secured))
                secured.recv(1)
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=host) as secured:
            answer: Any = ShownCertificate.of(secured)
    except OSError as error:
        answer = error
    thread.join()
    ours.close()
    theirs.close()
    return found[0], answer


def _peer(**changes: Any) -> Peer:
    return Peer.model_validate({"ae_title": "PACS", "host": "127.0.0.1", "port": 104, "tls": True, **changes})


def _plain_client(holder: Holder | None, **limits: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that checks nothing and may be old."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    for name, version in limits.items():
        setattr(context, name, version)
    if holder is not None:
        context.load_cert_chain(holder.files.certificate, holder.files.key)
    return context


def test_both_sides_are_known_to_each_other_by_name_and_fingerprint(authority: Authority) -> None:
    us, pacs = authority.issue("delineate.example"), authority.issue("pacs.example")
    for expected in (None, "pacs.example", "PACS.example", pacs.fingerprint, pacs.fingerprint.upper()):
        context = calling_context(us.files, _peer(certificate=expected))
        seen, answer = _meet(listening_context(pacs.files), context)
        assert seen == ShownCertificate(us.fingerprint, frozenset({"delineate.example", "127.0.0.1"}))
        assert answer.sha256 == pacs.fingerprint


def test_colons_and_capitals_of_a_fingerprint_mean_nothing() -> None:
    shown = ShownCertificate("ab" * 32, frozenset({"pacs.example"}))
    assert shown.is_called(":".join(["AB"] * 32))
    assert not shown.is_called("ab" * 31)
    assert not shown.is_called("example")


def test_a_peer_with_another_certificate_than_expected_is_not_spoken_to(authority: Authority) -> None:
    us, pacs, other = (authority.issue(name) for name in ("us.example", "pacs.example", "other.example"))
    for expected in ("pacs.example", pacs.fingerprint):
        context = calling_context(us.files, _peer(certificate=expected))
        _, answer = _meet(listening_context(other.files), context)
        assert isinstance(answer, ssl.SSLCertVerificationError)
        assert context.problem == "its certificate is not accepted (it is not the one that peers.toml names)"
    elsewhere = authority.issue("far.example", host="10.9.9.9")
    context = calling_context(us.files, _peer())
    _, answer = _meet(listening_context(elsewhere.files), context)
    assert isinstance(answer, ssl.SSLCertVerificationError), "without a name of its own, the host must be in it"
    assert "IP address mismatch" in context.problem


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("caller", "words"),
    [
        ("expired", "its certificate is not accepted (certificate has expired)"),
        ("not yet", "its certificate is not accepted (certificate is not yet valid)"),
        ("of a stranger", "its certificate is not accepted (unable to get local issuer certificate)"),
        ("self-signed", "its certificate is not accepted (self-signed certificate)"),
        ("without", "it showed no certificate; give it one that our authorities signed"),
        ("TLS 1.1", "it offers no TLS of version 1.2 or newer; update it"),
        ("CBC", "it offers no cipher suite that is safe (RFC 9325); update it"),
        ("RSA key exchange", "it offers no cipher suite that is safe (RFC 9325); update it"),
    ],
)
def test_who_shows_nothing_that_can_be_trusted_stays_outside(authority: Authority, caller: str, words: str) -> None:
    us, right = authority.issue("us.example"), authority.issue("right.example")
    clients = {
        "expired": lambda: _plain_client(authority.issue("e.example", starts=-2 * DAY, ends=-timedelta(minutes=1))),
        "not yet": lambda: _plain_client(authority.issue("n.example", starts=DAY)),
        "of a stranger": lambda: _plain_client(Authority(authority.folder / "other", "Other").issue("s.example")),
        "self-signed": lambda: _plain_client(authority.self_signed("self.example")),
        "without": lambda: _plain_client(None),
        "TLS 1.1": lambda: _plain_client(right, maximum_version=ssl.TLSVersion.TLSv1_1),
        "CBC": lambda: _with_cipher(right, "ECDHE-ECDSA-AES256-SHA384"),
        "RSA key exchange": lambda: _with_cipher(right, "AES256-GCM-SHA384"),
    }
    server = listening_context(us.files)
    assert isinstance(_meet(server, _plain_client(right))[0], ShownCertificate)
    error, _ = _meet(server, clients[caller]())
    assert isinstance(error, ssl.SSLError)
    assert in_words(error) == words


def _with_cipher(holder: Holder, name: str) -> ssl.SSLContext:
    context = _plain_client(holder, maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(name)
    return context


def test_nothing_is_compressed_renegotiated_or_resumed(authority: Authority) -> None:
    files = authority.issue("us.example").files
    for context in (listening_context(files), calling_context(files, _peer())):
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"} == {*CIPHERS_1_2}
    assert listening_context(files).num_tickets == 0


@pytest.mark.parametrize("command", ["up", "listen"])
def test_a_certificate_that_has_ended_stops_the_start_before_anything_is_made(
    tmp_path: Path, authority: Authority, command: str
) -> None:
    ended = authority.issue("late.example", starts=-2 * DAY, ends=-timedelta(hours=1))
    folder = write_config(tmp_path / "configs", {"tls": ended.table, "intake": {"tls": "only"}})
    delineate = [sys.executable, "-m", "appliance", "--config", str(folder), command]
    done = subprocess.run(delineate, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "late.example.pem (CN=late.example) ended on" in done.stderr
    assert not [path for path in tmp_path.glob("var/*") if path.name in {"spool", "supervisor.lock"}]


def test_what_goes_wrong_with_a_handshake_has_words() -> None:
    assert in_words(TimeoutError()) == "it did not finish its TLS handshake in time"
    assert in_words(ConnectionResetError()) == "it broke off its TLS handshake"


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda _, files: _with(files, key=files.key.with_name("gone")), "gone does not exist; correct [tls]"),
        (lambda ours, files: _with(files, key=ours.issue("b").files.key), "b.key is not the key of"),
        (lambda _, files: _with(files, certificate=files.key), "are no certificate and key in PEM"),
        (lambda _, files: _with(files, authorities=files.key), "holds no certificates in PEM that can be read"),
        (lambda ours, _: ours.issue("old", ends=-timedelta(hours=1)).files, "old.pem (CN=old) ended on"),
        (lambda ours, _: ours.issue("new", starts=DAY).files, "is valid only from"),
        (lambda ours, files: _with(files, key=_locked(ours)), "is protected by a passphrase"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start_in_a_sentence(
    authority: Authority, broken: Break, sentence: str
) -> None:
    good = authority.issue("us.example").files
    check_files(good, now_utc())
    with pytest.raises(SettingsError) as refused:
        check_files(broken(authority, good), now_utc())
    assert sentence in str(refused.value)


def _with(files: TlsFiles, **changes: Path) -> TlsFiles:
    parts = {name: getattr(files, name) for name in ("certificate", "key", "authorities")}
    return TlsFiles(**{**parts, **changes})


def _locked(authority: Authority) -> Path:
    """The key of us.example under a passphrase."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((authority.folder / "us.example.key").read_bytes(), None)
    locked = authority.folder / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return locked


def test_authorities_that_have_all_ended_stop_the_start(authority: Authority) -> None:
    files = authority.issue("us.example", ends=3000 * DAY).files
    with pytest.raises(SettingsError, match=r"no authority can be trusted today: .*ended on"):
        check_files(files, now_utc() + 400 * DAY)


@pytest.mark.parametrize(
    ("tables", "peer", "sentence"),
    [
        ({"tls": {"key": "k.pem"}}, {}, "appliance.toml, line 2: [tls] needs certificate, key and authorities"),
        ({"intake": {"tls": "only"}}, {}, "intake.tls is only, but there is no table [tls]; add it"),
        ({}, {"tls": True}, "peers.toml, line 7: pacs is called over TLS, but appliance.toml has no table [tls]"),
        ({}, {"certificate": "pacs.example"}, "pacs has a certificate, but is not spoken to over TLS; add tls = true"),
        (
            {},
            {"certificate": "two words"},
            "peers.toml, line 7: [pacs]: certificate: 'two words' is neither a SHA-256 fingerprint",
        ),
        (
            {},
            {"addresses": ["10.0.0.0/40"]},
            "peers.toml, line 7: [pacs]: addresses.0: '10.0.0.0/40' is no address or network",
        ),
    ],
)
def test_a_table_that_does_not_agree_with_itself_is_named(
    tmp_path: Path, tables: dict[str, Any], peer: dict[str, Any], sentence: str
) -> None:
    folder = write_config(tmp_path, tables, peers={"pacs": {**PACS, **peer}})
    with pytest.raises(SettingsError) as refused:
        load_settings(folder)
    assert sentence in str(refused.value)


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    tables = {"tls": {"certificate": "tls/us.pem", "key": "tls/us.key", "authorities": "/etc/hospital.pem"}}
    files = make_settings(tmp_path, tables).tls_files
    here = tmp_path / "configs" / "tls"
    assert files == TlsFiles(here / "us.pem", here / "us.key", Path("/etc/hospital.pem"))


def test_the_box_calls_itself_where_it_listens(tmp_path: Path, authority: Authority) -> None:
    us = authority.issue("us.example")
    anywhere = {"host": "0.0.0.0", "port": 11112}
    plain = make_settings(tmp_path, {"intake": anywhere}).myself
    assert (plain.host, plain.port, plain.tls) == ("127.0.0.1", 11112, False)
    secure = make_settings(tmp_path, {"tls": us.table, "intake": {**anywhere, "tls": "only"}}).myself
    assert (secure.host, secure.port, secure.tls, secure.certificate) == ("127.0.0.1", 2762, True, us.fingerprint)
