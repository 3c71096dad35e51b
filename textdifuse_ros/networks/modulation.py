"""Text re-modulation: weights of the features at the named objects, kappa of equation (12).

One feed-forward pass; the paper optimizes a copy of the fusion control at run time instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.networks.blocks import conv
from textdifuse_ros.networks.encoder import LEVELS, STEM, Pyramid

NEAR, FAR = 9, 25
"""Sides of the windows over which objects and surroundings are averaged [cells of level 1, 8 pixels each]."""

LIMIT = 1.5
"""Largest |log kappa| of one direction at strength 1."""

MAX_LOG_KAPPA = 0.8
"""Largest |log kappa| in total: above it, at strength 2, bright objects showed the grid of the pixel shuffle."""

SLIGHT = 0.1
"""Below this strength an object counts in part only, so that its neighbors do not jump when its strength leaves 0."""

DIRECTIONS = 3
"""Number of directions of change: brighter, darker and fainter; see :class:`Modulation`."""


class LevelModulation(nn.Module):
    """Kappa of one level.

    Each change (brighter, darker, fainter) has a direction, predicted from the features. ``log kappa`` is the sum of
    amounts times directions: continuous in the amounts, and exactly 0 where all of them are 0.

    :param channels: of the level
    :param hidden: hidden channels
    :param context: channels of the description of objects and surroundings
    """

    def __init__(self, channels: int, hidden: int, context: int) -> None:
        super().__init__()
        self.look = conv(2 * channels, hidden, kernel=1)
        self.context = conv(context, hidden, kernel=1)
        self.mix = conv(hidden, hidden)
        self.directions = conv(hidden, DIRECTIONS * 2 * channels, kernel=1)
        nn.init.zeros_(self.directions.weight)
        assert self.directions.bias is not None
        nn.init.zeros_(self.directions.bias)

    def forward(
        self, visible: Tensor, infrared: Tensor, context: Tensor, share: Tensor, amounts: Tensor, active: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Compute kappa.

        :param visible: [N, C, H, W], weighted features
        :param infrared: likewise
        :param context: [N, K - 1, h, w], coarser or finer
        :param share: [N, 1, H, W], the last channel of the context
        :param amounts: [N, 3, H, W], not negative
        :param active: indices of the active directions
        :returns: kappa^X and kappa^Y, [N, C, H, W], positive; exactly 1 where all amounts are 0
        """
        # 1x1 convolution and interpolation commute; before the convolution there are five times as many channels.
        around = F.conv2d(context, self.context.weight[:, :-1], self.context.bias)
        if around.shape[2:] != share.shape[2:]:
            around = F.interpolate(around, size=share.shape[2:], mode="bilinear")
        h = F.relu(self.look(torch.cat((visible, infrared), 1)) + around + share * self.context.weight[None, :, -1])
        h = F.relu(self.mix(h))
        log = torch.zeros((1, 2 * visible.shape[1], 1, 1), dtype=h.dtype, device=h.device)
        # The limit is folded into weights and amounts: the directions have a hundred times as many elements.
        weights = (self.directions.weight / LIMIT).chunk(DIRECTIONS)
        biases = (cast(Tensor, self.directions.bias) / LIMIT).chunk(DIRECTIONS)
        for index in active:
            direction = torch.tanh(F.conv2d(h, weights[index], biases[index]))
            log = log + LIMIT * amounts[:, index : index + 1] * direction
        visible_kappa, infrared_kappa = torch.exp(log.clamp(-MAX_LOG_KAPPA, MAX_LOG_KAPPA)).chunk(2, 1)
        return visible_kappa, infrared_kappa


class Modulation(nn.Module):
    """Kappa of all levels, from the features and the requested change of the objects (equation 12).

    An object is set off from its surroundings, which are described by averages over the objects and over their
    neighborhood, in two windows.

    Amounts are float32 [N, 3, H, W] at the image's size: how much brighter, darker and fainter, each in [0, 2]; 0
    outside the objects.

    :param widths: channels of the levels
    :param hidden: hidden channels
    """

    def __init__(self, widths: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.describe = conv(2 * widths[1], hidden, kernel=1)
        context = 5 * (hidden + 1) + 1
        self.levels = nn.ModuleList(LevelModulation(width, hidden, context) for width in widths)

    def forward(
        self,
        visible: Pyramid,
        infrared: Pyramid,
        amounts: Tensor,
        context: Tensor,
        active: Sequence[int] = tuple(range(DIRECTIONS)),
    ) -> Pyramid:
        """The modulated pyramid, ``kappa^X w^X Phi^X + kappa^Y w^Y Phi^Y``, of a whole image or a part.

        Kappa of the fine detail is 1, since it does not concern the contrast to the surroundings.

        :param visible: weighted features, see :meth:`.FusionControl.weigh_sources`
        :param infrared: likewise
        :param amounts: float32 [N, 3, H, W] in [0, 2]
        :param context: of :meth:`context`, or the same part of it
        :param active: directions to compute, of brighter, darker and fainter (0, 1, 2)
        """
        fused = []
        named = _named(amounts)
        pooled = torch.cat((named, amounts * named), 1)
        for level, (modulate, x, y) in enumerate(zip(self.levels, visible, infrared, strict=False)):
            pooled = F.avg_pool2d(pooled, 2 if level else STEM)
            share, local = _split_pooled(pooled)
            kappas = modulate(x, y, context, share.to(x.dtype), local.to(x.dtype), active)
            fused.append(kappas[0] * x + kappas[1] * y)
        fine = (x + y for x, y in zip(visible[LEVELS:], infrared[LEVELS:], strict=True))
        return (*fused, *fine)

    def context(
        self,
        visible: Pyramid,
        infrared: Pyramid,
        amounts: Tensor,
        plain: Tensor,
        where: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> Tensor:
        """Describe each place, and the averages over the objects and beside them, far and near.

        :param visible: weighted features of the whole image
        :param infrared: likewise
        :param amounts: of the part ``where``; 0 elsewhere
        :param plain: float32 [N, 1, H, W] in [-1, 1], an estimate of the plain fusion
        :param where: rows and columns of the part [cells of 8 pixels]; the averages reach beyond it
        :returns: [N, 5 (hidden + 1), H / 8, W / 8], or the part of it
        """
        here = self.describe(torch.cat((visible[1], infrared[1]), 1))
        here = torch.cat((here, F.avg_pool2d(plain, 2 * STEM).to(here.dtype)), 1)
        share = here.new_zeros((here.shape[0], 1, *here.shape[2:]))
        share[..., where[0], where[1]] = F.avg_pool2d(_named(amounts), 2 * STEM).to(here.dtype)
        # Objects and surroundings share one batch: half as many operations.
        means = _windowed_means(here.repeat(2, 1, 1, 1), torch.cat((share, 1 - share)), where)
        on, beside = zip(*(mean.chunk(2) for mean in means), strict=True)
        return torch.cat((here[..., where[0], where[1]], *on, *beside), 1)


def _named(amounts: Tensor) -> Tensor:
    """Membership of each pixel in an object, [N, 1, H, W] in [0, 1]."""
    return (amounts.sum(1, keepdim=True) / SLIGHT).clamp(max=1)


def _split_pooled(pooled: Tensor) -> tuple[Tensor, Tensor]:
    """The share of each cell that belongs to objects, and the mean amounts of that share.

    The mean is over the object's pixels, not over the cell, so that the border changes as much as the interior.

    :param pooled: means over cells, [N, 4, h, w]: of the membership, and of the amounts times the membership
    """
    share = pooled[:, :1]
    return share, pooled[:, 1:] / share.clamp(min=1e-6)


def _windowed_means(values: Tensor, weight: Tensor, where: tuple[slice, slice]) -> list[Tensor]:
    """Weighted means in the near and the far window; where a window has no weight, those of the larger window."""
    total = torch.cat((values * weight, weight), 1)
    wide = total.mean((2, 3), keepdim=True)
    mean = wide[:, :-1] / wide[:, -1:].clamp(min=1e-4)
    means = []
    # The windows reach beyond the part, but not over the whole image.
    edges = [side.indices(size)[:2] for side, size in zip(where, total.shape[2:], strict=True)]
    reach = [slice(max(0, first - FAR // 2), last + FAR // 2) for first, last in edges]
    total = total[..., reach[0], reach[1]]
    rows, columns = (
        slice(first - side.start, last - side.start) for (first, last), side in zip(edges, reach, strict=True)
    )
    for side in (FAR, NEAR):
        sums = _box(total, side)[..., rows, columns]
        # A little of the larger window's mean takes over where the smaller one is empty.
        mean = (sums[:, :-1] + 1e-2 * mean) / (sums[:, -1:] + 1e-2)
        means.append(mean)
    return means


def _box(values: Tensor, side: int) -> Tensor:
    """The sliding mean over a square; cells beyond the border do not count."""
    # In this memory format PyTorch's pooling works on all channels at once.
    values = values.contiguous(memory_format=torch.channels_last)
    rows = F.avg_pool2d(values, (side, 1), 1, (side // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, side // 2), count_include_pad=False)
