"""appliance.toml and peers.toml: this box, and the DICOM nodes that it talks to."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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


class IntakeSettings(Section):
    """`[intake]`: how the appliance receives."""

    ae_title: AeTitle = "DELINEATE"
    host: str = "127.0.0.1"
    port: Port = 11112
    max_associations: Annotated[int, Field(ge=1, le=200)] = 20
    network_timeout_s: Seconds = 30.0  #: a peer that says nothing for this long is let go
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
    """`[delivery]`: how results are sent."""

    retry_first_s: Seconds = 5.0
    retry_cap_s: Seconds = 900.0
    commitment_wait_s: Seconds = 120.0  #: how long a destination may take to commit before it is asked again
    network_timeout_s: Seconds = 30.0


class Peer(Section):
    """`[NAME]` in peers.toml: a DICOM node."""

    ae_title: AeTitle
    host: str
    port: Port
    storage_commitment: bool = False  #: ask it to commit to what it accepted (PS3.4 Annex J)


class BoxSettings(Section):
    """appliance.toml: its tables."""

    appliance: Box = Box()
    database: DatabaseSettings = DatabaseSettings()
    broker: BrokerSettings = BrokerSettings()
    intake: IntakeSettings = IntakeSettings()
    worker: WorkerSettings = WorkerSettings()
    delivery: DeliverySettings = DeliverySettings()
