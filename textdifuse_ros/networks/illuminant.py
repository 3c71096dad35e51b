"""The illuminant of an image, estimated for the image as a whole.

A wrong white balance, the color of a lamp and too little light all multiply each channel by one number. Three gains per
image undo them at every pixel. A network that corrects pixel by pixel would have to find the same numbers in every
neighborhood, from less evidence.
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
"""Largest logarithm of a gain; a gain of e^2 on coded values is 80 times the light."""

CELL = 8
DARKEST = 1 / 255
INPUTS = 12
"""Brightness and three colors, each of a cell, of the image's mean and of its norm."""

COLOR_SCALE = 5.0
"""Colors differ by tenths where brightness differs by units; both matter equally."""


class IlluminantEstimator(nn.Module):
    """Estimates one gain each of red, green and blue: a mean over all cells, weighted by their confidence.

    The confidence-weighted mean is that of FC4 (Hu, Wang, Lin, CVPR 2017). The inputs are logarithms, in which the
    illuminant is an addend: brightness and color of each cell, of the image's mean (grey world) and of its 6-norm
    (shades of grey), which lamps and sky dominate. Computed in float32, since an error of one per cent is a visible
    cast.

    :param hidden: hidden channels
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        last = conv(hidden, 4, kernel=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.cells = nn.Sequential(conv(INPUTS, hidden), nn.SiLU(), conv(hidden, hidden), nn.SiLU(), last)

    def forward(self, image: Tensor) -> Tensor:
        """Estimate the gains.

        :param image: float32 [N, 3, H, W] in [-1, 1], luma and twice the chroma, H and W multiples of 8
        :returns: float32 [N, 3, 1, 1] in (e^-2, e^2), for coded values; 1 before training
        """
        rgb = _rgb(image).clamp(DARKEST, 1)
        cells = F.avg_pool2d(rgb, CELL).log()
        norm = rgb.pow(6).mean((2, 3), keepdim=True).log() / 6
        parts = [part for colors in (cells, cells.mean((2, 3), keepdim=True), norm) for part in _split(colors)]
        inputs = torch.cat([part.expand(-1, -1, *cells.shape[2:]) for part in parts], 1)
        # Autocast does not know the meta device, on which the cost is counted.
        with torch.autocast("cuda" if image.is_cuda else "cpu", enabled=False):
            outputs = self.cells(inputs).flatten(2)
        gains = (outputs[:, :3] * outputs[:, 3:].softmax(-1)).sum(-1)
        return (LARGEST * torch.tanh(gains)).exp()[:, :, None, None]


def apply_gains(image: Tensor, gains: Tensor) -> Tensor:
    """Multiply red, green and blue by gains, clipped at white.

    :param image: float32 [N, 3, H, W] in [-1, 1], luma and twice the chroma
    :param gains: float32 [N, 3, 1, 1], for coded values
    :returns: like ``image``
    """
    luma, chroma = rgb_to_ycbcr((_rgb(image) * gains).clamp(0, 1))
    return torch.cat((unit_to_signed(luma), 2 * chroma), 1)


def normalize_gains(gains: Tensor) -> Tensor:
    """Scale gains to a geometric mean of 1, so that they change color but not brightness.

    :param gains: float32 [N, 3, 1, 1]
    """
    return gains / gains.log().mean(1, keepdim=True).exp()


def best_gains(image: Tensor, truth: Tensor) -> Tensor:
    """The gains that bring an image closest to a reference, by least squares: the target of the estimator.

    :param image: float32 [N, 3, H, W] in [-1, 1], luma and twice the chroma
    :param truth: likewise
    :returns: float32 [N, 3, 1, 1] in (e^-2, e^2)
    """
    rgb, target = _rgb(image), _rgb(truth)
    gains = (rgb * target).mean((2, 3), keepdim=True) / rgb.square().mean((2, 3), keepdim=True).clamp(min=DARKEST**2)
    return gains.clamp(math.exp(-LARGEST), math.exp(LARGEST))


def illuminant_error(gains: Tensor, best: Tensor) -> Tensor:
    """Smooth L1 error of the logarithms of gains, of brightness and color separately; a scalar.

    :param gains: float32 [N, 3, 1, 1], estimated
    :param best: likewise, of :func:`best_gains`
    """
    error = torch.cat(_split(gains.log() - best.log()), 1)
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.2)


def _split(logarithms: Tensor) -> tuple[Tensor, Tensor]:
    """Split [N, 3, h, w] into brightness [N, 1, h, w] and color [N, 3, h, w] of similar magnitude."""
    brightness = logarithms.mean(1, keepdim=True)
    return brightness, COLOR_SCALE * (logarithms - brightness)


def _rgb(image: Tensor) -> Tensor:
    return ycbcr_to_rgb(signed_to_unit(image[:, :1]), image[:, 1:] / 2)
