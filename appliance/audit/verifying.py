"""Proving the trail: every event in order, from the first to the last, against its hash and the signed heads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select

from appliance.audit.signing import Head
from appliance.records import Database, Transaction
from appliance.records.chain import START, ChainLink, link_of, links
from appliance.records.tables import AuditEvent, AuditHead

_AT_ONCE = 1000
"""Events in memory at a time, and how far an event is looked for beside its place."""


class Fault(StrEnum):
    """What was done to the trail."""

    CHANGED = "changed"
    MISSING = "missing"
    INSERTED = "inserted"
    REORDERED = "reordered"
    CUT_OFF = "cut off"
    REWRITTEN = "rewritten"
    HEAD_FORGED = "head forged"


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where the trail is not what was written.

    Attributes:
        seq: number of the first event that is not as it was, or that is missing.
        fault: what was done there.
        words: the same for people.
    """

    seq: int
    fault: Fault
    words: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk along the chain found.

    Attributes:
        events: how many were walked past, up to the break if there is one.
        heads: how many signed heads were held against them.
        broken: the first break.
    """

    events: int
    heads: int
    broken: Break | None = None


class _Broken(Exception):
    """Where the walk ended."""

    def __init__(self, seq: int, fault: Fault, words: str) -> None:
        super().__init__(words)
        self.found = Break(seq, fault, words)


def verify(database: Database, heads: Sequence[Head], keys: Mapping[str, Ed25519PublicKey]) -> Verdict:
    """Walk along the whole chain, a thousand events at a time.

    Args:
        database: with the trail.
        heads: signed heads, in order.
        keys: public keys that may have signed, by fingerprint.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    walk = _Walk(heads)
    try:
        for head in heads:
            _check_signature(head, keys)
        with database.reading() as tx:
            walk.along(tx)
    except _Broken as broken:
        return Verdict(walk.seq, len(heads), broken.found)
    return Verdict(walk.seq, len(heads))


def _check_signature(head: Head, keys: Mapping[str, Ed25519PublicKey]) -> None:
    key = keys.get(head.key)
    if key is None:
        words = f"the signed head of {head.day} names the key {head.key:.12}…, which is none of yours"
    elif not head.is_signed_by(key):
        words = f"the signed head of {head.day} is not what was signed"
    else:
        return
    raise _Broken(head.seq, Fault.HEAD_FORGED, words)


class _Walk:
    """One walk along the chain; `seq` and `hash` are of the last event that was in order."""

    def __init__(self, heads: Sequence[Head]) -> None:
        self.seq = 0
        self.hash = START
        self._vouched = 0  # up to here a signed head vouches for what was seen
        self._heads: dict[int, list[Head]] = {}
        for head in heads:
            self._heads.setdefault(head.seq, []).append(head)

    def along(self, tx: Transaction) -> None:
        """Every event; raises at the first that is not in order."""
        before = tx.execute(select(AuditHead.seq, AuditHead.hash)).first()
        if before is None:
            raise _Broken(1, Fault.CUT_OFF, "where the chain ends is not written down any more")
        self._hold_against_heads()
        rows = tx.execute(links().execution_options(yield_per=_AT_ONCE))
        for link, following in _with_next(link_of(row) for row in rows):
            self._take(tx, link, following)
            if link.seq == before.seq and link.hash != before.hash:
                raise _Broken(link.seq, Fault.CHANGED, f"event {link.seq} was changed, and its hash with it")
        after = tx.execute(select(AuditHead.seq)).scalar()  # events of others may have come meanwhile
        ends = [before.seq, *self._heads]
        if max(ends) > self.seq:
            lost = max(ends) - self.seq
            first = self.seq + 1
            words = f"the trail is cut off: from event {first} on, at least {_events(lost)} that were there are gone"
            raise _Broken(first, Fault.CUT_OFF, words)
        if after is None or after < self.seq:
            first = (after or 0) + 1
            raise _Broken(first, Fault.INSERTED, f"from event {first} on, events were added beside the appliance")

    def _take(self, tx: Transaction, link: ChainLink, following: ChainLink | None) -> None:
        expected = self.seq + 1
        if link.seq != expected:
            self._raise_wrong_number(link, expected)
        if link.previous != self.hash or link.computed_hash() != link.hash:
            raise self._diagnose(tx, link, following)
        self.seq, self.hash = link.seq, link.hash
        self._hold_against_heads()

    def _raise_wrong_number(self, link: ChainLink, expected: int) -> None:
        if not isinstance(link.seq, int) or link.seq < expected:
            raise _Broken(expected, Fault.INSERTED, f"before event {expected}, an event was inserted that has no place")
        gone = link.seq - expected
        raise _Broken(expected, Fault.MISSING, f"event {expected} is missing ({_events(gone)} in all at this place)")

    def _hold_against_heads(self) -> None:
        for head in self._heads.get(self.seq, ()):
            if head.hash != self.hash or head.events != self.seq:
                first = self._vouched + 1
                words = (
                    f"the trail was rewritten: its first {_events(self.seq)} agree with one another, but not with the "
                    f"head that was signed on {head.day}; from event {first} on, nothing is proved"
                )
                raise _Broken(first, Fault.REWRITTEN, words)
            self._vouched = self.seq

    def _diagnose(self, tx: Transaction, link: ChainLink, following: ChainLink | None) -> _Broken:
        """What was done at the first event that does not fit."""
        belongs = _original_place(link)
        # where the event went that was here
        elsewhere = select(AuditEvent.id).where(AuditEvent.previous == self.hash, AuditEvent.id != link.seq)
        went_to = tx.scalar(elsewhere.limit(1))
        if belongs is not None:
            return self._displaced(tx, link, belongs, went_to)
        if went_to is None:
            return _Broken(link.seq, Fault.CHANGED, f"event {link.seq} was changed")
        if following is not None and went_to == following.seq:
            return _Broken(link.seq, Fault.INSERTED, f"event {link.seq} was inserted")
        return _reordered(link.seq, went_to)

    def _displaced(self, tx: Transaction, link: ChainLink, belongs: int, went_to: int | None) -> _Broken:
        """What was done when an event is as it was and stands where it does not belong, or follows what it did not."""
        place = link.seq
        if belongs == place:  # so what it follows was replaced, and the hash of that computed anew
            at = max(place - 1, 1)
            return _Broken(at, Fault.CHANGED, f"event {at} was changed, and its hash with it")
        if self._stands_twice(tx, link):
            return _Broken(place, Fault.INSERTED, f"event {place} was inserted, a copy of event {belongs}")
        if belongs < place:
            words = f"from event {belongs} on, {_events(place - belongs)} were inserted"
            return _Broken(belongs, Fault.INSERTED, words)
        if went_to is not None:
            return _reordered(place, went_to)
        words = f"event {place} is missing, and those after it were given other numbers"
        return _Broken(place, Fault.MISSING, words)

    def _stands_twice(self, tx: Transaction, link: ChainLink) -> bool:
        same = select(AuditEvent.id).where(AuditEvent.hash == link.hash, AuditEvent.id != link.seq)
        return tx.scalar(same.limit(1)) is not None


def _reordered(place: int, went_to: int) -> _Broken:
    words = f"the events were reordered: what was event {place} stands at {went_to} now"
    return _Broken(place, Fault.REORDERED, words)


def _original_place(link: ChainLink) -> int | None:
    """Where an event stood when its hash was made, looked for around where it stands; None when it was changed."""
    near = sorted(range(max(1, link.seq - _AT_ONCE), link.seq + _AT_ONCE), key=lambda place: abs(place - link.seq))
    return next((place for place in near if link.computed_hash(seq=place) == link.hash), None)


def _with_next(links_in_order: Iterator[ChainLink]) -> Iterator[tuple[ChainLink, ChainLink | None]]:
    """Each with the one after it."""
    link = next(links_in_order, None)
    while link is not None:
        following = next(links_in_order, None)
        yield link, following
        link = following


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"
