"""The parts of the method taken away one at a time, as in the paper's ablation.

Every variant begins with the same weights, sees the same crops in the same order, and is trained alike: its decoder
learns, and its fusion control where it has one, from new, for no rule has had a training before either; the encoder is
frozen. The paper freezes the decoder too. Then a fixed rule in place of the fusion control leaves nothing to train, and
what is measured is mostly how a decoder meets features that it has never seen (a sum has twice their size); and a
decoder trained with ``z_t`` could not learn to do without. With the decoder learning everywhere, the rows differ by the
part that is named and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import Sample
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
    """Each channel's sources weighed by their variances over the image, ``[N, C, H, W]`` each."""
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
    """The method without one of its parts.

    :ivar rule: in place of the fusion control, a name of :data:`RULES`; "" for the control
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
        """Make networks fuse as the variant does."""
        luma: nn.Module = networks.luma
        if self.rule:
            luma.control = FixedControl(self.rule)
        if not self.diffusion:
            luma.decoder = WithoutNoise(networks.luma.decoder)


VARIANTS = {
    "full": Variant("the method as it is: fusion control, equations (9) and (10), diffusion"),
    "rule_max": Variant("the larger feature in place of the fusion control", rule="max"),
    "rule_add": Variant("the sum of the features in place of the fusion control", rule="add"),
    "rule_mean": Variant("the mean of the features in place of the fusion control", rule="mean"),
    "rule_variance": Variant("features weighed by their variance in place of the fusion control", rule="variance"),
    "no_gradient": Variant("the loss without its gradient term, equation (10)", gradient=False),
    "no_intensity": Variant("the loss without its intensity term, equation (9)", intensity=False),
    "no_diffusion": Variant("an autoencoder: the decoder sees no z_t and runs once", diffusion=False),
}


class FixedControl(nn.Module):
    """A rule in place of the fusion control, the same at every level."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.rule = RULES[rule]

    def forward(self, visible: Pyramid, infrared: Pyramid) -> Pyramid:
        """Two pyramids to the fused one."""
        return tuple(self.rule(x, y) for x, y in zip(visible, infrared, strict=True))


class WithoutNoise(nn.Module):
    """A decoder that is shown neither ``z_t`` nor the timestep."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, features: Pyramid, z_t: Tensor, timestep: Tensor, *, variance: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """See :class:`.Decoder`."""
        found: tuple[Tensor, Tensor | None] = self.decoder(
            features, torch.zeros_like(z_t), torch.zeros_like(timestep), variance=variance
        )
        return found


class OnePass:
    """What is left of an objective without diffusion: the error of one pass."""

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
    """Give the fusion control the weights of one before training."""
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(seed)
        new = LumaNetwork(networks.config).control
    networks.luma.control.load_state_dict(new.state_dict())


class AblationStage:
    """A variant being trained: equations (9) to (11) on aligned pairs."""

    shapes = ControlStage.shapes

    def __init__(self, variant: Variant, config: TrainConfig, networks: DriveNetworks) -> None:
        self.variant = variant
        self.networks = networks.luma
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.objective: Objective = OBJECTIVES[config.objective](self.schedule) if variant.diffusion else OnePass()
        # The networks themselves stay whole: a checkpoint of any variant loads as any other.
        _renew_control(networks, config.seed)
        self.control: nn.Module = FixedControl(variant.rule) if variant.rule else self.networks.control
        self.decoder: nn.Module = self.networks.decoder if variant.diffusion else WithoutNoise(self.networks.decoder)
        self.parameters = [*self.networks.decoder.parameters(), *self.control.parameters()]

    def __call__(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = signed_pair(batch)
        fused = self.control(*self.networks.encode_pair(visible, infrared))
        denoiser = FeatureDenoiser(self.decoder, fused, self.schedule, clip=False)  # type: ignore[arg-type]
        stand_in = torch.maximum(visible_truth, infrared_truth)
        intensity, gradient = float(self.variant.intensity), GRADIENT_WEIGHT * self.variant.gradient

        def error(x0: Tensor) -> Tensor:
            return fusion_loss(x0, visible_truth, infrared_truth, intensity=intensity, gradient=gradient)

        return self.objective(denoiser, stand_in, error, generator, variance=False)
