"""DICOM over TLS: what of TLS is spoken, and how a peer's certificate is compared with the one that is expected.

PS3.15 Annex B.12, the BCP 195 profile (RFC 8996, RFC 9325): TLS 1.2 or newer, both sides show a certificate, cipher
suites with forward secrecy and authenticated encryption, no compression, no renegotiation.
"""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from appliance.errors import SettingsError
from appliance.settings.box import Peer

CIPHERS_1_2 = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
"""RFC 9325 section 4.2; those of TLS 1.3 are all of this kind."""

_NAMES = ("DNS", "IP Address")
"""Kinds of subject alternative names that a peer may be known by; a common name is none of them (RFC 9525)."""

_WORDS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate; give it one that our authorities signed",
    "WRONG_VERSION_NUMBER": "what it speaks is not TLS; turn TLS on at its end, or off at ours",
    "HTTP_REQUEST": "it speaks HTTP and not DICOM",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS of version 1.2 or newer; update it",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it takes no TLS of version 1.2 or newer; update it",
    "NO_SHARED_CIPHER": "it offers no cipher suite that is safe (RFC 9325); update it",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it takes no cipher suite that is safe (RFC 9325), or not our certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of our certificate; give it ours",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has ended; put a new one in its place",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours",
}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files are, all absolute: our certificate, its key, and the authorities of others."""

    certificate: Path
    key: Path
    authorities: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of our own certificate, the first of its file.

        Raises:
            SettingsError: it cannot be read.
        """
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first_certificate(self.certificate))).hexdigest()


@dataclass(frozen=True, slots=True)
class ShownCertificate:
    """What is compared of a certificate that a peer showed, after its authority was checked.

    Attributes:
        sha256: fingerprint, in lower case without colons.
        names: its subject alternative names, in lower case.
    """

    sha256: str
    names: frozenset[str]

    @classmethod
    def of(cls, connection: ssl.SSLSocket | ssl.SSLObject) -> Self | None:
        """The certificate that the other end of a connection showed; None without one."""
        encoded, read = connection.getpeercert(binary_form=True), connection.getpeercert()
        if not encoded or not read:
            return None
        alternatives: Any = read.get("subjectAltName", ())
        names = frozenset(str(name).lower() for kind, name in alternatives if kind in _NAMES)
        return cls(hashlib.sha256(encoded).hexdigest(), names)

    def is_called(self, expected: str) -> bool:
        """Whether this is the certificate of peers.toml: by its fingerprint, or by one of its names."""
        return expected.replace(":", "").lower() == self.sha256 or expected.lower() in self.names


def first_certificate(path: Path) -> str:
    """The first certificate of a PEM file.

    Raises:
        SettingsError: there is none that can be read.
    """
    try:
        text = path.read_text(encoding="ascii")
        begin = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}); correct [tls] in appliance.toml") from error
    except ValueError as error:
        raise SettingsError(f"{path} holds no certificate in PEM; write it with -----BEGIN CERTIFICATE-----") from error
    return text[begin:end]


def listening_context(files: TlsFiles) -> ssl.SSLContext:
    """For connections that peers open to us: whoever shows no certificate of our authorities stays outside.

    Raises:
        SettingsError: a file is missing, is no PEM, or the key is not that of the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # an association is never resumed: each shows its certificate again
    context.options |= ssl.OP_NO_TICKET
    _protect(context, files)
    return context


def calling_context(files: TlsFiles, peer: Peer) -> "CallingContext":
    """For a connection that we open to `peer`, which must show the certificate of peers.toml or one for its host.

    Raises:
        SettingsError: a file is missing, is no PEM, or the key is not that of the certificate.
    """
    context = CallingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _CheckedSocket
    context.expected = peer.certificate
    context.check_hostname = peer.certificate is None
    _protect(context, files)
    return context


def in_words(error: OSError) -> str:
    """Why a handshake failed, for the trail."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({getattr(error, 'verify_message', error.args[0])})"
    if isinstance(error, TimeoutError):
        return "it did not finish its TLS handshake in time"
    reason = getattr(error, "reason", None)
    if not isinstance(error, ssl.SSLError) or reason is None:
        return "it broke off its TLS handshake"
    return _WORDS.get(reason, f"its TLS handshake failed ({reason.replace('_', ' ').lower()})")


class CallingContext(ssl.SSLContext):
    """A context for one call.

    Attributes:
        expected: the certificate that the peer must show, as peers.toml names it.
        problem: why the handshake failed, in words; empty as long as it did not.
    """

    expected: str | None = None
    problem: str = ""


class _CheckedSocket(ssl.SSLSocket):
    """Compares the peer's certificate with the expected one before a byte of DICOM is sent."""

    def connect(self, addr: Any) -> None:
        try:
            super().connect(addr)
        except OSError:
            self.close()  # pynetdicom leaves that to the garbage collector
            raise

    def do_handshake(self, block: bool = False) -> None:
        context = self.context
        try:
            super().do_handshake(block)
            if isinstance(context, CallingContext) and context.expected is not None:
                shown = ShownCertificate.of(self)
                if shown is None or not shown.is_called(context.expected):
                    raise ssl.SSLCertVerificationError("it is not the one that peers.toml names")
        except OSError as error:
            if isinstance(context, CallingContext):
                context.problem = in_words(error)
            raise


def _protect(context: ssl.SSLContext, files: TlsFiles) -> None:
    """What both directions have in common."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(CIPHERS_1_2))
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_mode = ssl.CERT_REQUIRED
    for path in (files.certificate, files.key, files.authorities):
        if not path.is_file():
            raise SettingsError(f"{path} does not exist; correct [tls] in appliance.toml")
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(_why_no_chain(files, error)) from error
    try:
        context.load_verify_locations(files.authorities)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(f"{files.authorities} holds no certificates in PEM that can be read") from error


def _no_passphrase() -> str:
    """Nobody is there to type one: the box starts by itself after a power cut."""
    return ""


def _why_no_chain(files: TlsFiles, error: Exception) -> str:
    reason = str(getattr(error, "reason", "") or "")
    if "MISMATCH" in reason:
        return f"{files.key} is not the key of {files.certificate}; take the pair that belongs together"
    if isinstance(error, ssl.SSLError) and b"ENCRYPTED" in files.key.read_bytes():
        return f"{files.key} is protected by a passphrase, which nobody could type at a start; store it without"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return f"{files.key} or {files.certificate} cannot be read ({error.strerror}); give the appliance the right to"
    return f"{files.certificate} and {files.key} are no certificate and key in PEM that can be read"
