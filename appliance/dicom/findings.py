"""What a check of a structure set finds: how grave it is, which rule it breaks, and one sentence for people."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How grave a finding is."""

    ERROR = "error"  #: it may not be used before this is corrected
    WARNING = "warning"  #: somebody has to look at it
    NOTE = "note"  #: worth knowing


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Attributes:
        severity: how grave it is.
        rule: stable code of the rule.
        sentence: what is wrong, where and what to do; without the patient's name.
        roi: name of the structure that it is about; empty where it is about the whole file.
    """

    severity: Severity
    rule: str
    sentence: str
    roi: str = ""


def error(rule: str, sentence: str, roi: str = "") -> Finding:
    """Return a finding that must be corrected."""
    return Finding(Severity.ERROR, rule, sentence, roi)


def warning(rule: str, sentence: str, roi: str = "") -> Finding:
    """Return a finding that somebody has to look at."""
    return Finding(Severity.WARNING, rule, sentence, roi)


def note(rule: str, sentence: str, roi: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(Severity.NOTE, rule, sentence, roi)


def amount(count: int, thing: str) -> str:
    """Count things in words: "1 slice", "3 slices"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
