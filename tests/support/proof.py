"""What the tests of faults have shown, kept so that docs/evidence.md can be written from it."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Tally:
    """How often a promise was tried and how often it failed; a test that passes has no failures."""

    row: str  #: F1 to F30, or the name of a hazard
    promise: str
    test: str
    tried: int = 0
    failed: int = 0
    figures: dict[str, str] = field(
        default_factory=dict
    )  #: what else was seen, in words, such as "lost by the control"

    def count(self, *, held: bool) -> None:
        """Count one trial."""
        self.tried += 1
        self.failed += not held

    def counted(self, tried: int, failed: int = 0) -> None:
        """Count many trials at once."""
        self.tried += tried
        self.failed += failed

    def as_row(self) -> dict[str, Any]:
        """For the file that evidence is written from."""
        return asdict(self)
