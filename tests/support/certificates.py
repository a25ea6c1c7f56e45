"""An authority, and the certificates that it gives out: right ones, and each kind of wrong one."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.x509.oid import NameOID

from appliance.settings.tls import TlsFiles

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Holder:
    """A certificate with its key, written to a folder together with whom it trusts."""

    files: TlsFiles
    encoded: bytes  #: DER

    @property
    def fingerprint(self) -> str:
        """SHA-256, as peers.toml has it."""
        return sha256(self.encoded).hexdigest()

    @property
    def table(self) -> dict[str, str]:
        """The table `[tls]` of appliance.toml."""
        files = self.files
        return {"certificate": str(files.certificate), "key": str(files.key), "authorities": str(files.authorities)}


class Authority:
    """Signs certificates; `folder` holds its own and all that it gave out."""

    def __init__(self, folder: Path, name: str = "Hospital") -> None:
        self.folder = folder
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self._key = generate_private_key(SECP256R1())
        self.certificate = _sign(name, (name, self._key), self._key, authority=True)
        self.file = folder / "authority.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, starts: timedelta = -DAY, ends: timedelta = 365 * DAY, host: str = "") -> Holder:
        """A certificate for a DNS name and for 127.0.0.1, or another host, valid from and until so long from now."""
        key = generate_private_key(SECP256R1())
        names = (name, host or "127.0.0.1")
        signed = _sign(self.name, (name, key), self._key, names=names, starts=starts, ends=ends)
        return self._write(name, signed, key)

    def self_signed(self, name: str) -> Holder:
        """A certificate that nobody signed but its holder, who trusts us."""
        key = generate_private_key(SECP256R1())
        return self._write(name, _sign(name, (name, key), key, names=(name, "127.0.0.1")), key)

    def _write(self, name: str, signed: x509.Certificate, key: EllipticCurvePrivateKey) -> Holder:
        files = TlsFiles(self.folder / f"{name}.pem", self.folder / f"{name}.key", self.file)
        files.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Holder(files, signed.public_bytes(serialization.Encoding.DER))


def _sign(
    issuer: str,
    subject: tuple[str, EllipticCurvePrivateKey],
    signer: EllipticCurvePrivateKey,
    *,
    names: tuple[str, str] | None = None,
    authority: bool = False,
    starts: timedelta = -DAY,
    ends: timedelta = 365 * DAY,
) -> x509.Certificate:
    now, (name, key) = datetime.now(UTC), subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(_called(name))
        .issuer_name(_called(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names is not None:
        kinds = [x509.DNSName(names[0]), x509.IPAddress(ip_address(names[1]))]
        builder = builder.add_extension(x509.SubjectAlternativeName(kinds), critical=False)
    return builder.sign(signer, hashes.SHA256())


@cache
def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
