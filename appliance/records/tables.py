"""The tables. A row's meaning is stated here once; who may change which row is stated in casework and audit."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, DateTime, Enum, ForeignKey, Index, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""When an accepted delivery is due again whose destination offers no proof."""


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware instant, kept as UTC; SQLite forgets the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a naive time; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read back as UTC."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class CaseState(StrEnum):
    """Where a case stands; the allowed moves are in casework/case.py."""

    RECEIVING = "receiving"  #: slices are arriving, or the quiet time is running
    INCOMPLETE = "incomplete"  #: a gap was seen; the missing slices are waited for
    QUEUED = "queued"  #: complete and matched to a protocol; waits for a worker
    SEGMENTING = "segmenting"  #: a worker holds the lease
    SENDING = "sending"  #: the result is durable and on its way to the destinations
    DELIVERED = "delivered"  #: every destination accepted the result
    COMMITTED = "committed"  #: every destination that can be asked has proved that it keeps the result
    REFUSED = "refused"  #: the input or the result failed a check; the reason says which
    FAILED = "failed"  #: parked after too many attempts or by an operator, who can retry it
    CANCELLED = "cancelled"  #: ended by an operator, who can take that back
    SUPERSEDED = "superseded"  #: a later revision of the same series took its place


class InstanceState(StrEnum):
    """What became of one received object."""

    KEPT = "kept"  #: belongs to a series
    EQUIVALENT = "equivalent"  #: the same image as a kept one in another transfer syntax; kept beside it
    CONFLICT = "conflict"  #: same SOP Instance UID as a kept one, other content; kept beside it
    QUARANTINED = "quarantined"  #: could not be used as an instance of any series


class CountSign(StrEnum):
    """What the PACS's own number of slices says about a series."""

    NOT_ASKED = "not_asked"  #: nobody is asked
    UNANSWERED = "unanswered"  #: the count is not confirmed: the PACS was asked and did not say
    SHORT = "short"  #: the PACS has more slices than are here
    CONFIRMED = "confirmed"  #: as many are here
    SURPLUS = "surplus"  #: more are here


class PartState(StrEnum):
    """How far one model's share of a case is."""

    WAITING = "waiting"  #: nobody is at it
    WORKING = "working"  #: a worker holds its lease
    DONE = "done"  #: what the model found is durable in the spool


class ResultKind(StrEnum):
    """What kind of object a result is."""

    RTSTRUCT = "rtstruct"  #: the structure set; without it a case has no result
    SEG = "seg"  #: the Segmentation of the same voxels, beside it

    @property
    def in_words(self) -> str:
        """What people call it."""
        return {ResultKind.RTSTRUCT: "structure set", ResultKind.SEG: "segmentation"}[self]


class DeliveryState(StrEnum):
    """How far one result has come with one destination."""

    PENDING = "pending"  #: to be sent at `next_try_at`
    ACCEPTED = "accepted"  #: C-STORE answered success
    COMMITTED = "committed"  #: proved to be kept; `Delivery.proof` says how
    REFUSED = "refused"  #: the destination will never take it


class Proof(StrEnum):
    """How it is known that a destination keeps a result."""

    COMMITMENT = "commitment"  #: its storage commitment report lists it
    SIGHTING = "sighting"  #: it was seen there by C-FIND


def _state_column(states: type[StrEnum]) -> Enum:
    return Enum(
        states,
        native_enum=False,
        length=16,
        values_callable=lambda e: [s.value for s in e],
        validate_strings=True,
    )


class Base(DeclarativeBase):
    """All tables."""


class Instance(Base):
    """One received DICOM object, by content."""

    __tablename__ = "instances"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    sop_instance_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    series_instance_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    transfer_syntax_uid: Mapped[str | None] = mapped_column(String(64))
    source_ae: Mapped[str] = mapped_column(String(16))
    state: Mapped[InstanceState] = mapped_column(_state_column(InstanceState))
    reason: Mapped[str | None] = mapped_column(String(40))
    sentence: Mapped[str | None] = mapped_column(Text)
    times_received: Mapped[int] = mapped_column(default=1)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  #: when its file was removed by retention


class Case(Base):
    """One revision of one CT series on its way."""

    __tablename__ = "cases"
    __table_args__ = (UniqueConstraint("series_instance_uid", "revision"), Index("ix_cases_state", "state"))

    id: Mapped[int] = mapped_column(primary_key=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int] = mapped_column(default=1)
    study_instance_uid: Mapped[str] = mapped_column(String(64))
    patient_id: Mapped[str] = mapped_column(String(64))
    accession_number: Mapped[str] = mapped_column(String(16))
    description: Mapped[str] = mapped_column(String(200))
    source_ae: Mapped[str] = mapped_column(String(16))
    state: Mapped[CaseState] = mapped_column(_state_column(CaseState))
    reason: Mapped[str | None] = mapped_column(String(40))
    sentence: Mapped[str | None] = mapped_column(Text)
    protocol: Mapped[str | None] = mapped_column(String(31))
    model: Mapped[str | None] = mapped_column(Text)  #: all models of the protocol, in its order
    slices: Mapped[int] = mapped_column(default=0)
    first_arrival_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_arrival_at: Mapped[datetime] = mapped_column(UtcDateTime)
    entered_state_at: Mapped[datetime] = mapped_column(UtcDateTime)
    repeated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  #: last time that known slices came again
    rung_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(default=0)  #: how often a worker was lost with it; a person sets it back
    leases: Mapped[int] = mapped_column(default=0)  #: how often a worker has taken it; never goes back (fencing)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    progress: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    forced_by: Mapped[str | None] = mapped_column(String(40))  #: who asks that its slices be taken as all there are
    forced_why: Mapped[str | None] = mapped_column(Text)
    input_digest: Mapped[str | None] = mapped_column(String(64))
    foreseen_protocol: Mapped[str | None] = mapped_column(String(31))
    """What its first slice is for; its settings hold while the series still receives."""
    count_sign: Mapped[CountSign] = mapped_column(_state_column(CountSign), default=CountSign.NOT_ASKED)
    count_wanted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  #: since when the PACS's count is wanted
    count_asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  #: when the PACS was last asked, to the end
    expected_slices: Mapped[int | None]  #: the PACS's count, when it last said one
    count_sentence: Mapped[str | None] = mapped_column(Text)  #: why there is no count

    instances: Mapped[list[Instance]] = relationship(secondary="case_instances", order_by=Instance.id)
    results: Mapped[list["Result"]] = relationship(order_by="Result.id", lazy="selectin", cascade="all, delete-orphan")
    deliveries: Mapped[list["Delivery"]] = relationship(back_populates="case", order_by="Delivery.id")

    def result(self, kind: ResultKind) -> "Result | None":
        """The result of this kind, once it is durable."""
        return next((result for result in self.results if result.kind is kind), None)

    @property
    def result_sop_instance_uid(self) -> str | None:
        """SOP Instance UID of the structure set, once it is durable."""
        structure_set = self.result(ResultKind.RTSTRUCT)
        return structure_set.sop_instance_uid if structure_set is not None else None


class CaseInstance(Base):
    """Which instances belong to which revision."""

    __tablename__ = "case_instances"

    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), primary_key=True)


class Part(Base):
    """One model's share of a case that several models draw; there are none where one model draws it alone."""

    __tablename__ = "parts"
    __table_args__ = (UniqueConstraint("case_id", "model"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"))
    model: Mapped[str] = mapped_column(String(64))
    state: Mapped[PartState] = mapped_column(_state_column(PartState))
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    file: Mapped[str] = mapped_column(String(120))  #: where its result lies once it is done, by input and model


class Result(Base):
    """One object that was made for a case; durable under results/ before its row is written."""

    __tablename__ = "results"
    __table_args__ = (UniqueConstraint("case_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"))
    kind: Mapped[ResultKind] = mapped_column(_state_column(ResultKind))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    file: Mapped[str] = mapped_column(String(120))
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  #: when its file was removed by retention


class Delivery(Base):
    """The outbox: one result for one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        Index("ix_deliveries_due", "state", "next_try_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"))
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id"))
    destination: Mapped[str] = mapped_column(String(64))
    state: Mapped[DeliveryState] = mapped_column(_state_column(DeliveryState))
    attempts: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sentence: Mapped[str | None] = mapped_column(Text)
    commitment_uid: Mapped[str | None] = mapped_column(String(64), unique=True)
    last_tried_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_answer: Mapped[str | None] = mapped_column(Text)  #: what the destination answered then, or that nobody did
    unseen: Mapped[int] = mapped_column(default=0)  #: how often it was looked for in vain since it was accepted
    proof: Mapped[Proof | None] = mapped_column(_state_column(Proof))
    proved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    case: Mapped[Case] = relationship(back_populates="deliveries")
    result: Mapped[Result] = relationship(lazy="selectin")


class AuditEvent(Base):
    """One thing that happened; rows are only ever added (audit/trail.py), and triggers refuse anything else.

    The id is its number in the chain, from 1 without a gap (records/chain.py).
    """

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    case_id: Mapped[int | None] = mapped_column(ForeignKey("cases.id"), index=True)
    event: Mapped[str] = mapped_column(String(40))
    actor: Mapped[str] = mapped_column(String(40))
    fields: Mapped[dict[str, Any]] = mapped_column(JSON)
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class AuditHead(Base):
    """The end of the chain: one row, whose lock is every transaction's last."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    hash: Mapped[str] = mapped_column(String(64))


class SignedHead(Base):
    """The end of the chain as it was signed at some moment; only ever added, as the events are."""

    __tablename__ = "audit_signed_heads"

    id: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[str] = mapped_column(String(10))  #: in UTC, YYYY-MM-DD
    seq: Mapped[int]
    hash: Mapped[str] = mapped_column(String(64))
    events: Mapped[int]
    station: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(64))  #: SHA-256 of the public key
    signature: Mapped[str] = mapped_column(String(128))


class AuditCursor(Base):
    """How far the trail was handed to somebody outside, such as the collector of audit messages."""

    __tablename__ = "audit_cursors"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    seq: Mapped[int]
