"""What a reader of a foreign format hands over, whatever the format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, eq=False)
class Member:
    """One network of the ensemble, with its weights, ready to answer.

    Attributes:
        network: maps (B, channels, z, y, x) on the manifest's tile to logits (B, classes, z, y, x); any turning of axes
            that the foreign network needs is inside it.
        came_from: the file or folder, relative to what was imported.
    """

    network: nn.Module
    came_from: str


@dataclass(frozen=True, eq=False)
class Converted:
    """A foreign model, read.

    Attributes:
        manifest: everything of a manifest but `folds`, as plain JSON values; `network` only where `models.build` makes
            the members' networks from it, which is when their tensors are kept beside ONNX.
        members: at least one.
        notes: sentences for the import report: what was assumed, left out, or is worth knowing.
    """

    manifest: Mapping[str, Any]
    members: tuple[Member, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportRequest:
    """What the person who imports adds to what the model says.

    Attributes:
        name: of the package; made from the source's name when empty.
        version: of the package.
        manifest: values that replace or complete those of the manifest, such as `rois` or `limits`, key by key.
        licence: of the weights; needed where the source does not say.
    """

    name: str = ""
    version: str = "1.0.0"
    manifest: Mapping[str, Any] | None = None
    licence: str = ""
