"""Objectives of diffusion training: all steps, few steps, and the hybrid one of iDDPM.

All steps: the network is trained from pure noise, where the stage's own error counts, and at a random timestep, where
the squared error of x0 counts: its minimum is the mean of x0 given z_t, which is what every sampler assumes. The
variance of x0 is trained by its likelihood.

Few-step: the network is trained on the four timesteps of sampling (one and two steps use a subset of them). Each batch
uses two: the highest, where sampling starts from noise, and a random lower one. The lower ``z_t`` is made either from
the truth, as in equation (1), or from the network's own estimate with the same noise, as DDIM would reach it. Sampling
sees the latter; a network trained on the truth alone accumulates errors over its steps.

Hybrid: equation (1), with one timestep out of all per sample. Its simple term compares the noise, which weights an
estimate by its signal-to-noise ratio: the highest timesteps, on which few-step sampling depends, hardly count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, Denoiser
from textdifuse_ros.diffusion.losses import VLB_WEIGHT, hybrid_loss, vlb_term
from textdifuse_ros.diffusion.prior import GaussianPrior
from textdifuse_ros.diffusion.process import q_sample
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.schedule import NoiseSchedule

LATER_WEIGHT = 0.1
LIKELIHOOD_WEIGHT = 0.02
COARSE = 16
"""Side of the cells whose means the estimate from pure noise decides [pixels]."""
QUANTIZATION = (2 / 255) ** 2 / 12
"""Variance of rounding to 8 bits, in units of [-1, 1]."""
STEPS = 4
OWN_ESTIMATE = 0.6
"""Share of the samples whose lower z_t comes from the network's own estimate."""


class Objective(Protocol):
    """Loss of a denoiser: make ``z_t`` from the truth, denoise it, measure the error."""

    def __call__(
        self,
        denoiser: Denoiser,
        truth: Tensor,
        error: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        *,
        variance: bool = True,
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        :param denoiser: conditioned on the batch
        :param truth: float32 [N, C, H, W] in [-1, 1]; z_t is made from it
        :param error: maps an estimate [N, C, H, W] to its loss [N]
        :param generator: on the device of ``truth``
        :param variance: whether to train the variance by the variational term of equation (1); it holds only where
            ``truth`` is the exact target
        :returns: scalars: ``loss`` to minimize, others to log
        """
        ...


class FewStepObjective:
    """The few-step objective.

    :param schedule: the full schedule
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = respace(schedule, space_timesteps(len(schedule), STEPS))

    def __call__(
        self,
        denoiser: Denoiser,
        truth: Tensor,
        error: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        *,
        variance: bool = True,
    ) -> dict[str, Tensor]:
        """See :class:`Objective`; logs ``first`` (from noise), ``later`` and ``vlb``."""
        count = truth.shape[0]
        device = truth.device
        noise = torch.randn(truth.shape, generator=generator, device=device)
        own = torch.rand(count, generator=generator, device=device) < OWN_ESTIMATE
        index = torch.randint(0, STEPS - 1, (count,), generator=generator, device=device)

        last = STEPS - 1
        z_last = q_sample(truth, last, noise, self.schedule)
        first = denoiser(z_last, self.schedule.timesteps[last])
        guess = torch.where(own[:, None, None, None], first.x0.detach(), truth)
        z = q_sample(guess, index, noise, self.schedule)
        timesteps = torch.tensor(self.schedule.timesteps, device=device)
        later = denoiser(z, timesteps[index])

        first_error, later_error = error(first.x0).mean(), error(later.x0).mean()
        loss = first_error + later_error
        vlb = torch.zeros((), device=device)
        if variance:
            # A quarter of the batch suffices to train the variance, and the bound is expensive to compute.
            some = slice(0, (count + 3) // 4)
            terms = vlb_term(_part(first, some), truth[some], z_last[some], last, self.schedule)
            # The bound holds only where z_t was made from the truth.
            lower = vlb_term(_part(later, some), truth[some], z[some], index[some], self.schedule)
            vlb = (terms + torch.where(own[some], 0.0, lower)).mean()
            loss = loss + VLB_WEIGHT * STEPS * vlb
        return {"loss": loss, "first": first_error.detach(), "later": later_error.detach(), "vlb": vlb.detach()}


def _part(denoised: Denoised, some: slice) -> Denoised:
    variance = None if denoised.variance is None else denoised.variance[some]
    return Denoised(denoised.x0[some], denoised.eps[some], variance)


class AllStepsObjective:
    """The objective over all noise levels, for networks with a :class:`.GaussianPrior`.

    The estimate from pure noise is a regression: brightness and coarse structure are decided there. What z_t is made
    from has its coarse structure, and the truth's detail. Later steps therefore draw detail alone; a draw of the
    brightness would make a video flicker.

    :param schedule: the full schedule
    :param prior: of the networks
    """

    def __init__(self, schedule: NoiseSchedule, prior: GaussianPrior) -> None:
        self.schedule, self.prior = schedule, prior

    def __call__(
        self,
        denoiser: Denoiser,
        truth: Tensor,
        error: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        *,
        variance: bool = True,
    ) -> dict[str, Tensor]:
        """See :class:`Objective`; logs ``first`` (from noise), ``later`` and ``likelihood``.

        ``truth`` may be a sample of what the process is to produce while ``error`` compares with something else, as in
        the joint stage.
        """
        last = len(self.schedule) - 1
        noise = torch.randn(truth.shape, generator=generator, device=truth.device)
        first = denoiser(noise, last)
        first_error = error(first.x0).mean()

        anchored = truth + _coarse(first.x0.detach() - truth)
        index = torch.randint(0, last, truth.shape[:1], generator=generator, device=truth.device)
        noise = torch.randn(truth.shape, generator=generator, device=truth.device)
        later = denoiser(q_sample(anchored, index, noise, self.schedule), index)
        typical = self.prior.typical_variance(index, truth)
        later_error = ((later.x0 - anchored).square() / typical).mean()

        loss = first_error + LATER_WEIGHT * later_error
        likelihood = torch.zeros((), device=truth.device)
        if variance:
            pairs = ((first, truth), (later, anchored))
            likelihood = torch.stack([_negative_likelihood(estimate, clean) for estimate, clean in pairs]).mean()
            loss = loss + LIKELIHOOD_WEIGHT * likelihood
        return {
            "loss": loss,
            "first": first_error.detach(),
            "later": later_error.detach(),
            "likelihood": likelihood.detach(),
        }


def _coarse(image: Tensor) -> Tensor:
    """The structure above ``COARSE`` pixels of an image [N, C, H, W]."""
    small = F.avg_pool2d(image, COARSE, ceil_mode=True)
    small = F.avg_pool2d(small, 3, 1, 1, count_include_pad=False)
    return F.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)


def _negative_likelihood(estimate: Denoised, clean: Tensor) -> Tensor:
    """Gaussian negative log-likelihood of the clean signal, without its constant; trains the variance alone."""
    assert estimate.x0_variance is not None
    squared = (estimate.x0.detach() - clean).square() + QUANTIZATION
    return 0.5 * (squared / estimate.x0_variance + estimate.x0_variance.log()).mean()


class HybridObjective:
    """The hybrid objective of iDDPM (Nichol & Dhariwal 2021), equation (1).

    :param schedule: the full schedule
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def __call__(
        self,
        denoiser: Denoiser,
        truth: Tensor,
        error: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        *,
        variance: bool = True,
    ) -> dict[str, Tensor]:
        """See :class:`Objective`; logs ``simple`` and ``vlb``.

        Without ``variance`` the true noise is unknown, and the loss is the ``error`` of the estimate Z^_0 at a random
        timestep, as in equations (9) to (11).
        """
        noise = torch.randn(truth.shape, generator=generator, device=truth.device)
        index = torch.randint(0, len(self.schedule), truth.shape[:1], generator=generator, device=truth.device)
        z = q_sample(truth, index, noise, self.schedule)
        denoised = denoiser(z, index)
        if not variance:
            loss = error(denoised.x0).mean()
            return {"loss": loss, "simple": loss.detach()}
        parts = hybrid_loss(denoised, truth, noise, z, index, self.schedule)
        return {"loss": parts.total.mean(), "simple": parts.simple.mean().detach(), "vlb": parts.vlb.mean().detach()}


OBJECTIVES: dict[str, Callable[[NoiseSchedule], Objective]] = {
    "few_step": FewStepObjective,
    "hybrid": HybridObjective,
}
