"""Convolutional block attention (Woo et al., ECCV 2018, sections 3.1 and 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.networks.blocks import conv


class ChannelAttention(nn.Module):
    """A gate per channel, from its mean and maximum over the image through one shared perceptron.

    :param channels: of input and output
    :param reduction: of the perceptron's hidden channels
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.shared = nn.Sequential(
            nn.Linear(channels, channels // reduction), nn.ReLU(), nn.Linear(channels // reduction, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel by a factor in (0, 1).

        :param x: [N, C, H, W]
        """
        gate = torch.sigmoid(self.shared(x.mean((2, 3))) + self.shared(x.amax((2, 3))))
        return x * gate[:, :, None, None]


class SpatialAttention(nn.Module):
    """A gate per pixel, from the mean and maximum over the channels through one 7x7 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = conv(2, 1, kernel=7)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each pixel by a factor in (0, 1).

        :param x: [N, C, H, W]
        """
        return x * torch.sigmoid(self.gate(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)))


class CBAM(nn.Module):
    """Channel attention, then spatial attention.

    :param channels: of input and output
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        """Apply both.

        :param x: [N, C, H, W]
        """
        return self.spatial(self.channel(F.relu(x)))
