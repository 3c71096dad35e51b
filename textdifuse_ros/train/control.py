"""The fusion-control stage."""

from __future__ import annotations

import torch
from torch import Tensor

from textdifuse_ros.data.crops import BatchShape, CropBatch
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser, luma_prior
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.train.batches import signed_pair
from textdifuse_ros.train.fusion_losses import fusion_loss
from textdifuse_ros.train.objective import FewStepObjective, Objective


class ControlStage:
    """The fusion control on aligned pairs, everything else frozen; equations (9) to (11).

    :param networks: whose fusion control is trained
    """

    shapes = (BatchShape(160, 12, 12, pairs=True), BatchShape(192, 8, 8, pairs=True))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.luma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.prior = luma_prior(networks.config, self.schedule)
        self.objective: Objective = FewStepObjective(self.schedule)
        self.parameters = list(self.networks.control.parameters())

    def __call__(self, batch: CropBatch, generator: torch.Generator) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = signed_pair(batch)
        fused = self.networks.control(*self.networks.encode_pair(visible, infrared))
        denoiser = FeatureDenoiser(self.networks.decoder, fused, self.schedule, prior=self.prior, clip=False)
        # A fused image has no ground truth; z_t is made from the maximum, the target of equation (9).
        stand_in = torch.maximum(visible_truth, infrared_truth)

        def error(x0: Tensor) -> Tensor:
            return fusion_loss(x0, visible_truth, infrared_truth)

        return self.objective(denoiser, stand_in, error, generator, variance=False)
