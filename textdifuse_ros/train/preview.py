"""Sheets of sample images: input, output of the averaged weights in four steps, and target."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.data.crops import BatchShape, CropBatch, CropBatches
from textdifuse_ros.diffusion.process import reverse, start_noise
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.samplers import by_name as sampler_by_name
from textdifuse_ros.diffusion.schedule import by_name as schedule_by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser, luma_prior
from textdifuse_ros.image.color import rgb_to_ycbcr, ycbcr_to_rgb
from textdifuse_ros.image.ranges import signed_to_unit, to_bytes, unit_to_signed
from textdifuse_ros.image.sheets import contact_sheet
from textdifuse_ros.networks.drive import SENSOR_INDEX, DriveNetworks
from textdifuse_ros.networks.encoder import Pyramid
from textdifuse_ros.sensors import INFRARED, VISIBLE
from textdifuse_ros.train.batches import signed_pair

STEPS = 4
MAX_CROPS = 4
"""Crops of each source on a sheet."""

NUMBER = 2**40
"""Number of the batch shown; no run trains on it."""


class Preview:
    """Draws sheets of the same crops throughout a run, so that they can be compared.

    :param stage: name of the stage
    :param pack: path of the image pack
    :param shapes: batch shapes of the stage
    :param seed: of the run
    :param recipe: degradations of the run
    """

    def __init__(self, stage: str, pack: str, shapes: tuple[BatchShape, ...], seed: int, recipe: str) -> None:
        self.stage, self.seed = stage, seed
        first = shapes[0]
        few = BatchShape(first.size, min(MAX_CROPS, first.visible), min(MAX_CROPS, first.infrared), first.pairs)
        self.batch = CropBatches(pack, (few,), seed, NUMBER, 1, recipe)[0]

    @torch.no_grad()
    def sheet(self, networks: nn.Module, device: torch.device) -> np.ndarray:
        """Draw one sheet, uint8 [H, W, 3] RGB.

        :param networks: :class:`.DriveNetworks`; left unchanged
        :param device: of the networks
        """
        assert isinstance(networks, DriveNetworks)
        batch = CropBatch(*(part.to(device) for part in self.batch))
        draw = {"luma": self._luma, "chroma": self._chroma}.get(self.stage, self._fused)
        columns = draw(networks, batch)
        rows = [
            [to_bytes(image[index : index + 1]) for image in columns.values()]
            for index in range(len(next(iter(columns.values()))))
        ]
        return contact_sheet(rows, list(columns), cell_width=2 * self.batch.visible.shape[-1])

    def _luma(self, networks: DriveNetworks, batch: CropBatch) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = signed_pair(batch)
        sensors = [SENSOR_INDEX[VISIBLE]] * len(visible) + [SENSOR_INDEX[INFRARED]] * len(infrared)
        degraded = torch.cat((visible, infrared))
        features = networks.luma.encoder(degraded, torch.tensor(sensors, device=degraded.device))
        output = self._sample(networks, features, degraded.shape)
        truth = torch.cat((visible_truth, infrared_truth))
        return {name: signed_to_unit(x) for name, x in (("input", degraded), ("output", output), ("target", truth))}

    def _chroma(self, networks: DriveNetworks, batch: CropBatch) -> dict[str, Tensor]:
        """Combine the target's luma with the restored chroma: this stage restores chroma alone."""
        luma, chroma = rgb_to_ycbcr(F.avg_pool2d(batch.visible, 2))
        degraded = networks.chroma.white_balance(torch.cat((unit_to_signed(luma), 2 * chroma), 1))
        output = networks.chroma(degraded).clamp(-1, 1) / 2
        bright, _ = rgb_to_ycbcr(F.avg_pool2d(batch.visible_target, 2))
        return {
            "input": batch.visible,
            "output (the target's luma)": ycbcr_to_rgb(bright, output),
            "target": batch.visible_target,
        }

    def _fused(self, networks: DriveNetworks, batch: CropBatch) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = signed_pair(batch)
        features = networks.luma.fuse_features(visible, infrared)
        output = self._sample(networks, features, visible.shape)
        columns = {
            "visible": visible,
            "infrared": infrared,
            "fused": output,
            "visible target": visible_truth,
            "infrared target": infrared_truth,
        }
        return {name: signed_to_unit(x) for name, x in columns.items()}

    def _sample(self, networks: DriveNetworks, features: Pyramid, shape: torch.Size) -> Tensor:
        full = schedule_by_name(networks.config.schedule, networks.config.timesteps)
        schedule = respace(full, space_timesteps(len(full), STEPS))
        denoiser = FeatureDenoiser(networks.luma.decoder, features, full, prior=luma_prior(networks.config, full))
        start = start_noise(shape, torch.Generator().manual_seed(self.seed), features[0].device)
        *_, last = reverse(denoiser, start, schedule, sampler_by_name("ddim"))
        return last.z.clamp(-1, 1)
