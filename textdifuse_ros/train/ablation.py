"""Ablation: variants of the method that each lack one part, as in the paper.

All variants start from the same weights and are trained alike on the same crops in the same order. The encoder is
frozen; the decoder is trained, and so is the fusion control where there is one. The control starts from new weights,
because the fixed rules have no training either. The paper freezes the decoder too. A fixed rule then leaves nothing to
train, and the result mostly measures how a decoder handles features it was never trained on (a sum is twice as large);
and a decoder trained with ``z_t`` cannot learn to work without it. With the decoder trained in every variant, the rows
differ by the named part alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import CropBatch
from textdifuse_ros.diffusion.denoiser import Denoiser
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser
from textdifuse_ros.networks.drive import DriveNetworks, LumaNetwork
from textdifuse_ros.networks.encoder import Pyramid
from textdifuse_ros.train.batches import signed_pair
from textdifuse_ros.train.control import ControlStage
from textdifuse_ros.train.fusion_losses import GRADIENT_WEIGHT, fusion_loss
from textdifuse_ros.train.objective import OBJECTIVES, Objective

Rule = Callable[[Tensor, Tensor], Tensor]


def variance_rule(visible: Tensor, infrared: Tensor) -> Tensor:
    """Weight the sources of each channel by their variances over the image.

    :param visible: features of the visible image, [N, C, H, W]
    :param infrared: features of the infrared image, like it
    """
    first, second = visible.var((2, 3), keepdim=True), infrared.var((2, 3), keepdim=True)
    weight = first / (first + second + 1e-12)
    return weight * visible + (1 - weight) * infrared


RULES: dict[str, Rule] = {
    "max": torch.maximum,
    "add": torch.add,
    "mean": lambda visible, infrared: (visible + infrared) / 2,
    "variance": variance_rule,
}


@dataclass(frozen=True)
class Variant:
    """The method without one part.

    :ivar meaning: one line for people
    :ivar rule: replacement of the fusion control, a key of :data:`RULES`; "" keeps the control
    :ivar intensity: whether equation (9) is in the loss
    :ivar gradient: whether equation (10) is
    :ivar diffusion: whether there is a ``z_t``; else one pass of the decoder at ``z_t = 0``
    """

    meaning: str
    rule: str = ""
    intensity: bool = True
    gradient: bool = True
    diffusion: bool = True

    def apply(self, networks: DriveNetworks) -> None:
        """Change networks so that they fuse as the variant does.

        :param networks: changed in place
        """
        luma: nn.Module = networks.luma
        if self.rule:
            luma.control = FixedControl(self.rule)
        if not self.diffusion:
            luma.decoder = WithoutNoise(networks.luma.decoder)


VARIANTS = {
    "full": Variant("the complete method: fusion control, equations (9) and (10), diffusion"),
    "rule_max": Variant("the larger feature in place of the fusion control", rule="max"),
    "rule_add": Variant("the sum of the features in place of the fusion control", rule="add"),
    "rule_mean": Variant("the mean of the features in place of the fusion control", rule="mean"),
    "rule_variance": Variant("features weighed by their variance in place of the fusion control", rule="variance"),
    "no_gradient": Variant("the loss without its gradient term, equation (10)", gradient=False),
    "no_intensity": Variant("the loss without its intensity term, equation (9)", intensity=False),
    "no_diffusion": Variant("an autoencoder: the decoder sees no z_t and runs once", diffusion=False),
}


class FixedControl(nn.Module):
    """A fixed rule in place of the fusion control, the same at every level.

    :param rule: a key of :data:`RULES`
    """

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.rule = RULES[rule]

    def forward(self, visible: Pyramid, infrared: Pyramid) -> Pyramid:
        """Fuse the features of the ``visible`` and the ``infrared`` image."""
        return tuple(self.rule(x, y) for x, y in zip(visible, infrared, strict=True))

    def weigh_sources(self, visible: Pyramid, infrared: Pyramid) -> tuple[Pyramid, Pyramid]:
        """Return two terms whose sum is the fused pyramid, as :meth:`.FusionControl.weigh_sources` does.

        A rule has no terms per source: the first one is the whole result, the second one is zero.

        :param visible: features of the visible image
        :param infrared: features of the infrared image
        """
        fused = self(visible, infrared)
        return fused, tuple(torch.zeros_like(level) for level in fused)


class WithoutNoise(nn.Module):
    """A decoder whose ``z_t`` and timestep are always 0.

    :param decoder: a :class:`.Decoder`
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, features: Pyramid, z_t: Tensor, timestep: Tensor, *, variance: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """See :class:`.Decoder` for ``features``, ``z_t``, ``timestep`` and ``variance``."""
        output: tuple[Tensor, Tensor | None] = self.decoder(
            features, torch.zeros_like(z_t), torch.zeros_like(timestep), variance=variance
        )
        return output


class OnePass:
    """Objective without diffusion: the error of a single pass."""

    def __call__(
        self,
        denoiser: Denoiser,
        truth: Tensor,
        error: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        *,
        variance: bool = True,
    ) -> dict[str, Tensor]:
        """See :class:`.Objective`."""
        return {"loss": error(denoiser(torch.zeros_like(truth), 0).x0).mean()}


def _renew_control(networks: DriveNetworks, seed: int) -> None:
    """Reset the fusion control to untrained weights."""
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(seed)
        new = LumaNetwork(networks.config).control
    networks.luma.control.load_state_dict(new.state_dict())


class AblationStage:
    """Training of a variant on aligned pairs; equations (9) to (11).

    :param variant: to train
    :param config: parameters of the run
    :param networks: on their device; the fusion control is reset
    """

    shapes = ControlStage.shapes

    def __init__(self, variant: Variant, config: TrainConfig, networks: DriveNetworks) -> None:
        self.variant = variant
        self.networks = networks.luma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.objective: Objective = OBJECTIVES[config.objective](self.schedule) if variant.diffusion else OnePass()
        # The networks keep all their parts, so that the checkpoint of any variant loads like any other.
        _renew_control(networks, config.seed)
        self.control: nn.Module = FixedControl(variant.rule) if variant.rule else self.networks.control
        self.decoder: nn.Module = self.networks.decoder if variant.diffusion else WithoutNoise(self.networks.decoder)
        self.parameters = [*self.networks.decoder.parameters(), *self.control.parameters()]

    def __call__(self, batch: CropBatch, generator: torch.Generator) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = signed_pair(batch)
        fused = self.control(*self.networks.encode_pair(visible, infrared))
        denoiser = FeatureDenoiser(self.decoder, fused, self.schedule, clip=False)  # type: ignore[arg-type]
        stand_in = torch.maximum(visible_truth, infrared_truth)
        intensity, gradient = float(self.variant.intensity), GRADIENT_WEIGHT * self.variant.gradient

        def error(x0: Tensor) -> Tensor:
            return fusion_loss(x0, visible_truth, infrared_truth, intensity=intensity, gradient=gradient)

        return self.objective(denoiser, stand_in, error, generator, variance=False)
