"""The two U-Nets of nnU-Net v2, as far as they answer: plain and with a residual encoder.

Weights of nnU-Net fit by name, but for what it stores twice and for the heads that only training uses
(Isensee et al. 2021, 10.1038/s41592-020-01008-z; 2024, arXiv 2404.09556). Everything is given as JSON has it, so that
a manifest can name these networks.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Sides = Sequence[int]
"""One number for each axis, (z, y, x)."""


def _three(sides: Sides) -> tuple[int, int, int]:
    z, y, x = sides
    return z, y, x


Norm = Literal["instance", "batch"]
Activation = Literal["leaky_relu", "relu"]


class NNUNet(nn.Module):
    """Encoder of several stages, and a decoder that takes up each of them again.

    Args:
        in_channels: of a tile.
        classes: with background.
        features: channels of each stage, the finest first.
        kernels: of each stage's convolutions.
        strides: by how much each stage is coarser than the one before it.
        depths: convolutions (plain) or residual blocks of each stage of the encoder.
        decoder_depths: convolutions of each stage of the decoder, the coarsest first.
        residual: whether the encoder has residual blocks, and a stem before them.
        stem_features: channels of the stem; those of the first stage when absent.
        bias: whether convolutions have one.
        norm: over each channel of a tile, or of the training set.
        norm_eps: what keeps it from dividing by zero.
        norm_affine: whether it is followed by a scale and an offset.
        activation: after each normalisation.
        slope: of a leaky ReLU, below zero.
        axes: which axis of the tile the network takes as its first, second and third.
    """

    def __init__(  # noqa: PLR0913  what nnU-Net's plans say about a network
        self,
        in_channels: int,
        classes: int,
        *,
        features: Sequence[int],
        kernels: Sequence[Sides],
        strides: Sequence[Sides],
        depths: Sequence[int],
        decoder_depths: Sequence[int],
        residual: bool = False,
        stem_features: int | None = None,
        bias: bool = True,
        norm: Norm = "instance",
        norm_eps: float = 1e-5,
        norm_affine: bool = True,
        activation: Activation = "leaky_relu",
        slope: float = 0.01,
        axes: Sides = (0, 1, 2),
    ) -> None:
        super().__init__()
        stages = len(features)
        if not len(kernels) == len(strides) == len(depths) == len(decoder_depths) + 1 == stages:
            raise ValueError(f"{stages} stages need as many kernels, strides and depths, and one decoder depth less")
        if sorted(axes) != [0, 1, 2]:
            raise ValueError("axes must name each axis of the tile once")
        form = _Form(bias=bias, norm=norm, eps=norm_eps, affine=norm_affine, activation=activation, slope=slope)
        self.encoder: nn.Module
        if residual:
            stem = features[0] if stem_features is None else stem_features
            self.encoder = _ResidualEncoder(
                in_channels, stem, list(zip(features, kernels, strides, depths, strict=True)), form
            )
        else:
            self.encoder = _PlainEncoder(in_channels, list(zip(features, kernels, strides, depths, strict=True)), form)
        self.decoder = _Decoder(classes, list(zip(features, kernels, strides, strict=True)), decoder_depths, form)
        self._forward = [0, 1, *(2 + axis for axis in axes)]
        self._backward = [0, 1, *(2 + list(axes).index(axis) for axis in range(3))]

    def forward(self, tiles: Tensor) -> Tensor:
        """Map tiles (B, channels, z, y, x) to logits (B, classes, z, y, x)."""
        logits: Tensor = self.decoder(self.encoder(tiles.permute(self._forward)))
        return logits.permute(self._backward)


class _Form:
    """What all convolutions of a network have in common."""

    def __init__(
        self, *, bias: bool, norm: Norm, eps: float, affine: bool, activation: Activation, slope: float
    ) -> None:
        self.bias = bias
        self._norm = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}[norm]
        self._eps, self._affine = eps, affine
        self._activation, self._slope = activation, slope

    def norm(self, channels: int) -> nn.Module:
        return self._norm(channels, eps=self._eps, affine=self._affine)

    def activation(self) -> nn.Module:
        return nn.ReLU(inplace=True) if self._activation == "relu" else nn.LeakyReLU(self._slope, inplace=True)


class _Convolution(nn.Module):
    """Convolution and normalisation, and activation unless it is left out."""

    def __init__(  # noqa: PLR0913
        self,
        inner: int,
        outer: int,
        kernel: Sides,
        stride: Sides,
        form: _Form,
        *,
        bias: bool | None = None,
        active: bool = True,
    ) -> None:
        super().__init__()
        padding = _three([(side - 1) // 2 for side in kernel])
        biased = form.bias if bias is None else bias
        self.conv = nn.Conv3d(inner, outer, _three(kernel), _three(stride), padding, bias=biased)
        self.norm = form.norm(outer)
        self.nonlin = form.activation() if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active: Tensor = self.nonlin(self.norm(self.conv(x)))
        return active


class _Convolutions(nn.Module):
    """Several in a row, of which only the first is strided."""

    def __init__(self, inner: int, outer: int, kernel: Sides, stride: Sides, depth: int, form: _Form) -> None:
        super().__init__()
        first = _Convolution(inner, outer, kernel, stride, form)
        others = [_Convolution(outer, outer, kernel, (1, 1, 1), form) for _ in range(depth - 1)]
        self.convs = nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.convs(x)
        return made


class _Residual(nn.Module):
    """Two convolutions beside a path that pools and projects where sizes change (ResNet-D, arXiv 1812.01187)."""

    def __init__(self, inner: int, outer: int, kernel: Sides, stride: Sides, form: _Form) -> None:
        super().__init__()
        self.conv1 = _Convolution(inner, outer, kernel, stride, form)
        self.conv2 = _Convolution(outer, outer, kernel, (1, 1, 1), form, active=False)
        self.nonlin2 = form.activation()
        beside: list[nn.Module] = []
        if any(side != 1 for side in stride):
            beside.append(nn.AvgPool3d(_three(stride), _three(stride)))
        if inner != outer:
            beside.append(_Convolution(inner, outer, (1, 1, 1), (1, 1, 1), form, bias=False, active=False))
        self.skip = nn.Sequential(*beside)

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return summed


class _ResidualStage(nn.Module):
    def __init__(self, inner: int, outer: int, kernel: Sides, stride: Sides, depth: int, form: _Form) -> None:
        super().__init__()
        first = _Residual(inner, outer, kernel, stride, form)
        self.blocks = nn.Sequential(
            first, *(_Residual(outer, outer, kernel, (1, 1, 1), form) for _ in range(depth - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.blocks(x)
        return made


_Stage = tuple[int, Sides, Sides, int]
"""Features, kernel, stride and depth."""


class _PlainEncoder(nn.Module):
    def __init__(self, inner: int, stages: Sequence[_Stage], form: _Form) -> None:
        super().__init__()
        made = []
        for features, kernel, stride, depth in stages:
            made.append(nn.Sequential(_Convolutions(inner, features, kernel, stride, depth, form)))
            inner = features
        self.stages = nn.Sequential(*made)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Every stage's answer, the finest first."""
        answers = []
        for stage in self.stages:
            x = stage(x)
            answers.append(x)
        return answers


class _ResidualEncoder(nn.Module):
    def __init__(self, inner: int, stem: int, stages: Sequence[_Stage], form: _Form) -> None:
        super().__init__()
        self.stem = _Convolutions(inner, stem, stages[0][1], (1, 1, 1), 1, form)
        inner, made = stem, []
        for features, kernel, stride, depth in stages:
            made.append(_ResidualStage(inner, features, kernel, stride, depth, form))
            inner = features
        self.stages = nn.Sequential(*made)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Every stage's answer, the finest first."""
        x, answers = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            answers.append(x)
        return answers


class _Decoder(nn.Module):
    def __init__(
        self, classes: int, stages: Sequence[tuple[int, Sides, Sides]], depths: Sequence[int], form: _Form
    ) -> None:
        super().__init__()
        made, ups = [], []
        for coarse, fine, depth in zip(stages[:0:-1], stages[-2::-1], depths, strict=True):
            stride = _three(coarse[2])
            ups.append(nn.ConvTranspose3d(coarse[0], fine[0], stride, stride, bias=form.bias))
            made.append(_Convolutions(2 * fine[0], fine[0], fine[1], (1, 1, 1), depth, form))
        self.stages, self.transpconvs = nn.ModuleList(made), nn.ModuleList(ups)
        # The coarser stages have heads as well, which only training asks.
        self.seg_layers = nn.ModuleDict({str(len(made) - 1): nn.Conv3d(stages[0][0], classes, 1)})

    def forward(self, skips: list[Tensor]) -> Tensor:
        """The logits, from every stage's answer; the list is emptied, so that each is let go once it was used."""
        x = skips.pop()
        for up, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat((up(x), skips.pop()), 1))
        (head,) = self.seg_layers.values()
        logits: Tensor = head(x)
        return logits
