"""The fusion control module (FCM): weights of both sources at each level, channel and pixel (equation 3)."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.networks.blocks import conv
from textdifuse_ros.networks.cbam import CBAM
from textdifuse_ros.networks.encoder import STEM, Pyramid

LARGEST_WEIGHT = 2.0
"""Above 1, so that the fused image can show a source with more contrast than it has."""


def _weigher(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution to the logits of the weights; all weights are 1/2 at initialization."""
    weigh = conv(inputs, outputs, kernel=1)
    nn.init.zeros_(weigh.weight)
    assert weigh.bias is not None
    nn.init.constant_(weigh.bias, math.log(0.5 / (LARGEST_WEIGHT - 0.5)))
    return weigh


def _weights(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of visible and infrared, in (0, ``LARGEST_WEIGHT``)."""
    visible, infrared = (LARGEST_WEIGHT * torch.sigmoid(logits)).chunk(2, 1)
    return visible, infrared


class LevelControl(nn.Module):
    """The weights of one level, at its own resolution.

    :param channels: of the level
    :param hidden: channels in which the two sources are compared
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.compare = nn.Sequential(conv(2 * channels, hidden, kernel=1), nn.ReLU(), conv(hidden, hidden))
        self.attention = CBAM(hidden)
        self.weigh = _weigher(hidden, 2 * channels)

    def compare_sources(self, visible: Tensor, infrared: Tensor) -> Tensor:
        """Compare both sources; the weights are computed from the result.

        :param visible: [N, C, H, W], features
        :param infrared: likewise
        :returns: [N, hidden, H, W]
        """
        compared: Tensor = self.attention(self.compare(torch.cat((visible, infrared), 1)))
        return compared


class FusionControl(nn.Module):
    """One :class:`LevelControl` per level; with fine detail also weights per pixel.

    :param widths: channels of the levels
    :param hidden: channels in which the two sources are compared
    :param fine: whether the pyramids end with the fine detail
    """

    def __init__(self, widths: tuple[int, ...], hidden: int, *, fine: bool = False) -> None:
        super().__init__()
        self.levels = nn.ModuleList(LevelControl(width, hidden) for width in widths)
        self.fine = _weigher(hidden, 2 * STEM**2) if fine else None

    def weigh_sources(self, visible: Pyramid, infrared: Pyramid) -> tuple[Pyramid, Pyramid]:
        """The two terms of equation (3), ``w^X * Phi^X`` and ``w^Y * Phi^Y``.

        The weights are in (0, ``LARGEST_WEIGHT``), 1/2 before training. Those of the fine detail are computed from the
        finest level.

        :param visible: Phi^X
        :param infrared: Phi^Y
        """
        weighted_visible, weighted_infrared = [], []
        finest: Tensor | None = None
        for module, x, y in zip(self.levels, visible, infrared, strict=False):
            level = cast(LevelControl, module)
            compared = level.compare_sources(x, y)
            finest = compared if finest is None else finest
            x_weight, y_weight = _weights(level.weigh(compared))
            weighted_visible.append(x_weight * x)
            weighted_infrared.append(y_weight * y)
        if self.fine is not None:
            x_weight, y_weight = _weights(F.pixel_shuffle(self.fine(finest), STEM).float())
            weighted_visible.append(x_weight * visible[-1])
            weighted_infrared.append(y_weight * infrared[-1])
        return tuple(weighted_visible), tuple(weighted_infrared)

    def forward(self, visible: Pyramid, infrared: Pyramid) -> Pyramid:
        """The fused pyramid Phi^f: the sum of both terms of :meth:`weigh_sources`.

        :param visible: Phi^X
        :param infrared: Phi^Y
        """
        return tuple(x + y for x, y in zip(*self.weigh_sources(visible, infrared), strict=True))
