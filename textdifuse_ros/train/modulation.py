"""The text re-modulation stage."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from textdifuse_ros.data.crops import BatchShape, CropBatch
from textdifuse_ros.data.masks import MAX_OBJECTS, random_masks
from textdifuse_ros.diffusion.denoiser import Denoised, Denoiser, make_denoised
from textdifuse_ros.diffusion.process import reverse
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.samplers.ddim import Ddim
from textdifuse_ros.diffusion.schedule import NoiseSchedule, by_name
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.fusion.denoise import FeatureDenoiser, luma_prior
from textdifuse_ros.fusion.emphasis import HIGH, LOW, amounts, soften
from textdifuse_ros.image.gradients import sobel
from textdifuse_ros.image.ranges import signed_to_unit, unit_to_signed
from textdifuse_ros.networks.drive import DriveNetworks
from textdifuse_ros.networks.encoder import Pyramid
from textdifuse_ros.train.batches import signed_pair
from textdifuse_ros.train.emphasis import emphasized
from textdifuse_ros.train.objective import STEPS, FewStepObjective, Objective

GRADIENT_WEIGHT = 0.1
CONTRAST_WEIGHT = 2.0


class ModulationStage:
    """The re-modulation on aligned pairs with random objects, everything else frozen; equations (12) and (13).

    The plain image is fused by the frozen networks, in ``STEPS`` steps.

    :param networks: whose re-modulation is trained

    :raises ConfigError: the networks have no re-modulation
    """

    shapes = (BatchShape(192, 8, 8, pairs=True),)

    def __init__(self, networks: DriveNetworks) -> None:
        if networks.modulation is None:
            raise ConfigError("the networks", "with a re-modulation", "without one")
        self.networks, self.modulation = networks.luma, networks.modulation
        self.schedule = by_name(networks.config.schedule, networks.config.timesteps)
        self.prior = luma_prior(networks.config, self.schedule)
        self.objective: Objective = FewStepObjective(self.schedule)
        self.parameters = list(self.modulation.parameters())

    def __call__(self, batch: CropBatch, generator: torch.Generator) -> dict[str, Tensor]:
        visible, infrared, visible_truth, infrared_truth = signed_pair(batch)
        with torch.no_grad():
            features = self.networks.encode_pair(visible, infrared)
            sources = self.networks.control.weigh_sources(*features)
            first, plain = self._plain(sources, visible.shape, generator)
        objects = _Objects.draw(plain, visible_truth, infrared_truth, generator)
        context = self.modulation.context(*sources, objects.amounts, first)
        modulated = self.modulation(*sources, objects.amounts, context)
        denoiser = _Blending(
            FeatureDenoiser(self.networks.decoder, modulated, self.schedule, prior=self.prior, clip=False),
            plain,
            objects.soft,
            self.schedule,
        )
        return self.objective(denoiser, objects.target, objects.error, generator, variance=False)

    def _plain(
        self, sources: tuple[Pyramid, Pyramid], shape: torch.Size, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Fuse without a text; return the estimates of the first and the last step, float32 [N, 1, H, W]."""
        fused = tuple(x + y for x, y in zip(*sources, strict=True))
        denoiser = FeatureDenoiser(self.networks.decoder, fused, self.schedule, prior=self.prior)
        start = torch.randn(shape, generator=generator, device=sources[0][0].device)
        schedule = respace(self.schedule, space_timesteps(len(self.schedule), STEPS))
        first, *_, last = reverse(denoiser, start, schedule, Ddim())
        return first.x0, last.z


class _Blending:
    """Denoiser that applies equation (13) to the estimates of a whole batch."""

    def __init__(self, modulated: Denoiser, plain: Tensor, soft: Tensor, schedule: NoiseSchedule) -> None:
        self.modulated, self.plain, self.soft, self.schedule = modulated, plain, soft, schedule

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        x0 = self.plain + self.soft * (self.modulated(z_t, t).x0 - self.plain)
        return make_denoised("x0", x0, z_t, t, self.schedule)


class _Objects:
    """The random objects of a batch.

    :ivar amounts: float32 [N, 3, H, W]: how much to brighten, darken and fade
    :ivar soft: the mask M, float32 [N, 1, H, W]
    :ivar target: float32 [N, 1, H, W] in [-1, 1]
    :ivar shares: float32 [N, K, H, W]: 1 / pixel count in the pixels of object k; 0 where an image has fewer than K
    """

    def __init__(self, amounts: Tensor, soft: Tensor, target: Tensor, shares: Tensor) -> None:
        self.amounts, self.soft, self.target, self.shares = amounts, soft, target, shares

    @classmethod
    def draw(cls, plain: Tensor, visible: Tensor, infrared: Tensor, generator: torch.Generator) -> _Objects:
        """Draw objects and their targets for plain fused images, from the clean sources."""
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator, device=plain.device)))
        images = [signed_to_unit(part)[:, 0].float().cpu().numpy() for part in (plain, visible, infrared)]
        parts = [_draw_one(fused, luma, thermal, rng) for fused, luma, thermal in zip(*images, strict=True)]
        stacks = (torch.from_numpy(np.stack(stack)).to(plain.device) for stack in zip(*parts, strict=True))
        requested, soft, target, shares = stacks
        return cls(requested, soft, plain + soft * (unit_to_signed(target) - plain), shares)

    def error(self, x0: Tensor) -> Tensor:
        """Mean error over the objects of an image, [N, 1, H, W] to [N].

        It adds the errors of pixels, of gradients, and of each object's mean, on which its measured contrast depends:
        the pixel error alone favors small changes where the direction is uncertain.
        """
        estimate, target = signed_to_unit(x0), signed_to_unit(self.target)
        apart = (estimate - target).abs() + GRADIENT_WEIGHT * (sobel(estimate) - sobel(target)).abs()
        pixels = (apart * self.shares).sum((2, 3))
        means = ((estimate - target) * self.shares).sum((2, 3)).abs()
        there = (self.shares.amax((2, 3)) > 0).sum(1).clamp(min=1)
        return (pixels + CONTRAST_WEIGHT * means).sum(1) / there


def _draw_one(
    plain: np.ndarray, visible: np.ndarray, infrared: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return amounts, mask M, target in [0, 1] and shares of one crop, float32 [*, H, W] each."""
    masks = random_masks(visible, infrared, rng)
    common = _strength(rng)
    chosen = [common if rng.random() < 0.7 else _strength(rng) for _ in masks]
    strengths, apart = np.zeros_like(plain), np.zeros(plain.shape, np.uint16)
    shares = np.zeros((MAX_OBJECTS, *plain.shape), np.float32)
    for n, (mask, strength) in enumerate(zip(masks, chosen, strict=True)):
        strengths[mask], apart[mask] = strength, n + 1
        shares[n][mask] = 1 / np.count_nonzero(mask)
    target = emphasized(plain, infrared, masks, chosen)
    return amounts(plain, infrared, strengths, apart), soften(strengths)[None], target[None], shares


def _strength(rng: np.random.Generator) -> float:
    """Draw a strength, often 1, which is the default of a text."""
    return 1.0 if rng.random() < 0.25 else float(rng.uniform(LOW, HIGH))
