"""What a reader of a foreign format hands over, whatever the format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # who only asks for an import needs no torch
    from torch import nn


@dataclass(frozen=True, eq=False)
class Member:
    """One network of the ensemble, with its weights, ready to answer.

    Attributes:
        network: maps (B, channels, z, y, x) on the manifest's tile to logits (B, classes, z, y, x); any turning of axes
            that the foreign network needs is inside it. None where `onnx` is given.
        came_from: the file, relative to what was imported.
        onnx: the network where it came as ONNX: one input and one output of the manifest's shapes, no other file.
    """

    network: "nn.Module | None"
    came_from: str
    onnx: bytes | None = None

    def __post_init__(self) -> None:
        if (self.network is None) == (self.onnx is None):
            raise ValueError("a member is either a network or ONNX")


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
