"""A configuration folder as an operator would write it, from plain tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.settings import Settings, load_settings

ROIS: Mapping[str, Any] = {
    "External": {"number": 1, "colour": [210, 210, 210], "interpreted_type": "EXTERNAL"},
    "Bone_Pelvic": {"number": 7, "colour": [218, 112, 214], "code": {"value": "118645006", "meaning": "Pelvic bone"}},
    "Femur_L": {"number": 5, "colour": [60, 179, 113]},
    "Femur_R": {"number": 6, "colour": [46, 139, 187]},
    "Bone_PRV04": {"number": 90, "colour": [200, 90, 200], "interpreted_type": "AVOIDANCE"},
    "zShell": {"number": 91, "colour": [90, 90, 90], "interpreted_type": "AVOIDANCE"},
    "Other": {"number": 99, "colour": [1, 2, 3]},
}
BONES: Mapping[str, Any] = {
    "name": "bones",
    "title": "Bones of the pelvis",
    "model": "thresholds",
    "rois": ["External", "Bone_Pelvic"],
    "destinations": ["pacs"],
    "label": "AI_BONES_DRAFT",
    "match": {"body_part": ["PELVIS"]},
}
PACS: Mapping[str, Any] = {"ae_title": "FAKEPACS", "host": "127.0.0.1", "port": 104, "storage_commitment": False}


def write_config(
    folder: Path,
    tables: Mapping[str, Any] | None = None,
    *,
    peers: Mapping[str, Any] | None = None,
    rois: Mapping[str, Any] = ROIS,
    protocols: Mapping[str, Mapping[str, Any]] | None = None,
    planning_systems: Mapping[str, Any] | None = None,
) -> Path:
    """Write a whole configuration and return its folder; `tables` are those of appliance.toml.

    Unless they say otherwise, one engine is allowed: to examine all of them takes seconds.
    """
    worker = {"engines": ["onnxruntime"], **(tables or {}).get("worker", {})}
    tables = {**(tables or {}), "worker": worker}
    (folder / "protocols").mkdir(parents=True, exist_ok=True)
    (folder / "appliance.toml").write_text(toml(tables or {}))
    (folder / "peers.toml").write_text(toml({"pacs": PACS} if peers is None else peers))
    (folder / "rois.toml").write_text(toml(rois))
    if planning_systems is not None:
        (folder / "planning_systems.toml").write_text(toml(planning_systems))
    for name, table in ({"bones": BONES} if protocols is None else protocols).items():
        (folder / "protocols" / f"{name}.toml").write_text(toml(table))
    return folder


def make_settings(folder: Path, tables: Mapping[str, Any] | None = None, **parts: Any) -> Settings:
    """Write a configuration, then read it as the appliance does."""
    return load_settings(write_config(folder / "configs", tables, **parts))


def toml(table: Mapping[str, Any]) -> str:
    """A table of TOML, whose own tables come behind its values."""
    lines = [f"{key} = {_value(value)}\n" for key, value in table.items() if not isinstance(value, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += [f"\n[{key}]\n", *(f"{name} = {_value(each)}\n" for name, each in value.items())]
    return "".join(lines)


def _value(value: Any) -> str:
    """A value of TOML; texts and numbers look the same in JSON, tables within values do not."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
