"""The whole configuration as one frozen `Settings`, and how it is read and checked.

A file, table or key that means nothing stops the start, in a sentence that names the place.
"""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiTemplate
from appliance.errors import SettingsError
from appliance.settings.box import BoxSettings, Peer
from appliance.settings.protocol import Protocol

_Model = TypeVar("_Model", bound=BaseModel)


class Settings(BoxSettings):
    """Everything configurable, checked as a whole."""

    peers: dict[str, Peer] = Field(default_factory=dict)
    protocols: dict[str, Protocol] = Field(default_factory=dict)
    rois: dict[str, RoiTemplate] = Field(default_factory=dict)
    planning_systems: dict[str, PlanningSystem] = Field(default_factory=dict)
    folder: Path

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        for protocol in self.protocols.values():
            derived = [name for one in protocol.derived for name in (one.roi, *one.sources)]
            for kind, names, known in (
                ("destination", protocol.destinations, self.peers),
                ("ROI", (*protocol.roi_names, *derived), self.rois),
                ("planning system", (protocol.planning_system,), self._known_planning_systems),
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
    def _known_planning_systems(self) -> dict[str, PlanningSystem]:
        return {"generic": PlanningSystem(), **self.planning_systems}

    def planning_system_of(self, protocol: Protocol) -> PlanningSystem:
        """The form in which the results of a protocol are written."""
        return self._known_planning_systems[protocol.planning_system]

    @property
    def data_dir(self) -> Path:
        """Absolute folder of the spool and of the embedded parts."""
        return (self.folder / self.appliance.data_dir).resolve()

    @property
    def models_dir(self) -> Path:
        """Absolute folder of the model packages."""
        if self.appliance.models_dir is None:
            return Path(__file__).parents[2] / "models" / "packages"
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
    reserved = {"peers", "protocols", "rois", "planning_systems", "folder"} & tables.keys()
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
    forms = _read(folder / "planning_systems.toml") if (folder / "planning_systems.toml").is_file() else {}
    planning_systems = {
        name: _check(f"planning_systems.toml: [{name}]", PlanningSystem, table) for name, table in forms.items()
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
        {
            **tables,
            "peers": peers,
            "rois": templates,
            "planning_systems": planning_systems,
            "protocols": protocols,
            "folder": folder,
        },
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
