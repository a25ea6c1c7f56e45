"""Networks by the name that a model package's manifest gives; a package can name these and no others."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from torch import nn

NETWORKS: dict[str, tuple[str, str]] = {
    "nnunet": ("models.nnunet", "NNUNet"),
    "unet3d": ("models.unet3d", "UNet3D"),
    "unet3d_fast": ("models.unet3d_fast", "FastUNet3D"),
}
"""Name in the manifest -> module and class here."""


class UnknownNetwork(ValueError):
    """No network of that name, or not with these arguments."""


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Make a network with untrained weights.

    Args:
        name: one of `NETWORKS`.
        arguments: the keyword arguments of its class, as JSON has them.

    Raises:
        UnknownNetwork: the name or an argument means nothing here.
    """
    if name not in NETWORKS:
        raise UnknownNetwork(f"there is no network {name!r}; known are {', '.join(sorted(NETWORKS))}")
    module, network = NETWORKS[name]
    try:
        return cast(nn.Module, getattr(import_module(module), network)(**arguments))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UnknownNetwork(f"network {name!r} cannot be made with {sorted(arguments)}: {error}") from error
