"""The condition encoder: a source image to a pyramid of features, once per frame.

Departure from equation (2) of the paper: its inputs include neither Z_t nor t (``docs/adr/0002``), so the features of
a frame are the same at every step.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.networks.blocks import ResidualBlock, conv

Pyramid = tuple[Tensor, ...]
"""One tensor per level, finest first; last, where the networks have it, the fine detail."""

STEM = 4
LEVELS = 3


def cell_of(index: int) -> int:
    """Side of a cell of a pyramid's tensor [pixels].

    :param index: of the tensor
    """
    return STEM * 2**index if index < LEVELS else 1


def fine_detail(image: Tensor) -> Tensor:
    """The detail of an image within the cells of the stem.

    The levels represent it as channels of cells, which blurs the places of two textures; as pixels it stays exact. See
    ``docs/adr/0008``.

    :param image: float32 [N, 1, H, W]
    :returns: likewise
    """
    coarse = F.avg_pool2d(image, STEM)
    return image - F.interpolate(coarse, scale_factor=STEM, mode="bilinear", align_corners=False)


class ConditionEncoder(nn.Module):
    """Three levels of residual blocks behind a pixel-unshuffle stem, at 1/4, 1/8 and 1/16 of the image.

    The mean over the whole image of the lowest level scales and shifts every level: exposure and contrast are
    properties of the image, not of a neighborhood.

    :param inputs: channels of the image
    :param widths: channels of the levels
    :param blocks: residual blocks of the levels
    :param sources: number of sensors, each with a learned embedding: a dark road is not a cold road
    :param fine: whether the pyramid ends with the :func:`fine_detail`
    """

    def __init__(
        self, inputs: int, widths: tuple[int, ...], blocks: tuple[int, ...], sources: int = 1, *, fine: bool = False
    ) -> None:
        super().__init__()
        self.fine = fine
        self.source = nn.Embedding(sources, widths[0])
        nn.init.normal_(self.source.weight, std=0.1)
        self.widths = widths
        self.stem = conv(inputs * STEM**2, widths[0])
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
            for width, count in zip(widths, blocks, strict=True)
        )
        self.downs = nn.ModuleList(conv(a, b, stride=2) for a, b in pairwise(widths))
        scale_and_shift = nn.Linear(widths[-1], 2 * sum(widths))
        nn.init.zeros_(scale_and_shift.weight)
        nn.init.zeros_(scale_and_shift.bias)
        self.context = nn.Sequential(nn.Linear(widths[-1], widths[-1]), nn.ReLU(), scale_and_shift)

    def forward(self, image: Tensor, source: Tensor | None = None) -> Pyramid:
        """Encode images, independently of one another.

        :param image: float32 [N, C, H, W] in [-1, 1], H and W multiples of 16
        :param source: int64 [N], index of the sensor of each image; the first one by default
        :returns: [N, widths[k], H / 2^(k+2), W / 2^(k+2)] for each level k, in the precision of the weights, and the
            fine detail, float32 [N, 1, H, W]
        """
        if source is None:
            source = torch.zeros(image.shape[0], dtype=torch.int64, device=image.device)
        cells = F.pixel_unshuffle(image, STEM).to(self.stem.weight.dtype, memory_format=torch.channels_last)
        h = self.stem(cells) + self.source(source)[:, :, None, None]
        features = []
        for index, level in enumerate(self.levels):
            if index:
                h = self.downs[index - 1](h)
            h = level(h)
            features.append(h)
        vector = self.context(features[-1].mean((2, 3)))[:, :, None, None]
        pairs = vector.split([2 * width for width in self.widths], 1)
        levels = tuple(
            feature * (1 + pair[:, :width]) + pair[:, width:]
            for feature, pair, width in zip(features, pairs, self.widths, strict=True)
        )
        return (*levels, fine_detail(image)) if self.fine else levels
