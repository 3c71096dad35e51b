"""The few-step objective that all stages share.

The network is trained on the four timesteps that it will run on (one and two steps use a subset of them), each batch
at two: the highest, where a run starts from noise, and a random lower one. The lower ``z_t`` is made either from the
truth, as in equation (1), or from the network's own estimate with the same noise, as DDIM would have arrived
there; what it sees at run time is the latter, and training on the truth alone makes its steps drift apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, Denoiser
from textdifuse_ros.diffusion.losses import VLB_WEIGHT, vlb_term
from textdifuse_ros.diffusion.process import q_sample
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.schedule import NoiseSchedule

STEPS = 4
OWN_ESTIMATE = 0.6
"""Share of the samples whose lower z_t comes from the network's own estimate."""


class FewStepObjective:
    """:param schedule: the full schedule"""

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
        """The loss of a batch.

        :param denoiser: sees the batch's condition
        :param truth: float32 [N, C, H, W] in [-1, 1], from which z_t is made
        :param error: [N, C, H, W] estimate to [N] loss
        :param variance: add lambda times the variational term of equation (1), which teaches the variance
        :return: scalars ``loss`` (to minimise), ``first``, ``later`` and ``vlb`` (to log)
        """
        count = truth.shape[0]
        noise = torch.randn(truth.shape, generator=generator)
        own = torch.rand(count, generator=generator) < OWN_ESTIMATE
        index = torch.randint(0, STEPS - 1, (count,), generator=generator)
        noise, own, index = noise.to(truth.device), own.to(truth.device), index.to(truth.device)

        last = STEPS - 1
        z_last = q_sample(truth, last, noise, self.schedule)
        first = denoiser(z_last, self.schedule.timesteps[last])
        guess = torch.where(own[:, None, None, None], first.x0.detach(), truth)
        z = q_sample(guess, index, noise, self.schedule)
        timesteps = torch.tensor(self.schedule.timesteps, device=truth.device)
        later = denoiser(z, timesteps[index])

        first_error, later_error = error(first.x0).mean(), error(later.x0).mean()
        loss = first_error + later_error
        vlb = torch.zeros((), device=truth.device)
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
