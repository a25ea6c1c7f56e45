from typing import Any

import pytest

torch = pytest.importorskip("torch")

from models.registry import UnknownNetwork, build  # noqa: E402


@pytest.mark.parametrize("name", ["unet3d", "unet3d_fast"])
def test_every_name_is_a_network(name: str) -> None:
    assert isinstance(build(name, {"channels": 1, "classes": 2}), torch.nn.Module)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("os", {}),
        ("models.unet3d", {}),
        ("unet3d", {"channels": 1}),
        ("unet3d", {"channels": 1, "classes": 2, "eval": "1"}),
        ("unet3d", {"channels": "one", "classes": 2}),
        ("unet3d", {"channels": -1, "classes": 2}),
    ],
)
def test_what_is_no_network_here_is_named(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(UnknownNetwork, match=name):
        build(name, arguments)
