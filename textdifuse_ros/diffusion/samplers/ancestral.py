"""Ancestral sampling: equations 5 to 7 (DDPM; with a learned variance iDDPM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.posterior import p_mean_variance
from textdifuse_ros.diffusion.samplers.base import NoiseSource, SamplerState, draw_noise
from textdifuse_ros.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Ancestral:
    """Draw from p(z_prev | z), with the denoiser's learned variance or else ``beta~``. The last step adds no noise."""

    uses_variance: ClassVar[bool] = True

    def step(
        self, state: SamplerState, denoised: Denoised, schedule: NoiseSchedule, generator: NoiseSource | None
    ) -> SamplerState:
        """See :meth:`textdifuse_ros.diffusion.samplers.base.Sampler.step`."""
        if state.index == 0:
            return SamplerState(denoised.x0.to(state.z.dtype), -1)
        p = p_mean_variance(denoised, state.z, state.index, schedule)
        z = p.mean + torch.exp(0.5 * p.log_variance) * draw_noise(state.z.shape, generator, state.z)
        return SamplerState(z, state.index - 1)
