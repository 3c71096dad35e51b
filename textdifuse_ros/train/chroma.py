"""The stage of chroma."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.data.crops import Sample, Shape
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser
from textdifuse_ros.image.color import rgb_to_ycbcr
from textdifuse_ros.image.ranges import unit_to_signed
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.networks.illuminant import apply_gains, best_gains, illuminant_error
from textdifuse_ros.train.objective import FewStepObjective, Objective

CAST_SHARE = 0.25
"""Of the crops, that get a further cast: of all crops so few have a strong one that the best answer were never to see
any."""

OWN_ESTIMATE = 1.0
"""Estimates of colour shrink towards what is seen. Trained on z_t made from the truth as well, the later steps would
take what colour there is in z_t for the truth's, and overdo it."""

SODIUM = (0.0, -0.15, -0.46)
"""Logarithms of a sodium lamp's gains on coded values; light differs from daylight mostly along this line."""

SOFTNESS = 0.05
"""In chroma times two, whose range is [-1, 1]."""


class ChromaStage:
    """Restoration of chroma at half the image's size, conditioned on the degraded luma and chroma."""

    shapes = (Shape(256, 14, 0), Shape(320, 9, 0))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.chroma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.objective: Objective = FewStepObjective(self.schedule, OWN_ESTIMATE)
        self.parameters = list(self.networks.parameters())

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        seen, truth = (_half(image) for image in (batch.visible, batch.visible_target))
        light = self.networks.light
        wrong = torch.zeros((), device=seen.device)
        if light is not None:
            seen = _cast(seen, generator)
            gains = light(seen)
            wrong = illuminant_error(gains, best_gains(seen, truth))
            # The light learns from the light alone, and the rest what the light leaves to be done.
            seen = apply_gains(seen, gains.detach())
        features = self.networks.encoder(seen)
        denoiser = FeatureDenoiser(self.networks.decoder, features, self.schedule, base=seen[:, 1:], clip=False)
        losses = self.objective(denoiser, truth[:, 1:], lambda x0: _error(x0, truth[:, 1:]), generator)
        return {**losses, "loss": losses["loss"] + wrong, "light": wrong.detach()}


def _cast(seen: Tensor, generator: torch.Generator) -> Tensor:
    """Some of the crops under another light, from bluish to sodium; none becomes brighter."""
    count = seen.shape[0]
    device = seen.device
    chosen, along = torch.rand(2, count, 1, generator=generator, device=device)
    spread = torch.randn(count, 3, generator=generator, device=device)
    logarithms = (1.9 * along - 0.6) * torch.tensor(SODIUM, device=device) + 0.1 * spread
    logarithms = logarithms - logarithms.amax(1, keepdim=True)
    gains = torch.where(chosen < CAST_SHARE, logarithms, 0.0).exp()
    return apply_gains(seen, gains[:, :, None, None])


def _half(image: Tensor) -> Tensor:
    """Luma and twice the chroma at half the size, [N, 3, S / 2, S / 2] in [-1, 1]."""
    luma, chroma = rgb_to_ycbcr(F.avg_pool2d(image, 2))
    return torch.cat((unit_to_signed(luma), 2 * chroma), 1)


def _error(x0: Tensor, truth: Tensor) -> Tensor:
    """Charbonnier's error, quadratic below ``SOFTNESS``, in units of it; [N].

    With L1 the best answer to an uncertain cast is none at all, and the networks learn to be silent.
    """
    return (((x0 - truth) / SOFTNESS).square() + 1).sqrt().sub(1).flatten(1).mean(1)
