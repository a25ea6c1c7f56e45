"""The 3D U-Net of Microsoft's InnerEye (Oktay et al., JAMA Netw Open 2020), as InnerEye-DeepLearning defined it.

32 channels at first, doubled by each of four strided convolutions; batch normalisation and ReLU; a second convolution
in every block is residual; a skip is added (convolution of the deep path plus convolution of the skip), not
concatenated; transposed convolutions of kernel 4 go up again; a 1x1x1 convolution answers.
"""

import itertools

from torch import Tensor, nn


class ConvLayer(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, Z, Y, X) to (B, channels, Z/stride, Y/stride, X/stride)."""
        y: Tensor = self.activation(self.norm(self.convolution(x)))
        return y


class EncodeBlock(nn.Module):
    """A layer that may halve the resolution, then a residual layer."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = ConvLayer(channels_in, channels, stride)
        self.second = ConvLayer(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, Z, Y, X) to (B, channels, Z/stride, Y/stride, X/stride)."""
        x = self.first(x)  # (B, C, Z/s, Y/s, X/s)
        y: Tensor = self.second(x) + x
        return y


class UpBlock(nn.Module):
    """Transposed convolution that doubles the resolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose3d(channels_in, channels, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, Z, Y, X) to (B, channels, 2Z, 2Y, 2X)."""
        y: Tensor = self.activation(self.norm(self.convolution(x)))
        return y


class SynthesisBlock(nn.Module):
    """Joins the deep path and the skip of one level by addition, then a residual layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deep = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.skip = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(channels)
        self.activation = nn.ReLU(inplace=True)
        self.second = ConvLayer(channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Two times (B, C, Z, Y, X) to (B, C, Z, Y, X)."""
        x = self.activation(self.norm(self.deep(x) + self.skip(skip)))  # (B, C, Z, Y, X)
        y: Tensor = self.second(x) + x
        return y


class UNet3D(nn.Module):
    """InnerEye's UNet3D; the tile must be divisible by 2^levels along every axis."""

    def __init__(self, channels: int, classes: int, first_features: int = 32, levels: int = 4) -> None:
        super().__init__()
        features = [first_features * 2**k for k in range(levels + 1)]
        steps = list(itertools.pairwise(features))
        self.stem = EncodeBlock(channels, features[0], stride=1)
        self.encoder = nn.ModuleList(EncodeBlock(shallow, deep, stride=2) for shallow, deep in steps)
        self.up = nn.ModuleList(UpBlock(deep, shallow) for shallow, deep in steps)
        self.synthesis = nn.ModuleList(SynthesisBlock(shallow) for shallow, _ in steps)
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
