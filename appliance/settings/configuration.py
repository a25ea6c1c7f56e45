"""The whole configuration as one frozen `Settings`, and how it is read and checked.

A file, table or key that means nothing stops the start, in a sentence that names the file and the line.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiTemplate
from appliance.errors import SettingsError
from appliance.settings.box import BoxSettings, Peer
from appliance.settings.completion import CompletionRules, completion_rules
from appliance.settings.places import Key, Mistake, TomlFile
from appliance.settings.protocol import Protocol
from appliance.settings.tls import TlsFiles
from appliance.settings.written_names import check_sides, written_templates

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
            for kind, name, known, keys in self._named_by(protocol):
                if name not in known:
                    sentence = f"protocol {protocol.name}: {kind} {name!r} is not defined{_suggest(name, known)}"
                    raise Mistake(sentence, keys, word=name, file=("protocols", protocol.name))
        return self

    def _named_by(self, protocol: Protocol) -> Iterator[tuple[str, str, Mapping[str, object], tuple[Key, ...]]]:
        """What a protocol names: of which kind, its name, those that exist, and where it stands."""
        for name in protocol.destinations:
            yield "destination", name, self.peers, ("destinations",)
        for number, name in enumerate(protocol.roi_names):
            yield "ROI", name, self.rois, ("rois", number)
        for number, one in enumerate(protocol.derived):
            for name in (one.roi, *one.sources):
                yield "ROI", name, self.rois, ("derived", number)
        if protocol.completion.count_peer is not None:
            yield "peer", protocol.completion.count_peer, self.peers, ("completion", "count_peer")
        if protocol.fetch is not None:
            yield "peer", protocol.fetch.peer, self.peers, ("fetch", "peer")
        yield "planning system", protocol.planning_system, self._known_planning_systems, ("planning_system",)

    @model_validator(mode="after")
    def _who_is_asked_answers(self) -> Self:
        for protocol in self.protocols.values():
            asked = {("completion", "count_peer"): protocol.completion.count_peer}
            if protocol.fetch is not None:
                asked["fetch", "peer"] = protocol.fetch.peer
            for keys, name in asked.items():
                if name is not None and not self.peers[name].query:
                    sentence = f"{name} is not to be asked; give it `query = true` in peers.toml if it answers C-FIND"
                    raise Mistake(
                        f"protocol {protocol.name}: {sentence}", keys, word=name, file=("protocols", protocol.name)
                    )
        return self

    @model_validator(mode="after")
    def _roi_numbers_differ(self) -> Self:
        owners: dict[int, str] = {}
        for roi in self.rois.values():
            owner = owners.setdefault(roi.number, roi.name)
            if owner != roi.name:
                sentence = f"{owner} and {roi.name} have the same number {roi.number}; give one of them another"
                raise Mistake(sentence, (roi.name, "number"), file=("rois",))
        return self

    @model_validator(mode="after")
    def _names_can_be_written(self) -> Self:
        check_sides(self.rois)
        for protocol in self.protocols.values():
            self.written_templates(protocol)
        return self

    @property
    def _known_planning_systems(self) -> dict[str, PlanningSystem]:
        return {"generic": PlanningSystem(), **self.planning_systems}

    def planning_system_of(self, protocol: Protocol) -> PlanningSystem:
        """The form in which the results of a protocol are written."""
        return self._known_planning_systems[protocol.planning_system]

    def written_templates(self, protocol: Protocol) -> dict[str, RoiTemplate]:
        """How each structure of a protocol is written: renamed, cut to what its planning system keeps.

        By its name in rois.toml, in the order of the results.
        """
        return written_templates(protocol, self.rois, self.planning_system_of(protocol))

    def completion_rules(self, protocol: str | None, source_ae: str) -> CompletionRules:
        """When a series is complete.

        Args:
            protocol: the name of the one that takes it, if any does.
            source_ae: who sent it.
        """
        chosen = self.protocols.get(protocol or "")
        return completion_rules(chosen.completion if chosen else None, self.intake, self.peers, source_ae)

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

    @property
    def tls_files(self) -> TlsFiles | None:
        """The PEM files of `[tls]`; None when there are none."""
        files = [self.tls.certificate, self.tls.key, self.tls.authorities]
        paths = [(self.folder / path).resolve() for path in files if path is not None]
        return TlsFiles(*paths) if len(paths) == len(files) else None

    @property
    def myself(self) -> Peer:
        """This box as one that is called, from itself."""
        intake = self.intake
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(intake.host, intake.host)  # noqa: S104
        if intake.tls != "only" or self.tls_files is None:
            return Peer(ae_title=intake.ae_title, host=host, port=intake.port)
        own = self.tls_files.fingerprint
        return Peer(ae_title=intake.ae_title, host=host, port=intake.tls_port, tls=True, certificate=own)

    @model_validator(mode="after")
    def _tls_has_its_files(self) -> Self:
        if self.tls_files is None and any(value is not None for _, value in self.tls):
            raise Mistake("[tls] needs certificate, key and authorities, all three", ("tls",))
        if self.tls_files is None and self.intake.tls != "off":
            raise Mistake(f"intake.tls is {self.intake.tls}, but there is no table [tls]; add it", ("intake", "tls"))
        if self.audit.collector is not None and self.audit.collector_tls and self.tls_files is None:
            sentence = "audit.collector needs a table [tls]; add it, or turn audit.collector_tls off"
            raise Mistake(sentence, ("audit", "collector"))
        for name, peer in self.peers.items():
            if peer.tls and self.tls_files is None:
                sentence = f"{name} is called over TLS, but appliance.toml has no table [tls]; add it there"
                raise Mistake(sentence, (name, "tls"), file=("peers",))
            if peer.certificate is not None and not peer.tls:
                sentence = f"{name} has a certificate, but is not spoken to over TLS; add tls = true"
                raise Mistake(sentence, (name, "certificate"), file=("peers",))
        return self

    @model_validator(mode="after")
    def _surface_is_known_before_skin(self) -> Self:
        surfaces = {roi.name for roi in self.rois.values() if roi.interpreted_type == "EXTERNAL"}
        for protocol in self.protocols.values():
            for index, one in enumerate(protocol.derived):
                later = [other.roi for other in protocol.derived[index:] if other.roi in surfaces]
                if one.skin_mm is not None and later:
                    sentence = f"derived {one.roi} has skin_mm, but {later[0]} is derived no earlier; put it first"
                    raise Mistake(
                        f"protocol {protocol.name}: {sentence}", ("derived", index), file=("protocols", protocol.name)
                    )
        return self


def load_settings(folder: Path) -> Settings:
    """Read and check the configuration in `folder`.

    Raises:
        SettingsError: a file is missing or malformed, a key is unknown, a value does not fit, or a protocol
            names something that is not defined; the message names the file and the key.
    """
    folder = folder.resolve()
    if not (folder / "appliance.toml").is_file():
        raise SettingsError(f"{folder / 'appliance.toml'} does not exist; copy configs/ and point --config at it")
    box = TomlFile.read(folder, "appliance.toml")
    reserved = {"peers", "protocols", "rois", "planning_systems", "folder"} & box.tables.keys()
    if reserved:
        raise SettingsError(f"{box.place((min(reserved),))}: {min(reserved)} has a file of its own; move it there")
    _check(box, BoxSettings, box.tables)
    tables: dict[str, dict[str, BaseModel]] = {}
    files: dict[tuple[str, ...], TomlFile] = {}
    for name, model in (("peers", Peer), ("rois", RoiTemplate), ("planning_systems", PlanningSystem)):
        file = files[(name,)] = TomlFile.read_if_there(folder, f"{name}.toml")
        tables[name] = {
            key: _check(file, model, _with_name(key, table) if name == "rois" else table, key)
            for key, table in file.tables.items()
        }
    protocols: dict[str, BaseModel] = {}
    for path in sorted((folder / "protocols").glob("*.toml")):
        file = TomlFile.read(folder, f"protocols/{path.name}")
        protocol = _check(file, Protocol, file.tables)
        if protocol.name in protocols:
            raise SettingsError(f"{file.place(('name',))}: the name {protocol.name!r} is taken by another protocol")
        protocols[protocol.name] = protocol
        files["protocols", protocol.name] = file
    return _check(box, Settings, {**box.tables, **tables, "protocols": protocols, "folder": folder}, files=files)


def _with_name(name: str, table: object) -> object:
    return {"name": name, **table} if isinstance(table, dict) else table


def _check(
    file: TomlFile,
    model: type[_Model],
    table: object,
    *keys: Key,
    files: Mapping[tuple[str, ...], TomlFile] | None = None,
) -> _Model:
    """Make a model from a table of a file; `keys` lead to the table, and `files` are those that a mistake may be in."""
    try:
        return model.model_validate(table)
    except ValidationError as invalid:
        # an unknown key comes first: where it is a misspelt one, the missing key is only its shadow
        first = min(invalid.errors(), key=lambda error: error["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        mistake = first.get("ctx", {}).get("error")
        place, word = first["loc"], first["input"] if isinstance(first["input"], str) else ""
        if isinstance(mistake, Mistake):
            file, place, word = (files or {}).get(mistake.file, file), (*place, *mistake.keys), mistake.word
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            said = f"{key} is not a setting{_suggest(str(first['loc'][-1]), _keys_at(model, first['loc'][:-1]))}"
        elif key and not isinstance(mistake, ValueError):
            said = f"{key}: {said} (found {first['input']!r})"
        elif key:
            said = f"{key}: {said}"
        table_name = "".join(f"[{name}]: " for name in keys)
        raise SettingsError(f"{file.place((*keys, *place), word)}: {table_name}{said}") from invalid


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
