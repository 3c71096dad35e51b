"""The fusion control module (FCM): weighs the features of both sources, equation (3).

It sees all features of a source as one volume of full resolution: the memory of each feature is read as maps of the
image's size, whatever its own size is. So its weights do not follow the image, as an interpolation would.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.networks.blocks import conv
from textdifuse_ros.networks.reference.unet import Features, feature_shapes, norm

REDUCTION = 16
BAND_PIXELS = 65_536
"""A convolution of a larger image is computed in bands of so many pixels, which bounds its working memory."""


class FeatureVolume:
    """Converts the features of a source to a volume and back; nothing is lost.

    :param widths: channels of each level
    :param blocks: residual blocks of each level
    """

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        top = len(widths) - 1
        # Deepest first, and the middle block's last, as the published weights take them.
        self._order = [*reversed(feature_shapes(widths, blocks)), (widths[-1], top)]
        # A feature fills whole maps: the missing channels are padded.
        self._padding = [-channels % 4**level for channels, level in self._order]
        self._maps = [(c + p) // 4**level for (c, level), p in zip(self._order, self._padding, strict=True)]

    @property
    def channels(self) -> int:
        """Number of maps."""
        return sum(self._maps)

    def join(self, first: Features, second: Features) -> Tensor:
        """Join the features of two sources.

        :param first: of the encoder
        :param second: likewise
        :returns: [N, 2 * channels, H, W]
        """
        return torch.cat([m for features in (first, second) for m in self._as_maps(features)], 1)

    def _as_maps(self, features: Features) -> list[Tensor]:
        *skips, middle = features
        height, width = skips[0].shape[2:]
        maps = []
        for feature, count, padding in zip((*reversed(skips), middle), self._maps, self._padding, strict=True):
            padded = F.pad(feature, (0, 0, 0, 0, 0, padding), value=1.0) if padding else feature
            maps.append(padded.reshape(len(feature), count, height, width))
        return maps

    def split(self, volume: Tensor) -> Features:
        """Convert a volume back to features.

        :param volume: [N, channels, H, W]
        """
        samples, _, height, width = volume.shape
        features = []
        parts = volume.split(self._maps, 1)
        for part, (channels, level), padding in zip(parts, self._order, self._padding, strict=True):
            shape = samples, channels + padding, height >> level, width >> level
            features.append(part.reshape(shape)[:, :channels])
        *skips, middle = features
        return (*reversed(skips), middle)


class ChannelSpatialAttention(nn.Module):
    """A gate per channel, then a gate per pixel (CBAM, Woo et al. 2018).

    :param channels: of input and output
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.channel = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )
        self.spatial = conv(2, 1, kernel=7)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both gates.

        :param x: [N, C, H, W]; overwritten
        """
        x.mul_(torch.sigmoid(self.channel(x.mean((2, 3), keepdim=True)) + self.channel(x.amax((2, 3), keepdim=True))))
        return x.mul_(torch.sigmoid(self.spatial(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1))))


class NormalizedConv(nn.Module):
    """Normalization, SiLU, convolution.

    :param channels: of input and output
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three.

        :param x: [N, C, H, W]
        """
        return conv_in_bands(self.conv, F.silu(self.norm(x), inplace=True))


class WeightBranch(nn.Module):
    """Computes the weights of one source.

    :param channels: of input and output
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.middle = NormalizedConv(channels)
        self.attention = ChannelSpatialAttention(channels)
        self.out = NormalizedConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Compute weights in (0, 1).

        :param x: [N, C, H, W]
        """
        return self.out(self.attention(self.middle(x))).sigmoid_()


class ReferenceFusionControl(nn.Module):
    """Weighs two volumes and adds them. For inference: one volume at 640x480 has 0.7 GB, so they are overwritten.

    The published files have a third branch. Its result is never used, so it is left out.

    :param channels: of one volume
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = conv(2 * channels, channels)
        self.shared = NormalizedConv(channels)
        self.attention = ChannelSpatialAttention(channels)
        self.first = WeightBranch(channels)
        self.second = WeightBranch(channels)

    def forward(self, volumes: Tensor) -> Tensor:
        """Fuse.

        :param volumes: [N, 2 * channels, H, W], the first source's, then the second's; overwritten
        :returns: [N, channels, H, W], a part of ``volumes``
        """
        first, second = volumes.chunk(2, 1)
        shared = self.attention(self.shared(conv_in_bands(self.reduce, volumes)))
        second.mul_(self.second(shared))
        return first.mul_(self.first(shared)).add_(second)


def conv_in_bands(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 3x3 convolution, without gradients in bands of rows.

    :param convolution: keeps the size
    :param x: [N, C, H, W]
    """
    samples, _, height, width = x.shape
    rows = max(BAND_PIXELS // width, 1)
    if rows >= height or torch.is_grad_enabled():
        whole: Tensor = convolution(x)
        return whole
    out = x.new_empty((samples, convolution.out_channels, height, width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        above, below = max(top - 1, 0), min(bottom + 1, height)
        out[:, :, top:bottom] = convolution(x[:, :, above:below])[:, :, top - above : bottom - above]
    return out
