"""Objectives of diffusion training: few-step, and the hybrid one of iDDPM.

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
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, Denoiser
from textdifuse_ros.diffusion.losses import VLB_WEIGHT, hybrid_loss, vlb_term
from textdifuse_ros.diffusion.process import q_sample
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.schedule import NoiseSchedule

STEPS = 4
OWN_ESTIMATE = 0.6


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
    :param own_estimate: share of the samples whose lower z_t comes from the network's own estimate
    """

    def __init__(self, schedule: NoiseSchedule, own_estimate: float = OWN_ESTIMATE) -> None:
        self.schedule = respace(schedule, space_timesteps(len(schedule), STEPS))
        self.own_estimate = own_estimate

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
        own = torch.rand(count, generator=generator, device=device) < self.own_estimate
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
