"""The decoder: from features, noisy image and timestep to a denoised image and its variance (equation 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.networks.blocks import ResidualBlock, TimeEmbedding, conv
from textdifuse_ros.networks.encoder import STEM, Pyramid


class Decoder(nn.Module):
    """Coarse to fine over the pyramid; each level sums the features, the upsampled coarser level and ``z_t``.

    :param outputs: channels of the diffused image
    :param widths: channels of the levels, as in the encoder
    :param blocks: residual blocks of the levels
    :param fine: whether the features end with the fine detail; it is added with a predicted gain per pixel
    """

    def __init__(self, outputs: int, widths: tuple[int, ...], blocks: tuple[int, ...], *, fine: bool = False) -> None:
        super().__init__()
        self.outputs = outputs
        strides = [STEM * 2**level for level in range(len(widths))]
        self.noisy = nn.ModuleList(
            conv(outputs * stride**2, width, kernel=3 if level == 0 else 1)
            for level, (stride, width) in enumerate(zip(strides, widths, strict=True))
        )
        self.strides = strides
        self.time = TimeEmbedding(128, widths)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResidualBlock(width) for _ in range(count))
            for width, count in zip(widths, blocks, strict=True)
        )
        self.ups = nn.ModuleList(conv(b, 4 * a, kernel=1) for a, b in pairwise(widths))
        self.head = conv(widths[0], 2 * outputs * STEM**2)
        # Zero at initialization: with a random head, the loss drives the blocks below negative everywhere, and no
        # gradient passes the last ReLU again.
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        self.gain = conv(widths[0], outputs * STEM**2) if fine else None
        if self.gain is not None:
            nn.init.zeros_(self.gain.weight)
            assert self.gain.bias is not None
            nn.init.zeros_(self.gain.bias)

    def forward(
        self, features: Pyramid, z_t: Tensor | None, timestep: Tensor, *, variance: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Denoise once.

        :param features: [N, widths[k], H / 2^(k+2), W / 2^(k+2)] for each level k, and the fine detail [N, 1, H, W]
            where the networks have it
        :param z_t: float32 [N, C, H, W], H and W multiples of 16; None for a regression, which has no noise
        :param timestep: [N], of the full schedule
        :param variance: whether to compute the variance; it costs as much as the prediction's last convolution
        :returns: float32 [N, C, H, W] each: the raw prediction, and the logit of the variance fraction v (equation 6)
            or None
        """
        shifts = self.time(timestep)
        noisy = None if z_t is None else z_t.to(features[0].dtype)
        h: Tensor | None = None
        for level in reversed(range(len(self.levels))):
            below = 0 if h is None else F.pixel_shuffle(self.ups[level](h), 2)
            h = features[level] + self._noise_features(level, noisy) + below
            for block in cast(nn.ModuleList, self.levels[level]):
                h = block(h, shifts[level])
        # bfloat16 has steps of 1/128 near 1, a whole grey level: the image itself is computed in float32.
        # (Autocast does not know the meta device, on which the cost is counted.)
        assert h is not None
        with torch.autocast("cuda" if h.is_cuda else "cpu", enabled=False):
            channels = slice(None if variance else self.outputs * STEM**2)
            weight, bias = self.head.weight[channels].float(), cast(Tensor, self.head.bias)[channels].float()
            head = F.pixel_shuffle(F.conv2d(F.relu(h).float(), weight, bias, padding=1), STEM)
        mean = head[:, : self.outputs]
        if self.gain is not None:
            mean = mean + F.pixel_shuffle(self.gain(F.relu(h)), STEM).float() * features[-1]
        return mean, head[:, self.outputs :] if variance else None

    def _noise_features(self, level: int, noisy: Tensor | None) -> Tensor:
        """Features of z_t at a level; those of no noise are the bias of their convolution."""
        layer = self.noisy[level]
        if noisy is None:
            return cast(Tensor, layer.bias)[:, None, None]
        features: Tensor = layer(F.pixel_unshuffle(noisy, self.strides[level]))
        return features
