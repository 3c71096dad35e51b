"""The chroma stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.data.crops import BatchShape, CropBatch
from textdifuse_ros.image.color import rgb_to_ycbcr
from textdifuse_ros.image.ranges import unit_to_signed
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.networks.illuminant import apply_gains, best_gains, illuminant_error

CAST_SHARE = 0.25
"""Share of the crops that get an additional cast. Strong casts are so rare otherwise that the network learns to ignore
them."""

SODIUM = (0.0, -0.15, -0.46)
"""Logarithms of a sodium lamp's gains on coded values; illuminants differ from daylight mostly along this line."""

SOFTNESS = 0.05
"""Error up to which the loss is quadratic, in twice the chroma, range [-1, 1]."""


class ChromaStage:
    """Restoration of chroma at half the image size from the degraded luma and chroma: a regression.

    :param networks: whose chroma part is trained
    """

    shapes = (BatchShape(256, 14, 0), BatchShape(320, 9, 0))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.chroma
        self.parameters = list(self.networks.parameters())

    def __call__(self, batch: CropBatch, generator: torch.Generator) -> dict[str, Tensor]:
        degraded, truth = (_half(image) for image in (batch.visible, batch.visible_target))
        illuminant = self.networks.light
        error = torch.zeros((), device=degraded.device)
        if illuminant is not None:
            degraded = _cast(degraded, generator)
            gains = illuminant(degraded)
            error = illuminant_error(gains, best_gains(degraded, truth))
            # The illuminant estimator learns from its own error alone; the rest of the network corrects what remains.
            degraded = apply_gains(degraded, gains.detach())
        restoration = _error(self.networks(degraded), truth[:, 1:]).mean()
        return {"loss": restoration + error, "restoration": restoration.detach(), "light": error.detach()}


def _cast(degraded: Tensor, generator: torch.Generator) -> Tensor:
    """Put some of the crops under another illuminant, from bluish to sodium; none becomes brighter."""
    count = degraded.shape[0]
    device = degraded.device
    chosen, along = torch.rand(2, count, 1, generator=generator, device=device)
    spread = torch.randn(count, 3, generator=generator, device=device)
    logarithms = (1.9 * along - 0.6) * torch.tensor(SODIUM, device=device) + 0.1 * spread
    logarithms = logarithms - logarithms.amax(1, keepdim=True)
    gains = torch.where(chosen < CAST_SHARE, logarithms, 0.0).exp()
    return apply_gains(degraded, gains[:, :, None, None])


def _half(image: Tensor) -> Tensor:
    """Return luma and twice the chroma at half the size, [N, 3, S / 2, S / 2] in [-1, 1]."""
    luma, chroma = rgb_to_ycbcr(F.avg_pool2d(image, 2))
    return torch.cat((unit_to_signed(luma), 2 * chroma), 1)


def _error(x0: Tensor, truth: Tensor) -> Tensor:
    """Charbonnier loss [N], quadratic below ``SOFTNESS`` and in units of it.

    Under L1 the optimum for an uncertain cast is no correction, and the networks learn to do nothing.
    """
    return (((x0 - truth) / SOFTNESS).square() + 1).sqrt().sub(1).flatten(1).mean(1)
