"""The luma stage: restoration of single visible and infrared images."""

from __future__ import annotations

import torch

from textdifuse_ros.data.crops import BatchShape, CropBatch
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser, luma_prior
from textdifuse_ros.image.color import rgb_to_ycbcr
from textdifuse_ros.image.ranges import unit_to_signed
from textdifuse_ros.networks.drive import SENSOR_INDEX, DriveNetworks
from textdifuse_ros.sensors import INFRARED, VISIBLE
from textdifuse_ros.train.batches import restoration_error
from textdifuse_ros.train.objective import FewStepObjective, Objective


class LumaStage:
    """Restoration of luma of single visible and infrared images through one encoder; equation (1).

    :param networks: whose luma encoder and decoder are trained
    """

    shapes = (BatchShape(160, 12, 4), BatchShape(128, 18, 6), BatchShape(160, 12, 4), BatchShape(256, 5, 2))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.luma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.prior = luma_prior(networks.config, self.schedule)
        self.objective: Objective = FewStepObjective(self.schedule)
        self.parameters = [*self.networks.encoder.parameters(), *self.networks.decoder.parameters()]

    def __call__(self, batch: CropBatch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        visible, _ = rgb_to_ycbcr(batch.visible)
        target, _ = rgb_to_ycbcr(batch.visible_target)
        degraded = unit_to_signed(torch.cat((visible, batch.infrared)))
        truth = unit_to_signed(torch.cat((target, batch.infrared_target)))
        sensors = [SENSOR_INDEX[VISIBLE]] * visible.shape[0] + [SENSOR_INDEX[INFRARED]] * batch.infrared.shape[0]
        features = self.networks.encoder(degraded, torch.tensor(sensors, device=degraded.device))
        denoiser = FeatureDenoiser(self.networks.decoder, features, self.schedule, prior=self.prior, clip=False)
        return self.objective(denoiser, truth, lambda x0: restoration_error(x0, truth), generator)
