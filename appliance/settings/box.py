"""appliance.toml and peers.toml: this box, and the DICOM nodes that it talks to."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

AeTitle = Annotated[
    str,
    Field(
        min_length=1,
        max_length=16,
        pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e])?$",
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")]
EngineName = Literal["onnxruntime", "openvino", "torch", "tensorrt"]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]  # a year: neither infinity nor what no calendar holds


def _network(text: object) -> object:
    try:
        return ip_network(str(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is no address or network; write 10.1.0.5 or 10.1.0.0/16") from error


def _certificate_name(text: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text):
        return text
    raise ValueError(f"{text!r} is neither a SHA-256 fingerprint (64 digits) nor a name such as pacs.hospital.example")


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
CertificateName = Annotated[str, AfterValidator(_certificate_name)]


class Section(BaseModel):
    """A table of a configuration file: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Box(Section):
    """`[appliance]`: this box."""

    station_name: Annotated[str, Field(min_length=1, max_length=16)] = "DELINEATE"
    data_dir: Path = Path("../var")  #: spool, embedded database and broker; relative to the configuration folder
    models_dir: Path | None = None  #: model packages; the bundled ones when absent


class DatabaseSettings(Section):
    """`[database]`: where the rows are."""

    url: str | None = None  #: SQLAlchemy URL; an SQLite file in `data_dir` when absent


class BrokerSettings(Section):
    """`[broker]`: who rings the worker."""

    url: str | None = None  #: Redis or Valkey URL; an embedded Valkey when absent
    port: Port = 16379  #: of the embedded Valkey, on loopback


class TlsSettings(Section):
    """`[tls]`: PEM files, relative to the configuration folder; all three or none."""

    certificate: Path | None = None  #: this box's own, followed by those between it and its authority
    key: Path | None = None  #: of this certificate, without a passphrase, readable by the appliance alone
    authorities: Path | None = None  #: certificates of the authorities whose word on peers is taken


class IntakeSettings(Section):
    """`[intake]`: how the appliance receives."""

    ae_title: AeTitle = "DELINEATE"
    host: str = "127.0.0.1"
    port: Port = 11112
    tls: Literal["off", "only", "both"] = "off"  #: plain on `port`, TLS on `tls_port`, or both
    tls_port: Port = 2762
    max_associations: Annotated[int, Field(ge=1, le=200)] = 20
    max_associations_per_peer: Annotated[int, Field(ge=1, le=200)] = 10  #: of one AE title, and from one address
    network_timeout_s: Seconds = 30.0  #: a peer that says nothing for this long is let go
    max_object_mb: Annotated[int, Field(ge=1, le=4096)] = 64  #: a CT image is smaller than one
    slots: Annotated[int, Field(ge=0, le=4096)] = 512
    """Files made in advance so that keeping a slice takes one flush: a series or two; 5 % of the free space at most."""
    slot_kb: Annotated[int, Field(ge=64, le=65536, multiple_of=4)] = 544  #: room for a slice of 512 x 512
    known_peers_only: bool = True  #: refuse associations from AE titles that peers.toml does not list
    series_quiet_s: Seconds = 30.0  #: a series without a new slice for this long is examined
    incomplete_wait_s: Seconds = 600.0  #: a series with a gap waits this long for the missing slices
    free_space_reserve_mb: Annotated[int, Field(ge=0)] = 1024
    """With less free space, objects are answered 0xA700 (out of resources)."""


class StepLimits(Section):
    """`[worker.step_limits_s]`: seconds that a step of a case may go without getting any further; then it is ended."""

    engines: Seconds = 3600.0  #: loading models, and examining the engines of this box for a new one
    read: Seconds = 600.0  #: one slice's header
    load: Seconds = 600.0  #: one slice's pixels
    segment: Seconds = 900.0  #: one run of a network
    structures: Seconds = 1800.0  #: making all structures of what the networks found
    contours: Seconds = 1800.0  #: contouring one structure
    write: Seconds = 1800.0  #: writing and checking the results


class WorkerSettings(Section):
    """`[worker]`: how cases are segmented."""

    devices: Annotated[tuple[Device, ...], Field(min_length=1)] = ("auto",)
    """Where networks run, a worker each: "auto", "cpu", "cuda" or one GPU such as "cuda:1"."""
    threads: Annotated[int, Field(ge=0)] = 0  #: CPU threads of the network; 0 uses all cores
    engines: tuple[EngineName, ...] = ()
    """What may run the networks, the preferred first; none named: whatever is fastest and gives the same answers."""
    lease_s: Seconds = 60.0  #: a worker that shows no progress for this long has lost its case
    attempts: Annotated[int, Field(ge=1)] = 3  #: a case that failed this often is parked
    step_limits_s: StepLimits = StepLimits()
    memory_mb: Annotated[int, Field(ge=256)] | None = None
    """A case that takes more memory than this is ended; when absent: more than there was when it was begun."""
    memory_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """How much of the free memory one worker plans with; when absent, workers on one box have equal shares."""


class DeliverySettings(Section):
    """`[delivery]`: how results are sent, proved and looked for again."""

    retry_first_s: Seconds = 5.0
    retry_cap_s: Seconds = 900.0
    alarm_attempts: Annotated[int, Field(ge=1)] = 12
    """After so many attempts an alarm is written, once; the attempts go on at the cap."""
    round_limit: Annotated[int, Field(ge=1)] = 20  #: results that one destination is sent in a row
    commitment_wait_s: Seconds = 120.0  #: how long a destination may take to commit before it is asked again
    sighting_wait_s: Seconds = 10.0  #: how long after sending a result is looked for where C-FIND is the proof
    network_timeout_s: Seconds = 30.0
    reconcile_hour: Annotated[int, Field(ge=0, le=23)] = 3  #: local: when the PACS is compared with the rows
    reconcile_days: Annotated[int, Field(ge=1, le=365)] = 7  #: how far back


Days = Annotated[int, Field(ge=0, le=36_500)]


class RetentionSettings(Section):
    """`[retention]`: how long files stay, in days; 0 keeps them for ever. Rows and events always stay."""

    images_days: Days = 30  #: CT images, after every destination has proved that it keeps their result
    results_days: Days = 365  #: results, after the same proof
    refused_days: Days = 90  #: CT images of a series that was refused, after the refusal
    quarantine_days: Days = 90  #: objects that were set aside, after they came
    hour: Annotated[int, Field(ge=0, le=23)] = 4  #: local: when files are removed


class Peer(Section):
    """`[NAME]` in peers.toml: a DICOM node."""

    ae_title: AeTitle
    host: str
    port: Port
    tls: bool = False  #: spoken to over TLS alone: called so, and let in only so
    certificate: CertificateName | None = None
    """SHA-256 fingerprint of its certificate, or a name in it; when absent and it is called, `host` must be in it."""
    addresses: tuple[Network, ...] = ()  #: where it may call from; from anywhere when empty
    storage_commitment: bool = False  #: ask it to commit to what it accepted (PS3.4 Annex J)
    query: bool = False  #: it answers C-FIND (PS3.4 Annex C, Study Root), so it is asked, and can be fetched from
    retrieve: Literal["get", "move"] = "get"
    """How it is fetched from: C-GET, or C-MOVE to ourselves, for which it must know our title, address and port."""


class QuerySettings(Section):
    """`[query]`: how other nodes are asked and fetched from."""

    timeout_s: Seconds = 15.0  #: C-FIND: a node that says nothing for this long, or is not done after four times that
    retrieve_timeout_s: Seconds = 300.0  #: C-GET and C-MOVE: a node that says nothing for this long


class AuditSettings(Section):
    """`[audit]`: who is told what happened (docs/audit.md)."""

    collector: Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:\s]+):[0-9]{1,5}$")] | None = None
    """host:port of a syslog collector of DICOM audit messages; nobody is told when absent."""
    collector_tls: bool = True  #: RFC 5425 with the files of [tls]; off: plain TCP, which anybody on the way can read
    collector_certificate: CertificateName | None = None
    """SHA-256 fingerprint of its certificate, or a name in it; when absent, its host must be in it."""
    collector_timeout_s: Seconds = 30.0  #: how long it may take for what it is sent at once


class BoxSettings(Section):
    """appliance.toml: its tables."""

    appliance: Box = Box()
    database: DatabaseSettings = DatabaseSettings()
    broker: BrokerSettings = BrokerSettings()
    tls: TlsSettings = TlsSettings()
    intake: IntakeSettings = IntakeSettings()
    worker: WorkerSettings = WorkerSettings()
    delivery: DeliverySettings = DeliverySettings()
    audit: AuditSettings = AuditSettings()
    retention: RetentionSettings = RetentionSettings()
    query: QuerySettings = QuerySettings()
