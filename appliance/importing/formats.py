"""Which formats can be imported, and which one a source is."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from appliance.errors import ModelRefused, Reason
from appliance.importing.converted import Converted, ImportRequest

READERS = (
    "appliance.importing.nnunet",
    "appliance.importing.monai_bundle",
    "appliance.importing.manifest_folder",
    "appliance.importing.onnx_model",
    "appliance.importing.torchscript",
    "appliance.importing.innereye",
)
"""One module for each format, in the order in which they are asked."""


_PICKLE = b"\x80"
"""How every pickle since protocol 2 begins, and no format that is read here."""


class Reader(Protocol):
    """What a module of a format has.

    Attributes:
        TITLE: the format, for people.
    """

    TITLE: str

    def recognises(self, path: Path) -> bool:
        """Whether a source looks like the format: by names and first bytes, nothing is loaded."""
        ...

    def read(self, path: Path, request: ImportRequest) -> Converted:
        """Read it, without executing anything that it brings.

        Raises:
            ModelRefused: MODEL_INVALID or MODEL_UNSAFE, with a sentence.
        """
        ...


def readers() -> Sequence[Reader]:
    """All of them."""
    return [cast(Reader, import_module(name)) for name in READERS]


def recognised(path: Path) -> Reader:
    """The reader of a source.

    Raises:
        ModelRefused: MODEL_INVALID if it is none of the formats.
    """
    known = readers()
    for reader in known:
        if reader.recognises(path):
            return reader
    if path.is_file() and path.open("rb").read(2)[:1] == _PICKLE:
        raise ModelRefused(
            Reason.MODEL_UNSAFE,
            f"{path.name} is a Python pickle, which would execute code; ask its source for safetensors or ONNX",
        )
    if (path / "MLmodel").is_file():
        raise ModelRefused(
            Reason.MODEL_UNSAFE,
            f"{path.name} is an MLflow model, which is loaded by executing it; import the ONNX or bundle that is in it",
        )
    raise ModelRefused(
        Reason.MODEL_INVALID,
        f"{path.name} is no model of a known format; known are: {', '.join(reader.TITLE for reader in known)}",
    )
