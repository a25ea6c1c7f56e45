"""The 3D U-Net of Microsoft's InnerEye (Oktay et al., JAMA Netw Open 2020), as InnerEye-DeepLearning defined it.

32 channels at first, doubled by each of four strided convolutions; batch normalisation and ReLU; a second convolution
in every block is residual; a skip is added (convolution of the deep path plus convolution of the skip), not
concatenated; transposed convolutions of kernel 4 go up again; a 1x1x1 convolution answers.
"""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

Kernel = tuple[int, int, int]
"""Sides (z, y, x) of a convolution's kernel, each odd."""


def _convolution(channels_in: int, channels: int, kernel: Kernel, stride: int = 1) -> nn.Conv3d:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(channels_in, channels, kernel, stride=stride, padding=padding, bias=False)


class ConvLayer(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: Kernel, stride: int = 1) -> None:
        super().__init__()
        self.convolution = _convolution(channels_in, channels, kernel, stride)
        self.norm = nn.BatchNorm3d(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, Z, Y, X) to (B, channels, Z/stride, Y/stride, X/stride)."""
        y: Tensor = self.activation(self.norm(self.convolution(x)))
        return y


class EncodeBlock(nn.Module):
    """A layer that may halve the resolution, then a residual layer."""

    def __init__(self, channels_in: int, channels: int, kernel: Kernel, stride: int) -> None:
        super().__init__()
        self.first = ConvLayer(channels_in, channels, kernel, stride)
        self.second = ConvLayer(channels, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, Z, Y, X) to (B, channels, Z/stride, Y/stride, X/stride)."""
        x = self.first(x)  # (B, C, Z/s, Y/s, X/s)
        y: Tensor = self.second(x) + x
        return y


class UpBlock(nn.Module):
    """Transposed convolution that doubles the resolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose3d(channels_in, channels, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm3d(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, Z, Y, X) to (B, channels, 2Z, 2Y, 2X)."""
        y: Tensor = self.activation(self.norm(self.convolution(x)))
        return y


class SynthesisBlock(nn.Module):
    """Joins the deep path and the skip of one level by addition, then a residual layer."""

    def __init__(self, channels: int, kernel: Kernel) -> None:
        super().__init__()
        self.deep = _convolution(channels, channels, kernel)
        self.skip = _convolution(channels, channels, kernel)
        self.norm = nn.BatchNorm3d(channels)
        self.activation = nn.ReLU(inplace=True)
        self.second = ConvLayer(channels, channels, kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Two times (B, C, Z, Y, X) to (B, C, Z, Y, X)."""
        x = self.activation(self.norm(self.deep(x) + self.skip(skip)))  # (B, C, Z, Y, X)
        y: Tensor = self.second(x) + x
        return y


class UNet3D(nn.Module):
    """InnerEye's UNet3D; the tile must be divisible by 2^levels along every axis.

    Args:
        channels: of the input.
        classes: of the answer, background included.
        first_features: of the first level; each further one has twice as many.
        levels: how many times the resolution is halved.
        kernel: sides of every convolution that does not go up.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        first_features: int = 32,
        levels: int = 4,
        kernel: Sequence[int] = (3, 3, 3),
    ) -> None:
        super().__init__()
        z, y, x = kernel
        sides: Kernel = (z, y, x)
        features = [first_features * 2**k for k in range(levels + 1)]
        steps = list(itertools.pairwise(features))
        self.stem = EncodeBlock(channels, features[0], sides, stride=1)
        self.encoder = nn.ModuleList(EncodeBlock(shallow, deep, sides, stride=2) for shallow, deep in steps)
        self.up = nn.ModuleList(UpBlock(deep, shallow) for shallow, deep in steps)
        self.synthesis = nn.ModuleList(SynthesisBlock(shallow, sides) for shallow, _ in steps)
        self.head = nn.Conv3d(features[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a tile: (B, channels, Z, Y, X) to (B, classes, Z, Y, X)."""
        x = self.stem(x)  # (B, F, Z, Y, X)
        skips: list[Tensor] = []
        for block in self.encoder:
            skips.append(x)  # (B, F*2^k, Z/2^k, Y/2^k, X/2^k)
            x = block(x)  # (B, F*2^(k+1), Z/2^(k+1), ...)
        for k in reversed(range(len(skips))):
            x = self.synthesis[k](self.up[k](x), skips[k])  # (B, F*2^k, Z/2^k, ...)
        logits: Tensor = self.head(x)  # (B, K, Z, Y, X)
        return logits
