"""A hospital's own models on disk, several versions of each side by side, before the ones that came with the release.

NAME/VERSION/       a package; nothing in it ever changes
NAME/active         one line: the version that works; the bundled package works where there is none
.incoming/          being written; never looked at, swept when old
.removed/           packages that were taken away, each under the time when

Whatever changes here changes in one step: a file is renamed over another, or a folder is renamed. A crash between any
two steps leaves a store that answers as before or as after. What a package is (imported, verified, active) is seen
from the disk each time, and is kept nowhere else.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from appliance.clock import epoch_ns
from appliance.errors import ModelRefused, Reason
from appliance.segmentation.model_package import read_manifest
from appliance.settings import Settings
from appliance.spool.durable import make_folder, sync_folder, write_durably

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_REMOVED = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)_([a-z0-9-]+)_(\d+\.\d+\.\d+)")
_ACTIVE = "active"
_OLD_NS = 24 * 3600 * 10**9
"""No import takes a day; what is older belongs to one that died."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One version of one model on the disk.

    Attributes:
        version: as the folder says, or, of a bundled one, its manifest; empty where that cannot be read.
        is_bundled: it came with the release, and is never changed or removed.
        is_active: protocols that name the model get this one.
    """

    name: str
    version: str
    folder: Path
    is_bundled: bool
    is_active: bool


class ModelStore:
    """The packages of a box.

    Args:
        imported: the folder of the hospital's own; made when something is imported.
        bundled: the folder of those that came with the release, one folder for each name; only read.
    """

    def __init__(self, imported: Path, bundled: Path) -> None:
        self.imported = imported
        self.bundled = bundled

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store that a configuration names."""
        return cls(settings.data_dir / "models", settings.models_dir)

    def active(self, name: str) -> Path:
        """The folder of the package that works under a name.

        Raises:
            ModelRefused: MODEL_MISSING, there is none, or none is active.
        """
        version = self._active_version(name)
        if version is not None:
            folder = self.imported / name / version
            if not folder.is_dir():
                what = f"version {version} of model {name} is to be active, and is not there"
                raise _missing(f"{what}; restore it, or activate another with `delineate models activate`")
            return folder
        if self._is_bundled(name):
            return self.bundled / name
        if self._versions(name):
            raise _missing(f"no version of model {name} is active; choose one with `delineate models activate`")
        raise _missing(f"there is no model package {name}; `delineate models list` shows those there are")

    def find(self, name: str, version: str | None = None) -> StoredModel:
        """One version of a model, the active one when none is named.

        Raises:
            ModelRefused: MODEL_MISSING, it is not there.
        """
        there = self.versions(name)
        active = self.active(name) if version is None or not there else None
        for model in there:
            if version == model.version if active is None else active == model.folder:
                return model
        listed = ", ".join(model.version for model in there)
        raise _missing(f"there is no version {version} of model {name} (there: {listed})")

    def versions(self, name: str) -> list[StoredModel]:
        """Every version of a model, the oldest version number first, the bundled one before all."""
        active = self._active_version(name)
        found = []
        if self._is_bundled(name):
            version = _version_of(self.bundled / name)
            found.append(StoredModel(name, version, self.bundled / name, is_bundled=True, is_active=active is None))
        for version in self._versions(name):
            folder = self.imported / name / version
            found.append(StoredModel(name, version, folder, is_bundled=False, is_active=version == active))
        return found

    def models(self) -> list[StoredModel]:
        """Everything there is, by name."""
        folders = [folder for root in (self.bundled, self.imported) if root.is_dir() for folder in root.iterdir()]
        names = {folder.name for folder in folders if folder.is_dir() and _NAME.fullmatch(folder.name)}
        return [model for name in sorted(names) for model in self.versions(name)]

    def activate(self, name: str, version: str) -> None:
        """Let protocols that name the model get this version from now on.

        Raises:
            ModelRefused: MODEL_MISSING, there is no such version.
        """
        model = self.find(name, version)
        if model.is_bundled:
            self._deactivate(name)
            return
        make_folder(self._incoming)
        temporary = self._incoming / f"{secrets.token_hex(8)}.{_ACTIVE}"
        write_durably((f"{version}\n".encode(),), temporary, self.imported / name / _ACTIVE)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A folder to write a new package to, which nobody looks at; what is left in it at the end is removed."""
        self._sweep()
        folder = self._incoming / secrets.token_hex(8)
        make_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def refuse_taken(self, name: str, version: str) -> None:
        """Check that a new package can have this name and version.

        Raises:
            ModelRefused: MODEL_INVALID, it is no name or version, or there is such a package already.
        """
        if not (_NAME.fullmatch(name) and _VERSION.fullmatch(version)):
            what = f"{name!r} {version!r} is no name and version of a model"
            raise _unfit(f"{what}: small letters, digits and hyphens, and a version such as 1.0.0")
        if any(model.version == version for model in self.versions(name)):
            raise _unfit(f"there is a version {version} of model {name} already; give this one another (--version)")

    def take_in(self, folder: Path) -> StoredModel:
        """Make a package that was written to a folder of `incoming` durable and visible, all at once.

        Its name and version are those of its manifest.

        Raises:
            ModelRefused: MODEL_MISSING or MODEL_INVALID, its manifest cannot be read, or its name is taken.
        """
        manifest = read_manifest(folder)
        self.refuse_taken(manifest.name, manifest.version)
        for path in (*folder.rglob("*"), folder):
            _sync(path)
        self._appear(folder, manifest.name, manifest.version)
        return self.find(manifest.name, manifest.version)

    def remove(self, name: str, version: str, at: datetime) -> Path:
        """Take a version away, to where `restore` finds it; an active one stops being active first.

        Raises:
            ModelRefused: MODEL_MISSING, there is no such version; MODEL_INVALID, it came with the release.
        """
        model = self.find(name, version)
        if model.is_bundled:
            raise _unfit(f"{name} {version} came with this release and cannot be removed; activate another version")
        if model.is_active:
            self._deactivate(name)
        make_folder(self._removed)
        aside = self._removed / f"{at:%Y%m%dT%H%M%S.%fZ}_{name}_{version}"
        model.folder.rename(aside)
        sync_folder(self._removed)
        sync_folder(model.folder.parent)
        return aside

    def removed(self) -> list[tuple[str, str, Path]]:
        """What was removed as (name, version, folder), the latest first."""
        if not self._removed.is_dir():
            return []
        found = []
        for folder in sorted(self._removed.iterdir(), reverse=True):
            match = _REMOVED.fullmatch(folder.name)
            if match is not None:
                found.append((match[2], match[3], folder))
        return found

    def restore(self, name: str, version: str) -> StoredModel:
        """Bring back what was removed last under a name and version; it is not active by that.

        Raises:
            ModelRefused: MODEL_MISSING, nothing such was removed; MODEL_INVALID, the version is there again.
        """
        for removed_name, removed_version, folder in self.removed():
            if (removed_name, removed_version) == (name, version):
                self.refuse_taken(name, version)
                self._appear(folder, name, version)
                sync_folder(self._removed)
                return self.find(name, version)
        raise _missing(f"no version {version} of model {name} was removed; `delineate models list --removed` shows all")

    @property
    def _incoming(self) -> Path:
        return self.imported / ".incoming"

    @property
    def _removed(self) -> Path:
        return self.imported / ".removed"

    def _appear(self, folder: Path, name: str, version: str) -> None:
        """Give a whole package its name, in one step."""
        make_folder(self.imported / name)
        folder.rename(self.imported / name / version)
        sync_folder(self.imported / name)

    def _active_version(self, name: str) -> str | None:
        _refuse_strange(name)
        try:
            text = (self.imported / name / _ACTIVE).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except (NotADirectoryError, UnicodeDecodeError) as error:
            raise _missing(f"{self.imported / name / _ACTIVE} is damaged; activate a version again") from error
        if not _VERSION.fullmatch(text):
            raise _missing(f"{self.imported / name / _ACTIVE} names no version; activate one again")
        return text

    def _deactivate(self, name: str) -> None:
        (self.imported / name / _ACTIVE).unlink(missing_ok=True)
        if (self.imported / name).is_dir():
            sync_folder(self.imported / name)

    def _versions(self, name: str) -> list[str]:
        folder = self.imported / name
        found = [one.name for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []
        return sorted(
            (one for one in found if _VERSION.fullmatch(one)), key=lambda one: [int(part) for part in one.split(".")]
        )

    def _is_bundled(self, name: str) -> bool:
        return (self.bundled / name).is_dir()

    def _sweep(self) -> None:
        """Remove what imports that died have left half written."""
        if self._incoming.is_dir():
            for path in self._incoming.iterdir():
                with suppress(FileNotFoundError):  # whoever wrote it is done at this moment
                    if epoch_ns() - path.stat().st_mtime_ns > _OLD_NS:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _refuse_strange(name: str) -> None:
    """A name becomes part of a path, so it must hold nothing that a path would understand."""
    if not _NAME.fullmatch(name):
        raise _missing(f"{name!r} is no name of a model: it takes small letters, digits and hyphens")


def _version_of(folder: Path) -> str:
    try:
        return read_manifest(folder).version
    except ModelRefused:
        return ""


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
    else:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _missing(sentence: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_MISSING, sentence)


def _unfit(sentence: str) -> ModelRefused:
    return ModelRefused(Reason.MODEL_INVALID, sentence)
