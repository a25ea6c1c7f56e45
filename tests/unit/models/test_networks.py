import pytest

torch = pytest.importorskip("torch")

from models.unet3d import UNet3D  # noqa: E402
from models.unet3d_fast import FastUNet3D, depth_to_space, space_to_depth  # noqa: E402


def test_the_innereye_network_answers_with_one_logit_per_class_and_voxel() -> None:
    network = UNet3D(channels=1, classes=5, first_features=4).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 16, 32, 32)).shape == (1, 5, 16, 32, 32)


def test_the_innereye_network_doubles_32_channels_four_times() -> None:
    network = UNet3D(channels=1, classes=2)
    assert [block.first.convolution.out_channels for block in network.encoder] == [64, 128, 256, 512]
    assert all(block.first.convolution.stride == (2, 2, 2) for block in network.encoder)


def test_a_skip_is_added_so_no_layer_is_twice_as_wide() -> None:
    network = UNet3D(channels=1, classes=2, first_features=4)
    for block in network.synthesis:
        assert block.deep.in_channels == block.skip.in_channels == block.deep.out_channels


def test_every_weight_of_the_innereye_network_learns() -> None:
    network = UNet3D(channels=1, classes=2, first_features=4)
    network(torch.randn(2, 1, 16, 16, 16)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_unfolding_undoes_folding() -> None:
    x = torch.arange(2 * 3 * 4 * 6 * 8, dtype=torch.float32).reshape(2, 3, 4, 6, 8)
    folded = space_to_depth(x)
    assert folded.shape == (2, 24, 2, 3, 4)
    torch.testing.assert_close(depth_to_space(folded), x)


def test_the_fast_network_answers_at_full_resolution() -> None:
    network = FastUNet3D(channels=2, classes=11, features=(4, 6, 8)).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 2, 16, 24, 32)).shape == (1, 11, 16, 24, 32)


def test_the_bundled_size_fits_into_eight_megabytes() -> None:
    network = FastUNet3D(channels=2, classes=11)
    assert sum(parameter.numel() for parameter in network.parameters()) * 4 < 8e6
