"""The light of an image, estimated as a whole: what a colour cast and darkness have in common.

A wrong white balance, a lamp's colour and too little light all multiply the channels by one number each. Three numbers
an image undo them at every pixel alike; a network that corrects pixel by pixel would have to find the same numbers
anew in each neighbourhood, from less evidence.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.image.color import rgb_to_ycbcr, ycbcr_to_rgb
from textdifuse_ros.image.ranges import signed_to_unit, unit_to_signed
from textdifuse_ros.networks.blocks import conv

LARGEST = 2.0
"""Of the logarithm of a gain; a gain on coded values of e^2 is 80 times the light."""

CELL = 8
DARKEST = 1 / 255
INPUTS = 12
"""Brightness and three colours: of a cell, of the image's mean, and of its norm."""
COLOR_SCALE = 5.0
"""Colours differ by tenths where brightness differs by units; both matter as much."""


class LightEstimate(nn.Module):
    """Gains of red, green and blue of a whole image: a mean over all cells, weighed by how much each one can tell.

    The confidence-weighted mean is that of FC4 (Hu, Wang, Lin, CVPR 2017). What goes in are logarithms, in which light
    is an addend: brightness and colour of each cell, of the whole image's mean (grey world) and of its 6-norm (shades
    of grey), which lamps and sky dominate. Computed in float32: an error of one per cent is a visible cast.

    :param hidden: channels in which each cell decides
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        last = conv(hidden, 4, kernel=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.cells = nn.Sequential(conv(INPUTS, hidden), nn.SiLU(), conv(hidden, hidden), nn.SiLU(), last)

    def forward(self, seen: Tensor) -> Tensor:
        """:param seen: float32 [N, 3, H, W] in [-1, 1], luma and twice the chroma, H and W multiples of 8
        :returns: float32 [N, 3, 1, 1] in (e^-2, e^2), on coded values; 1 before training
        """
        rgb = _rgb(seen).clamp(DARKEST, 1)
        cells = F.avg_pool2d(rgb, CELL).log()
        norm = rgb.pow(6).mean((2, 3), keepdim=True).log() / 6
        parts = [part for colors in (cells, cells.mean((2, 3), keepdim=True), norm) for part in _split(colors)]
        told_of = torch.cat([part.expand(-1, -1, *cells.shape[2:]) for part in parts], 1)
        # Autocast knows no meta device, on which cost is counted.
        with torch.autocast("cuda" if seen.is_cuda else "cpu", enabled=False):
            told = self.cells(told_of).flatten(2)
        gains = (told[:, :3] * told[:, 3:].softmax(-1)).sum(-1)
        return (LARGEST * torch.tanh(gains)).exp()[:, :, None, None]


def relit(seen: Tensor, gains: Tensor) -> Tensor:
    """An image whose red, green and blue are multiplied by gains, clipped at white.

    :param seen: float32 [N, 3, H, W] in [-1, 1], luma and twice the chroma
    :param gains: float32 [N, 3, 1, 1], on coded values
    :returns: like ``seen``
    """
    luma, chroma = rgb_to_ycbcr((_rgb(seen) * gains).clamp(0, 1))
    return torch.cat((unit_to_signed(luma), 2 * chroma), 1)


def color_of(gains: Tensor) -> Tensor:
    """The colour of gains [N, 3, 1, 1] without their brightness: their geometric mean becomes 1."""
    return gains / gains.log().mean(1, keepdim=True).exp()


def best_gains(seen: Tensor, truth: Tensor) -> Tensor:
    """The gains that bring an image nearest to another one, by least squares: what the estimate should say.

    :param seen: float32 [N, 3, H, W] in [-1, 1], luma and twice the chroma; ``truth`` likewise
    :returns: float32 [N, 3, 1, 1] in (e^-2, e^2)
    """
    rgb, due = _rgb(seen), _rgb(truth)
    gains = (rgb * due).mean((2, 3), keepdim=True) / rgb.square().mean((2, 3), keepdim=True).clamp(min=DARKEST**2)
    return gains.clamp(math.exp(-LARGEST), math.exp(LARGEST))


def light_error(gains: Tensor, best: Tensor) -> Tensor:
    """How wrong estimated gains [N, 3, 1, 1] are: of their logarithms, brightness and colour apart; a scalar."""
    wrong = torch.cat(_split(gains.log() - best.log()), 1)
    return F.smooth_l1_loss(wrong, torch.zeros_like(wrong), beta=0.2)


def _split(logarithms: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 3, h, w] to brightness [N, 1, h, w] and colour [N, 3, h, w], each about as large as the other."""
    brightness = logarithms.mean(1, keepdim=True)
    return brightness, COLOR_SCALE * (logarithms - brightness)


def _rgb(seen: Tensor) -> Tensor:
    return ycbcr_to_rgb(signed_to_unit(seen[:, :1]), seen[:, 1:] / 2)
