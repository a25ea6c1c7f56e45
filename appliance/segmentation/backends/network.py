"""The one thing that an ensemble asks of an engine."""

from typing import Any, Protocol, TypeAlias

Array: TypeAlias = Any
"""An array of the library and on the device that an `Arrays` stands for: numpy's, or torch's on a GPU."""


class OutOfMemory(Exception):
    """A network run needs more memory than its device has; a smaller batch or another device may do."""


class Network(Protocol):
    """One fold, loaded and warm.

    Attributes:
        engine: what runs it and where, in words, such as "ONNX Runtime on the CPU".
        input_shape: (batch, channels, z, y, x); the batch is a number or a name.
        output_shape: (batch, classes, z, y, x).
    """

    engine: str
    input_shape: tuple[int | str | None, ...]
    output_shape: tuple[int | str | None, ...]

    def run(self, tiles: Array) -> Array:
        """Map normalised channels (B, channels, z, y, x) to logits (B, classes, z, y, x), float32.

        The answer may be overwritten by the caller. It lives where the tiles do.

        Raises:
            OutOfMemory: nothing was computed.
        """
        ...
