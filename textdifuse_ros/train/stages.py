"""The stages of training: what each one sees, and which part of the networks learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.data.crops import Sample, Shape
from textdifuse_ros.diffusion.losses import few_step_loss
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser
from textdifuse_ros.fusion.losses import fusion_loss
from textdifuse_ros.image.color import rgb_to_ycbcr
from textdifuse_ros.image.gradients import sobel
from textdifuse_ros.image.ranges import signed_to_unit, unit_to_signed
from textdifuse_ros.networks.drive import INFRARED, VISIBLE, DriveNetworks
from textdifuse_ros.networks.encoder import Pyramid
from textdifuse_ros.train.objective import FewStepObjective

GRADIENT_WEIGHT = 0.1


class Stage(Protocol):
    """One stage.

    :ivar shapes: the batches it is fed
    :ivar parameters: what learns; everything else stays as it is
    """

    @property
    def shapes(self) -> tuple[Shape, ...]: ...

    @property
    def parameters(self) -> list[nn.Parameter]: ...

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a batch: scalars, ``loss`` is minimised."""
        ...


class LumaStage:
    """Restoration of luma: visible and infrared, each alone, through one encoder (equation 1)."""

    shapes = (Shape(160, 12, 4), Shape(128, 18, 6), Shape(160, 12, 4), Shape(256, 5, 2))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.luma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.objective = FewStepObjective(self.schedule)
        self.parameters = [*self.networks.encoder.parameters(), *self.networks.decoder.parameters()]

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        visible, _ = rgb_to_ycbcr(batch.visible)
        target, _ = rgb_to_ycbcr(batch.visible_target)
        seen = unit_to_signed(torch.cat((visible, batch.infrared)))
        truth = unit_to_signed(torch.cat((target, batch.infrared_target)))
        kinds = [VISIBLE] * visible.shape[0] + [INFRARED] * batch.infrared.shape[0]
        features = self.networks.encoder(seen, torch.tensor(kinds, device=seen.device))
        denoiser = FeatureDenoiser(self.networks.decoder, features, self.schedule, clip=False)
        return self.objective(denoiser, truth, lambda x0: _restoration_error(x0, truth), generator)


class ChromaStage:
    """Restoration of chroma at half the picture's size, conditioned on the degraded luma and chroma."""

    shapes = (Shape(256, 14, 0), Shape(320, 9, 0))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.chroma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.objective = FewStepObjective(self.schedule)
        self.parameters = list(self.networks.parameters())

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        luma, chroma = rgb_to_ycbcr(F.avg_pool2d(batch.visible, 2))
        _, target = rgb_to_ycbcr(F.avg_pool2d(batch.visible_target, 2))
        seen, truth = torch.cat((unit_to_signed(luma), 2 * chroma), 1), 2 * target
        features = self.networks.encoder(seen)
        denoiser = FeatureDenoiser(self.networks.decoder, features, self.schedule, base=seen[:, 1:], clip=False)
        return self.objective(denoiser, truth, lambda x0: (x0 - truth).abs().flatten(1).mean(1), generator)


class ControlStage:
    """The fusion control, everything else frozen, on aligned pairs (equations 9 to 11)."""

    shapes = (Shape(160, 12, 12, pairs=True), Shape(192, 8, 8, pairs=True))

    def __init__(self, networks: DriveNetworks) -> None:
        self.networks = networks.luma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.objective = FewStepObjective(self.schedule)
        self.parameters = list(self.networks.control.parameters())

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = _signed_pair(batch)
        features = self.networks.encode_pair(visible, infrared)
        return self._fusion(features, visible_truth, infrared_truth, generator)

    def _fusion(
        self, features: tuple[Pyramid, Pyramid], visible: Tensor, infrared: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        fused = self.networks.control(*features)
        denoiser = FeatureDenoiser(self.networks.decoder, fused, self.schedule, clip=False)
        # No truth is known for a fused picture; the maximum that equation (9) asks for stands in when z_t is made.
        stand_in = torch.maximum(visible, infrared)
        return self.objective(
            denoiser, stand_in, lambda x0: fusion_loss(x0, visible, infrared), generator, variance=False
        )


class JointStage(ControlStage):
    """A short fine-tune of fusion control and decoder together, the encoder frozen.

    The decoder has only seen features of one source before; of two at once it prints the grid of its pixel shuffle.
    Each source alone stays half of the task, so that it goes on restoring.
    """

    def __init__(self, networks: DriveNetworks) -> None:
        super().__init__(networks)
        self.parameters = [*self.networks.control.parameters(), *self.networks.decoder.parameters()]

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = _signed_pair(batch)
        features = self.networks.encode_pair(visible, infrared)
        fusion = self._fusion(features, visible_truth, infrared_truth, generator)
        truth = torch.cat((visible_truth, infrared_truth))
        both = tuple(torch.cat(level) for level in zip(*features, strict=True))
        denoiser = FeatureDenoiser(self.networks.decoder, both, self.schedule, clip=False)
        restoration = self.objective(denoiser, truth, lambda x0: _restoration_error(x0, truth), generator)
        return {
            "loss": fusion["loss"] + restoration["loss"],
            "fusion": fusion["loss"].detach(),
            "restoration": restoration["loss"].detach(),
        }


STAGES: dict[str, Callable[[DriveNetworks], Stage]] = {
    "luma": LumaStage,
    "chroma": ChromaStage,
    "control": ControlStage,
    "joint": JointStage,
}


def _signed_pair(batch: Sample) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Visible luma and infrared as seen, then both as they should be, [N, 1, H, W] in [-1, 1]."""
    visible, _ = rgb_to_ycbcr(batch.visible)
    target, _ = rgb_to_ycbcr(batch.visible_target)
    return (
        unit_to_signed(visible),
        unit_to_signed(batch.infrared),
        unit_to_signed(target),
        unit_to_signed(batch.infrared_target),
    )


def _restoration_error(x0: Tensor, truth: Tensor) -> Tensor:
    return few_step_loss(signed_to_unit(x0), signed_to_unit(truth), sobel, GRADIENT_WEIGHT)
