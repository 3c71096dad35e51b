"""What the diffusion of every stage is trained for: the few-step objective, or iDDPM's.

Few steps: the network is trained on the four timesteps that it will run on (one and two steps use a subset of them),
each batch at two: the highest, where a run starts from noise, and a random lower one. The lower ``z_t`` is made either
from the truth, as in equation (1), or from the network's own estimate with the same noise, as DDIM would have arrived
there; what it sees at run time is the latter, and training on the truth alone makes its steps drift apart.

Hybrid: equation (1) as it stands, one timestep of all a sample. Its simple term compares the noise, so an estimate
counts by its signal-to-noise ratio: the highest timesteps, on which a run of few steps depends, hardly count.
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
    """Makes ``z_t`` from a truth, has it denoised, and says how wrong that was."""

    def __call__(
        self,
        denoiser: Denoiser,
        truth: Tensor,
        error: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        *,
        variance: bool = True,
    ) -> dict[str, Tensor]:
        """The loss of a batch.

        :param denoiser: sees the batch's condition
        :param truth: float32 [N, C, H, W] in [-1, 1], from which z_t is made
        :param error: [N, C, H, W] estimate to [N] loss
        :param variance: the truth is the very image that is due, so the variational term of equation (1), which
            teaches the variance, holds
        :param generator: on the truth's device
        :returns: scalars: ``loss`` (to minimise), and others to log
        """
        ...


class FewStepObjective:
    """:param schedule: the full schedule
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
            # A fourth of the batch teaches the variance well enough, and the bound is dear to compute.
            some = slice(0, (count + 3) // 4)
            terms = vlb_term(_part(first, some), truth[some], z_last[some], last, self.schedule)
            # The bound holds for z_t made from the truth only.
            lower = vlb_term(_part(later, some), truth[some], z[some], index[some], self.schedule)
            vlb = (terms + torch.where(own[some], 0.0, lower)).mean()
            loss = loss + VLB_WEIGHT * STEPS * vlb
        return {"loss": loss, "first": first_error.detach(), "later": later_error.detach(), "vlb": vlb.detach()}


def _part(denoised: Denoised, some: slice) -> Denoised:
    variance = None if denoised.variance is None else denoised.variance[some]
    return Denoised(denoised.x0[some], denoised.eps[some], variance)


class HybridObjective:
    """:param schedule: the full schedule"""

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

        Without variance there is no noise that is known to be right, and ``error`` of the estimate Z^_0 at a random
        timestep is the loss, as of equations (9) to (11).
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
