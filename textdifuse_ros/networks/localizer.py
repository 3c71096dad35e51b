"""The built-in localizer's network: from a visible and an infrared image to a class and an object's box per cell.

One encoder takes both sensors, since each must fill in what the other lacks at the same place. Every source is
standardized to zero mean and unit deviation first: thermal cameras differ in contrast by an order of magnitude. Batch
normalization speeds up training from scratch; it is folded into the convolutions for inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from textdifuse_ros.config.base import parameter
from textdifuse_ros.errors import ConfigError

MULTIPLE = 16
"""Heights and widths that the network takes are multiples of this."""

CELL = 4
"""Side of an output cell [pixels]."""

_REACH = 16.0  # unit of the predicted distances to an object's edges [pixels]
_LEVELS = 3


@dataclass(frozen=True)
class LocalizerNetworkConfig:
    """Sizes of the network; stored in the checkpoint."""

    classes: int = parameter(11, "Number of classes.", low=2, high=255)
    widths: tuple[int, ...] = parameter((48, 80, 160), "Channels at 1/4, 1/8 and 1/16.", low=8, high=512)
    blocks: tuple[int, ...] = parameter((1, 2, 3), "Residual blocks of the levels.", low=1, high=16)
    neck: int = parameter(64, "Channels of the top-down path.", low=8, high=512)

    def __post_init__(self) -> None:
        for name in ("widths", "blocks"):
            if len(getattr(self, name)) != _LEVELS:
                raise ConfigError(name, f"{_LEVELS} integers, one a level", list(getattr(self, name)))


class Cells(NamedTuple):
    """The output of the network, one value per cell of 4 x 4 pixels.

    :ivar logits: [N, classes, H / 4, W / 4]
    :ivar distances: [N, 4, H / 4, W / 4] from the middle of a cell to the left, upper, right and lower edge of the
        object that it belongs to [pixels], above 0; without meaning where there is no object
    """

    logits: Tensor
    distances: Tensor


class LocalizerNetwork(nn.Module):
    """Three levels behind a pixel-unshuffle stem; dilated convolutions and the image's mean as context; a decoder.

    :param config: sizes
    """

    def __init__(self, config: LocalizerNetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths, neck = config.widths, config.neck
        self.stem = ConvNorm(4 * CELL**2, widths[0])
        self.levels = nn.ModuleList(
            nn.Sequential(*(_Residual(width, 2 ** (n % 3) if index == _LEVELS - 1 else 1) for n in range(count)))
            for index, (width, count) in enumerate(zip(widths, config.blocks, strict=True))
        )
        self.downs = nn.ModuleList(ConvNorm(a, b, stride=2) for a, b in pairwise(widths))
        self.context = nn.Linear(widths[-1], neck)
        self.laterals = nn.ModuleList(ConvNorm(width, neck, 1, relu=False) for width in widths)
        self.merges = nn.ModuleList((ConvNorm(neck, neck), ConvNorm(neck, widths[0])))
        self.extent = ConvNorm(widths[0], widths[0])
        self.to_logits = nn.Conv2d(widths[0], config.classes, 1)
        self.to_distances = nn.Conv2d(widths[0], 4, 1)

    def forward(self, visible: Tensor, infrared: Tensor) -> Cells:
        """Classify the cells of pairs.

        :param visible: [N, 3, H, W] RGB in [0, 1], H and W multiples of 16; constant where the sensor is blind
        :param infrared: [N, 1, H, W] in [0, 1]; likewise
        """
        sources = torch.cat((_standardize(visible), _standardize(infrared)), 1)
        h = self.stem(F.pixel_unshuffle(sources.contiguous(memory_format=torch.channels_last), CELL))
        features = []
        for index, level in enumerate(self.levels):
            if index:
                h = self.downs[index - 1](h)
            h = level(h)
            features.append(h)
        context = self.context(h.mean((2, 3)))[:, :, None, None]
        up = F.relu(self.laterals[2](features[2]) + context)
        for merge, lateral, feature in (
            (self.merges[0], self.laterals[1], features[1]),
            (self.merges[1], self.laterals[0], features[0]),
        ):
            large = F.interpolate(up, scale_factor=2.0, mode="bilinear", align_corners=False)
            up = merge(F.relu(large + lateral(feature)))
        raw = self.to_distances(self.extent(up)).to(torch.float32)
        return Cells(self.to_logits(up), _REACH * F.softplus(raw))


class ConvNorm(nn.Module):
    """Convolution, batch normalization, ReLU.

    :param inputs: channels
    :param outputs: channels
    :param kernel: side of the kernel, odd
    :param stride: in both directions
    :param dilation: in both directions
    :param relu: whether the ReLU follows
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers.

        :param x: [N, inputs, H, W]
        """
        x = self.norm(self.conv(x))
        return F.relu(x) if self.relu else x

    def fold(self) -> None:
        """Fold the normalization into the convolution, for inference."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class _Residual(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, dilation=dilation)
        self.second = ConvNorm(channels, channels, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def fold_norms(network: LocalizerNetwork) -> LocalizerNetwork:
    """Put a network into evaluation mode and fold all normalizations into the convolutions.

    :param network: changed in place
    :returns: the same network
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    return network


def _standardize(source: Tensor) -> Tensor:
    """Standardize the square root of each image, which brightens the dark parts, to zero mean and unit deviation.

    A source without contrast stays flat: its noise is not amplified.
    """
    root = source.to(torch.float32).clamp_min(0).sqrt()
    mean = root.mean((1, 2, 3), keepdim=True)
    deviation = (root - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
    return ((root - mean) / (deviation + 0.03)).clamp(-4, 4)
