"""Whether the certificates of this box may be used today, and when they end."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from appliance.errors import SettingsError
from appliance.settings.tls import TlsFiles, first_certificate, listening_context


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate may be used."""

    path: Path
    subject: str
    begins: datetime
    ends: datetime

    def why_not(self, now: datetime) -> str | None:
        """Why it may not be used at this time; None when it may."""
        if now < self.begins:
            return f"{self.path} ({self.subject}) is valid only from {self.begins:%Y-%m-%d %H:%M} UTC; check the clock"
        if now >= self.ends:
            return f"{self.path} ({self.subject}) ended on {self.ends:%Y-%m-%d %H:%M} UTC; put a new one in its place"
        return None


def validities(files: TlsFiles) -> list[Validity]:
    """Our own certificate first, then every authority.

    Raises:
        SettingsError: a file cannot be read.
    """
    own = _read(files.certificate, first_certificate(files.certificate).encode())[0]
    try:
        authorities = files.authorities.read_bytes()
    except OSError as error:
        raise SettingsError(f"{files.authorities} cannot be read ({error.strerror}); correct [tls]") from error
    return [own, *_read(files.authorities, authorities)]


def check_files(files: TlsFiles, now: datetime) -> None:
    """See that the files can be used, before anything is started with them.

    Raises:
        SettingsError: a file is missing or unreadable, the key is of another certificate, our certificate is not
            valid today, or none of the authorities is.
    """
    listening_context(files)
    own, *authorities = validities(files)
    why_not = own.why_not(now)
    if why_not is not None:
        raise SettingsError(why_not)
    problems = [authority.why_not(now) for authority in authorities]
    if None not in problems:
        raise SettingsError(f"no authority can be trusted today: {problems[0]}")


def _read(path: Path, text: bytes) -> list[Validity]:
    try:
        read = x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise SettingsError(f"{path} holds no certificates in PEM that can be read") from error
    return [
        Validity(path, one.subject.rfc4514_string(), one.not_valid_before_utc, one.not_valid_after_utc) for one in read
    ]
