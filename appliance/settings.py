"""One frozen `Settings`, read once from a folder of TOML files; a key that means nothing stops the start.

    appliance.toml       this box: where it keeps things, how it listens, how patient it is
    peers.toml           the DICOM nodes that it talks to
    protocols/*.toml     which series, which model, which structures, which destinations
    rois.toml            TG-263 names with colour, type and code

Nothing outside this file reads configuration or the environment.
"""

import difflib
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from appliance.dicom.roi import RoiTemplate
from appliance.errors import SettingsError

_Model = TypeVar("_Model", bound=BaseModel)
AeTitle = Annotated[
    str,
    Field(
        min_length=1,
        max_length=16,
        pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e])?$",
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]  # a year: neither infinity nor what no calendar holds


class _Section(BaseModel):
    """A table of a configuration file: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Box(_Section):
    """`[appliance]`: this box."""

    station_name: Annotated[str, Field(min_length=1, max_length=16)] = "DELINEATE"
    data_dir: Path = Path("../var")  #: spool, embedded database and broker; relative to the configuration folder
    models_dir: Path | None = None  #: model packages; the bundled ones when absent


class DatabaseSettings(_Section):
    """`[database]`: where the rows are."""

    url: str | None = None  #: SQLAlchemy URL; an SQLite file in `data_dir` when absent


class BrokerSettings(_Section):
    """`[broker]`: who rings the worker."""

    url: str | None = None  #: Redis or Valkey URL; an embedded Valkey when absent
    port: Port = 16379  #: of the embedded Valkey, on loopback


class IntakeSettings(_Section):
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


class WorkerSettings(_Section):
    """`[worker]`: how cases are segmented."""

    threads: Annotated[int, Field(ge=0)] = 0  #: CPU threads of the network; 0 uses all cores
    lease_s: Seconds = 60.0  #: a worker that shows no progress for this long has lost its case
    attempts: Annotated[int, Field(ge=1)] = 3  #: a case that failed this often is parked


class DeliverySettings(_Section):
    """`[delivery]`: how results are sent."""

    retry_first_s: Seconds = 5.0
    retry_cap_s: Seconds = 900.0
    commitment_wait_s: Seconds = 120.0  #: how long a destination may take to commit before it is asked again
    network_timeout_s: Seconds = 30.0


class Peer(_Section):
    """`[NAME]` in peers.toml: a DICOM node."""

    ae_title: AeTitle
    host: str
    port: Port
    storage_commitment: bool = False  #: ask it to commit to what it accepted (PS3.4 Annex J)


class Match(_Section):
    """`[match]` of a protocol: every given list must fit; `*` and `?` are wildcards, case is ignored."""

    body_part: tuple[str, ...] = ()
    study_description: tuple[str, ...] = ()
    series_description: tuple[str, ...] = ()
    calling_ae: tuple[str, ...] = ()

    def misfit(self, attributes: dict[str, str]) -> str | None:
        """The first rule that does not fit, in words; None when all fit."""
        for name in type(self).model_fields:
            patterns = getattr(self, name)
            value = attributes.get(name, "")
            if patterns and not any(fnmatchcase(value.upper(), pattern.upper()) for pattern in patterns):
                return f"{name}={''.join(filter(str.isprintable, value)) or '(empty)'}"
        return None


class Protocol(_Section):
    """A file in protocols/: what to do with which series."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    title: str
    model: str
    rois: Annotated[tuple[str, ...], Field(min_length=1)]
    destinations: Annotated[tuple[str, ...], Field(min_length=1)]
    label: Annotated[str, Field(pattern=r"^[ -\[\]-~]{1,16}$")]  #: Structure Set Label: SH, plain ASCII
    holes: Literal["keyhole", "nested"] = "keyhole"
    """How a hole is written: joined to its boundary, as every reader takes it, or as a contour of its own."""
    priority: int = 0  #: among protocols that fit, the highest wins
    match: Match = Match()

    @model_validator(mode="after")
    def _names_occur_once(self) -> Self:
        for names in (self.rois, self.destinations):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{', '.join(twice)} is named twice")
        return self


class BoxSettings(_Section):
    """appliance.toml: its tables."""

    appliance: Box = Box()
    database: DatabaseSettings = DatabaseSettings()
    broker: BrokerSettings = BrokerSettings()
    intake: IntakeSettings = IntakeSettings()
    worker: WorkerSettings = WorkerSettings()
    delivery: DeliverySettings = DeliverySettings()


class Settings(BoxSettings):
    """Everything configurable, checked as a whole."""

    peers: dict[str, Peer] = Field(default_factory=dict)
    protocols: dict[str, Protocol] = Field(default_factory=dict)
    rois: dict[str, RoiTemplate] = Field(default_factory=dict)
    folder: Path

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        for protocol in self.protocols.values():
            for kind, names, known in (
                ("destination", protocol.destinations, self.peers),
                ("ROI", protocol.rois, self.rois),
            ):
                for name in names:
                    if name not in known:
                        message = f"protocol {protocol.name}: {kind} {name!r} is not defined{_suggest(name, known)}"
                        raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _roi_numbers_differ(self) -> Self:
        owners: dict[int, str] = {}
        for roi in self.rois.values():
            owner = owners.setdefault(roi.number, roi.name)
            if owner != roi.name:
                raise ValueError(f"rois.toml: {owner} and {roi.name} have the same number {roi.number}")
        return self

    @property
    def data_dir(self) -> Path:
        """Absolute folder of the spool and of the embedded parts."""
        return (self.folder / self.appliance.data_dir).resolve()

    @property
    def models_dir(self) -> Path:
        """Absolute folder of the model packages."""
        if self.appliance.models_dir is None:
            return Path(__file__).parent.parent / "models" / "packages"
        return (self.folder / self.appliance.models_dir).resolve()

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database.url or f"sqlite:///{self.data_dir / 'delineate.sqlite'}"

    @property
    def broker_url(self) -> str:
        """Redis URL of the broker."""
        return self.broker.url or f"redis://127.0.0.1:{self.broker.port}/0"


def load_settings(folder: Path) -> Settings:
    """Read and check the configuration in `folder`.

    Raises:
        SettingsError: a file is missing or malformed, a key is unknown, a value does not fit, or a protocol
            names something that is not defined; the message names the file and the key.
    """
    folder = folder.resolve()
    if not (folder / "appliance.toml").is_file():
        raise SettingsError(f"{folder / 'appliance.toml'} does not exist; copy configs/ and point --config at it")
    tables = _read(folder / "appliance.toml")
    reserved = {"peers", "protocols", "rois", "folder"} & tables.keys()
    if reserved:
        raise SettingsError(f"appliance.toml: {min(reserved)} has a file of its own; move it there")
    _check("appliance.toml", BoxSettings, tables)
    peers = _read(folder / "peers.toml") if (folder / "peers.toml").is_file() else {}
    for name, table in peers.items():
        _check(f"peers.toml: [{name}]", Peer, table)
    rois = _read(folder / "rois.toml") if (folder / "rois.toml").is_file() else {}
    templates = {
        name: _check(f"rois.toml: [{name}]", RoiTemplate, {"name": name, **table}) for name, table in rois.items()
    }
    protocols: dict[str, BaseModel] = {}
    for path in sorted((folder / "protocols").glob("*.toml")):
        protocol = _check(f"protocols/{path.name}", Protocol, _read(path))
        if protocol.name in protocols:
            raise SettingsError(f"protocols/{path.name}: the name {protocol.name!r} is taken by another protocol")
        protocols[protocol.name] = protocol
    return _check(
        folder.name,
        Settings,
        {**tables, "peers": peers, "rois": templates, "protocols": protocols, "folder": folder},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _check(where: str, model: type[_Model], table: object) -> _Model:
    try:
        return model.model_validate(table)
    except ValidationError as invalid:
        # an unknown key comes first: where it is a misspelt one, the missing key is only its shadow
        first = min(invalid.errors(), key=lambda error: error["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            message = f"{key} is not a setting{_suggest(str(first['loc'][-1]), _keys_at(model, first['loc'][:-1]))}"
        elif key:
            message = f"{key}: {first['msg']} (found {first['input']!r})"
        else:
            message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{where}: {message}") from invalid


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
