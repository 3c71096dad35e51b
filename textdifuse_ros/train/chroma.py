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
from textdifuse_ros.train.objective import FewStepObjective, Objective

SOFTNESS = 0.05
"""In chroma times two, whose range is [-1, 1]."""


class ChromaStage:
    """Restoration of chroma at half the picture's size, conditioned on the degraded luma and chroma."""

    shapes = (Shape(256, 14, 0), Shape(320, 9, 0))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.chroma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.objective: Objective = FewStepObjective(self.schedule)
        self.parameters = list(self.networks.parameters())

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        luma, chroma = rgb_to_ycbcr(F.avg_pool2d(batch.visible, 2))
        _, target = rgb_to_ycbcr(F.avg_pool2d(batch.visible_target, 2))
        seen, truth = torch.cat((unit_to_signed(luma), 2 * chroma), 1), 2 * target
        features = self.networks.encoder(seen)
        denoiser = FeatureDenoiser(self.networks.decoder, features, self.schedule, base=seen[:, 1:], clip=False)
        return self.objective(denoiser, truth, lambda x0: _error(x0, truth), generator)


def _error(x0: Tensor, truth: Tensor) -> Tensor:
    """Charbonnier's error, quadratic below ``SOFTNESS``, in units of it; [N].

    With L1 the best answer to an uncertain cast is none at all, and the networks learn to be silent.
    """
    return (((x0 - truth) / SOFTNESS).square() + 1).sqrt().sub(1).flatten(1).mean(1)
