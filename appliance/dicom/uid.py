"""Unique identifiers: what a valid one is, and how the appliance derives its own (PS3.5 §9, §B.2)."""

import hashlib
import re

MAX_UID_LENGTH = 64

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)


def is_valid_uid(text: str) -> bool:
    """Tell whether `text` is a UID: digits and dots, no leading zeros, at most 64 characters."""
    return len(text) <= MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def derive_uid(*parts: str) -> str:
    """Derive one UID from texts: the same texts always give the same UID, other texts another.

    The UID is "2.25." and a 128-bit number (PS3.5 §B.2), at most 44 characters. Each part goes into the digest
    with its length in front, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return f"2.25.{int.from_bytes(digest.digest()[:16], 'big')}"
