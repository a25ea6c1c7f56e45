"""Who may come in: decided from what a caller claims and from where it calls, before any of its objects is taken.

PS3.8 Table 9-21 has the results, sources and reasons of a rejection.
"""

from dataclasses import dataclass

from appliance.settings import Settings

PERMANENT, TRANSIENT = 1, 2
"""Result of a rejection."""

BY_USER, BY_PRESENTATION = 1, 3
"""Source of a rejection."""

CALLING_AE_UNKNOWN, CALLED_AE_UNKNOWN = 3, 7
"""Reasons, of source service user."""

TEMPORARY_CONGESTION, LOCAL_LIMIT_EXCEEDED = 1, 2
"""Reasons, of source service provider (presentation)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caller says of itself in its A-ASSOCIATE-RQ, and what can be seen of it.

    Attributes:
        calling_ae: its title.
        called_ae: whom it calls.
        address: where it calls from.
        certificate: its certificate, DER, when it called over TLS and showed one.
    """

    calling_ae: str
    called_ae: str
    address: str
    certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is turned away: the codes on the wire, and a sentence for the trail."""

    result: int
    source: int
    reason: int
    sentence: str


class Door:
    """Decides whom the listener lets in."""

    def __init__(self, settings: Settings) -> None:
        self._intake = settings.intake
        self._known = {peer.ae_title for peer in settings.peers.values()}

    def admit(self, claim: Claim) -> Rejection | None:
        """None when the caller may come in, or why not."""
        if claim.called_ae != self._intake.ae_title:
            sentence = f"it called {claim.called_ae!r}, and this is {self._intake.ae_title!r}; correct it at the sender"
            return Rejection(PERMANENT, BY_USER, CALLED_AE_UNKNOWN, sentence)
        if self._intake.known_peers_only and claim.calling_ae not in self._known:
            sentence = f"the AE title {claim.calling_ae!r} is not in peers.toml; add it there if this system may send"
            return Rejection(PERMANENT, BY_USER, CALLING_AE_UNKNOWN, sentence)
        return None
