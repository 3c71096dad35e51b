"""The rule of the authors' program: the mean of the posterior, without noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.posterior import q_posterior
from textdifuse_ros.diffusion.samplers.base import NoiseSource, SamplerState
from textdifuse_ros.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class PosteriorMean:
    """Step to the mean of q(z_prev | z, x0): ancestral sampling without its noise, equation (7) with z = 0."""

    uses_variance: ClassVar[bool] = False

    def step(
        self, state: SamplerState, denoised: Denoised, schedule: NoiseSchedule, generator: NoiseSource | None
    ) -> SamplerState:
        """See :meth:`textdifuse_ros.diffusion.samplers.base.Sampler.step`; the generator is not used."""
        if state.index == 0:
            return SamplerState(denoised.x0.to(state.z.dtype), -1)
        return SamplerState(q_posterior(denoised.x0, state.z, state.index, schedule).mean, state.index - 1)
