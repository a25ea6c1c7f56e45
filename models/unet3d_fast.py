"""A small 3D U-Net for CPUs: it works at half resolution and answers at full resolution.

A space-to-depth stem folds each 2x2x2 block of voxels into channels, so that the first and dearest level runs on an
eighth of the voxels; a sub-pixel head unfolds its answer again (Shi et al., CVPR 2016). Instance normalisation makes
it indifferent to the scanner's offset and gain.
"""

import torch
from torch import Tensor, nn


class ConvBlock(nn.Module):
    """Two 3x3x3 convolutions, each with instance normalisation and leaky ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*self._layer(channels_in, channels), *self._layer(channels, channels))

    @staticmethod
    def _layer(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
        convolution = nn.Conv3d(channels_in, channels, 3, padding=1, bias=False)
        return convolution, nn.InstanceNorm3d(channels, affine=True), nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, Z, Y, X) to (B, channels, Z, Y, X)."""
        y: Tensor = self.layers(x)
        return y


def space_to_depth(x: Tensor) -> Tensor:
    """Fold blocks of 2x2x2 voxels into channels: (B, C, Z, Y, X) to (B, 8C, Z/2, Y/2, X/2)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // 2, 2, h // 2, 2, w // 2, 2)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * 8, d // 2, h // 2, w // 2)


def depth_to_space(x: Tensor) -> Tensor:
    """The inverse of `space_to_depth`: (B, 8C, Z, Y, X) to (B, C, 2Z, 2Y, 2X)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c // 8, 2, 2, 2, d, h, w)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // 8, d * 2, h * 2, w * 2)


class FastUNet3D(nn.Module):
    """U-Net between a space-to-depth stem and a sub-pixel head; the tile must be divisible by 2^len(features)."""

    def __init__(self, channels: int, classes: int, features: tuple[int, ...] = (32, 48, 64, 96)) -> None:
        super().__init__()
        inputs = (channels * 8, *features[:-1])
        levels = range(len(features) - 1)
        self.encoder = nn.ModuleList(ConvBlock(i, o) for i, o in zip(inputs, features, strict=True))
        self.down = nn.ModuleList(nn.Conv3d(features[k], features[k], 2, stride=2, bias=False) for k in levels)
        self.up = nn.ModuleList(nn.ConvTranspose3d(features[k + 1], features[k], 2, stride=2) for k in levels)
        self.decoder = nn.ModuleList(ConvBlock(2 * features[k], features[k]) for k in levels)
        self.head = nn.Conv3d(features[0], classes * 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a tile: (B, channels, Z, Y, X) to (B, classes, Z, Y, X)."""
        x = space_to_depth(x)  # (B, 8C, Z/2, Y/2, X/2)
        skips: list[Tensor] = []
        for block, down in zip(self.encoder, self.down, strict=False):
            x = block(x)  # (B, f[k], Z/2^(k+1), ...)
            skips.append(x)
            x = down(x)  # (B, f[k], Z/2^(k+2), ...)
        x = self.encoder[-1](x)  # (B, f[-1], Z/2^n, ...)
        for k in reversed(range(len(skips))):
            x = self.decoder[k](torch.cat([self.up[k](x), skips[k]], 1))  # (B, f[k], Z/2^(k+1), ...)
        logits: Tensor = self.head(x)  # (B, 8K, Z/2, Y/2, X/2)
        return depth_to_space(logits)  # (B, K, Z, Y, X)
