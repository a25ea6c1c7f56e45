"""From the path of a foreign model to the package's folder, within the confined process."""

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from appliance.importing.converted import ImportRequest
from appliance.importing.formats import recognised
from appliance.importing.packaging import Origin, write_package
from appliance.importing.report import ImportReport
from appliance.importing.sources import checked_source, digests, unpacked

_TOOLS = ("torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "numpy", "monai")


def convert(task: Mapping[str, Any], confinement: Sequence[str], on_step: Callable[[str], None]) -> ImportReport:
    """Recognise, read, export and compare; the package's folder is complete afterwards.

    Args:
        task: source, package and work (paths), request (values of an `ImportRequest`).
        confinement: sentences for the report.
        on_step: hears of each step.

    Raises:
        ModelRefused: whatever is wrong with the model.
    """
    torch.set_grad_enabled(False)
    named = Path(task["source"])
    request = ImportRequest(**task["request"])
    root = named
    if named.is_file() and named.suffix.lower() == ".zip":
        on_step("unpacking")
        folder = Path(task["work"]) / "unpacked"
        folder.mkdir()
        root = unpacked(named, folder)
    checked_source(root)
    reader = recognised(root)
    on_step(f"reading {reader.TITLE}")
    converted = reader.read(root, request)
    read = digests(root, [member.came_from for member in converted.members])
    if root is not named:
        read |= digests(named, [])
    origin = Origin(reader.TITLE, named.name, read, _tools(), tuple(confinement))
    return write_package(converted, request, origin, Path(task["package"]), on_step)


def _tools() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
