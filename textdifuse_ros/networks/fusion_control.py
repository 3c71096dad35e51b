"""The fusion control module (FCM): how much of which source, at each level, channel and pixel (equation 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from textdifuse_ros.networks.blocks import conv
from textdifuse_ros.networks.cbam import CBAM
from textdifuse_ros.networks.encoder import Pyramid

LARGEST_WEIGHT = 2.0
"""Above 1, so that the fused picture can show a source with more contrast than it has."""


class LevelControl(nn.Module):
    """The weights of one level, at its own resolution.

    :param channels: of the level
    :param hidden: channels in which the two sources are compared
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.compare = nn.Sequential(conv(2 * channels, hidden, kernel=1), nn.ReLU(), conv(hidden, hidden))
        self.attention = CBAM(hidden)
        self.weigh = conv(hidden, 2 * channels, kernel=1)
        nn.init.zeros_(self.weigh.weight)
        assert self.weigh.bias is not None
        nn.init.constant_(self.weigh.bias, math.log(0.5 / (LARGEST_WEIGHT - 0.5)))

    def weigh_sources(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms of equation (3), ``w^X * Phi^X`` and ``w^Y * Phi^Y``.

        :param visible: [N, C, H, W], the visible's features
        :param infrared: [N, C, H, W], the infrared's features
        :return: like both, with weights in (0, ``LARGEST_WEIGHT``); 1/2 each before training
        """
        compared = self.attention(self.compare(torch.cat((visible, infrared), 1)))
        visible_weight, infrared_weight = (LARGEST_WEIGHT * torch.sigmoid(self.weigh(compared))).chunk(2, 1)
        return visible_weight * visible, infrared_weight * infrared

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        """The sum of both terms of :meth:`weigh_sources`."""
        seen, warm = self.weigh_sources(visible, infrared)
        return seen + warm


class FusionControl(nn.Module):
    """One :class:`LevelControl` a level."""

    def __init__(self, widths: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(LevelControl(width, hidden) for width in widths)

    def forward(self, visible: Pyramid, infrared: Pyramid) -> Pyramid:
        """Two pyramids to the fused one, Phi^f."""
        return tuple(level(x, y) for level, x, y in zip(self.levels, visible, infrared, strict=True))
