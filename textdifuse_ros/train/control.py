"""The stage of the fusion control."""

from __future__ import annotations

import torch
from torch import Tensor

from textdifuse_ros.data.crops import Sample, Shape
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.networks.encoder import Pyramid
from textdifuse_ros.train.batches import signed_pair
from textdifuse_ros.train.fusion_losses import fusion_loss
from textdifuse_ros.train.objective import FewStepObjective, Objective


class ControlStage:
    """The fusion control, everything else frozen, on aligned pairs (equations 9 to 11)."""

    shapes = (Shape(160, 12, 12, pairs=True), Shape(192, 8, 8, pairs=True))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.luma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.objective: Objective = FewStepObjective(self.schedule)
        self.parameters = list(self.networks.control.parameters())

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = signed_pair(batch)
        features = self.networks.encode_pair(visible, infrared)
        return self._fusion(features, visible_truth, infrared_truth, generator)

    def _fusion(
        self, features: tuple[Pyramid, Pyramid], visible: Tensor, infrared: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        fused = self.networks.control(*features)
        denoiser = FeatureDenoiser(self.networks.decoder, fused, self.schedule, clip=False)
        # No truth is known for a fused image; the maximum that equation (9) asks for stands in when z_t is made.
        stand_in = torch.maximum(visible, infrared)
        return self.objective(
            denoiser, stand_in, lambda x0: fusion_loss(x0, visible, infrared), generator, variance=False
        )
