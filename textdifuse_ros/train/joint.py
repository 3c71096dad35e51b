"""The joint stage: fusion and restoration together."""

from __future__ import annotations

import torch
from torch import Tensor

from textdifuse_ros.data.crops import BatchShape, CropBatch
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser, luma_prior
from textdifuse_ros.image.blur import gaussian_blur
from textdifuse_ros.image.color import rgb_to_ycbcr
from textdifuse_ros.image.ranges import signed_to_unit, unit_to_signed
from textdifuse_ros.networks.drive import SENSOR_INDEX, DriveNetworks
from textdifuse_ros.networks.encoder import Pyramid
from textdifuse_ros.sensors import VISIBLE
from textdifuse_ros.train.batches import restoration_error, signed_pair
from textdifuse_ros.train.fusion_losses import (
    LOOKS,
    STRUCTURE_WEIGHT,
    Look,
    structure_error,
    vivid_edges,
    vivid_loss,
    vivid_target,
    without_cold_sky,
)
from textdifuse_ros.train.natural_target import hidden_structure, need_of_infrared
from textdifuse_ros.train.objective import AllStepsObjective, FewStepObjective, Objective

EXPOSED = (40 / 255, 215 / 255)
"""Smoothed visible luma that counts as well exposed."""
RESTORATION_WEIGHT = 0.5
TONED = 0.5
"""Share of the infrared images that get another tone curve: thermal cameras scale differently."""


class JointStage:
    """Encoder, fusion control and decoder of luma, on :func:`.vivid_loss`.

    Before this stage the decoder has seen features of one source only. Trained on fused features alone, it shows the
    grid of its pixel shuffle and restores single sources less well. Therefore restoration remains part of the loss: of
    one source of each pair and, in every fourth batch, of visible images without an infrared one.

    :param networks: whose luma part is trained
    :param look: parameters of the target image
    """

    shapes = (
        BatchShape(160, 12, 12, pairs=True),
        BatchShape(256, 5, 5, pairs=True),
        BatchShape(160, 12, 12, pairs=True),
        BatchShape(192, 14, 0),
    )

    def __init__(self, networks: DriveNetworks, look: Look = LOOKS["road"]) -> None:
        self.look = look
        self.networks = networks.luma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.prior = luma_prior(networks.config, self.schedule)
        self.objective: Objective = FewStepObjective(self.schedule)
        parts = (self.networks.encoder, self.networks.control, self.networks.decoder)
        self.parameters = [parameter for part in parts for parameter in part.parameters()]

    def __call__(self, batch: CropBatch, generator: torch.Generator) -> dict[str, Tensor]:
        if not batch.infrared.numel():
            restoration = self._restore_visible(batch, generator)
            return {f"alone_{name}" if name != "loss" else name: value for name, value in restoration.items()}
        visible, infrared, visible_truth, infrared_truth = signed_pair(_toned(batch, generator))
        features = self.networks.encode_pair(visible, infrared)
        fusion = self._fuse(features, visible, visible_truth, infrared_truth, generator)

        use_visible = torch.rand(visible.shape[0], 1, 1, 1, generator=generator, device=visible.device) < 0.5
        single: Pyramid = tuple(torch.where(use_visible, a, b) for a, b in zip(*features, strict=True))
        truth = torch.where(use_visible, visible_truth, infrared_truth)
        restoration = self._restore(single, truth, generator, variance=self._all_steps)
        parts = {f"fusion_{name}": value for name, value in fusion.items() if name != "loss"}
        parts |= {f"restoration_{name}": value for name, value in restoration.items() if name != "loss"}
        return {"loss": fusion["loss"] + RESTORATION_WEIGHT * restoration["loss"], **parts}

    def _fuse(
        self,
        features: tuple[Pyramid, Pyramid],
        degraded: Tensor,
        visible: Tensor,
        infrared: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        clean = self._fuse_clean(visible, infrared, generator) if self._all_steps else None
        denoiser = FeatureDenoiser(
            self.networks.decoder, self.networks.control(*features), self.schedule, prior=self.prior, clip=False
        )
        degraded, visible, infrared = (signed_to_unit(image) for image in (degraded, visible, infrared))
        shown = without_cold_sky(visible, infrared, self.look)
        need = need_of_infrared(visible, hidden_structure(degraded, visible)) if self.look.natural else None
        target, edges = vivid_target(visible, shown, self.look, need), vivid_edges(visible, shown, self.look)
        day = None if need is None else _well_exposed(visible) * (1 - need)

        def error(x0: Tensor) -> Tensor:
            loss = vivid_loss(x0, visible, infrared, shown, target, edges, self.look)
            if day is not None:
                loss = loss + STRUCTURE_WEIGHT * structure_error(signed_to_unit(x0.float()), visible, day)
            return loss

        # Without a process of its own there is no sample of the fused image to learn the variance from.
        truth = unit_to_signed(target) if clean is None else clean
        return self.objective(denoiser, truth, error, generator, variance=self._all_steps)

    @property
    def _all_steps(self) -> bool:
        return isinstance(self.objective, AllStepsObjective)

    @torch.no_grad()
    def _fuse_clean(self, visible: Tensor, infrared: Tensor, generator: torch.Generator) -> Tensor:
        """Fuse the clean pair from pure noise: what the process of the degraded pair is to produce."""
        features = self.networks.control(*self.networks.encode_pair(visible, infrared))
        denoiser = FeatureDenoiser(self.networks.decoder, features, self.schedule, prior=self.prior, variance=False)
        noise = torch.randn(visible.shape, generator=generator, device=visible.device)
        return denoiser(noise, len(self.schedule) - 1).x0

    def _restore(
        self, features: Pyramid, truth: Tensor, generator: torch.Generator, *, variance: bool
    ) -> dict[str, Tensor]:
        denoiser = FeatureDenoiser(self.networks.decoder, features, self.schedule, prior=self.prior, clip=False)
        return self.objective(denoiser, truth, lambda x0: restoration_error(x0, truth), generator, variance=variance)

    def _restore_visible(self, batch: CropBatch, generator: torch.Generator) -> dict[str, Tensor]:
        visible, _ = rgb_to_ycbcr(batch.visible)
        target, _ = rgb_to_ycbcr(batch.visible_target)
        kinds = torch.full(visible.shape[:1], SENSOR_INDEX[VISIBLE], device=visible.device)
        features = self.networks.encoder(unit_to_signed(visible), kinds)
        return self._restore(features, unit_to_signed(target), generator, variance=True)


def _well_exposed(visible: Tensor) -> Tensor:
    smooth = gaussian_blur(visible, 3)
    return ((smooth >= EXPOSED[0]) & (smooth <= EXPOSED[1])).float()


def _toned(batch: CropBatch, generator: torch.Generator) -> CropBatch:
    """Darken some infrared images and their targets by a gamma, and compress their range."""
    draws = torch.rand(4, batch.infrared.shape[0], 1, 1, 1, generator=generator, device=batch.infrared.device)
    gamma = torch.exp((draws[1] * 2 - 0.6) * 0.8)  # 0.62 to 3.1
    top = 1 - 0.5 * draws[2] ** 2
    toned = draws[0] < TONED
    return batch._replace(
        infrared=torch.where(toned, top * batch.infrared**gamma, batch.infrared),
        infrared_target=torch.where(toned, top * batch.infrared_target**gamma, batch.infrared_target),
    )
