"""Who may come in: decided from what a caller claims and what can be seen of it, before any of its objects is taken.

A title is only a claim. In peers.toml it is bound to the addresses that it may call from and to its certificate
(docs/adr/0026). PS3.8 Table 9-21 has the results, sources and reasons of a rejection.
"""

from collections import defaultdict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from appliance.settings import Peer, Settings
from appliance.settings.tls import ShownCertificate

PERMANENT, TRANSIENT = 1, 2
"""Result of a rejection."""

BY_USER, BY_PRESENTATION = 1, 3
"""Source of a rejection."""

CALLING_AE_UNKNOWN, CALLED_AE_UNKNOWN = 3, 7
"""Reasons, of source service user."""

TEMPORARY_CONGESTION, LOCAL_LIMIT_EXCEEDED = 1, 2
"""Reasons, of source service provider (presentation)."""


_LONGEST_NAMES = 200
"""Characters that a sentence gives to the names in a certificate, of which there may be a thousand."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caller says of itself in its A-ASSOCIATE-RQ, and what can be seen of it.

    Attributes:
        calling_ae: its title.
        called_ae: whom it calls.
        address: where it calls from.
        certificate: its certificate, when it called over TLS; our authorities have signed it.
    """

    calling_ae: str
    called_ae: str
    address: str
    certificate: ShownCertificate | None = None


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
        self._own = settings.tls_files.fingerprint if settings.tls_files is not None else None
        self._known: defaultdict[str, list[Peer]] = defaultdict(list)
        for peer in settings.peers.values():
            self._known[peer.ae_title].append(peer)

    def admit(self, claim: Claim) -> Rejection | None:
        """None when the caller may come in, or why not."""
        if claim.called_ae != self._intake.ae_title:
            sentence = f"it called {claim.called_ae!r}, and this is {self._intake.ae_title!r}; correct it at the sender"
            return Rejection(PERMANENT, BY_USER, CALLED_AE_UNKNOWN, sentence)
        if self._is_this_box(claim):
            return None
        entries = self._known.get(claim.calling_ae, [])
        objections = [_objection(peer, claim) for peer in entries]
        if None in objections or not (entries or self._intake.known_peers_only):
            return None
        sentence = f"the AE title {claim.calling_ae!r} is not in peers.toml; add it there if this system may send"
        return Rejection(PERMANENT, BY_USER, CALLING_AE_UNKNOWN, next(filter(None, objections), sentence))

    def _is_this_box(self, claim: Claim) -> bool:
        """Whether we ourselves ask whether we are well: doctor and the health checks of containers."""
        if claim.calling_ae != self._intake.ae_title:
            return False
        if claim.certificate is not None:
            return claim.certificate.sha256 == self._own
        address = _address(claim.address)
        return address is not None and (address.is_loopback or str(address) == self._intake.host)


def _objection(peer: Peer, claim: Claim) -> str | None:
    """Why this caller is not that peer."""
    title, shown = f"the AE title {claim.calling_ae!r}", claim.certificate
    if peer.tls and shown is None:
        return f"{title} calls over TLS alone, and this caller did not; turn TLS on at the sender"
    if shown is not None and peer.certificate is not None and not shown.is_called(peer.certificate):
        names = ", ".join(sorted(shown.names))[:_LONGEST_NAMES] or "no name"
        return f"{title} has another certificate in peers.toml than the one shown ({shown.sha256[:16]}…, {names})"
    address = _address(claim.address)
    if peer.addresses and (address is None or not any(address in network for network in peer.addresses)):
        return f"{title} does not call from {claim.address}; add it to its addresses in peers.toml if it may"
    return None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, without the zone of a link and as IPv4 where it is IPv4 in the form of IPv6."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
