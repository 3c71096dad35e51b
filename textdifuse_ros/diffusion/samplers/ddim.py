"""DDIM (Song, Meng & Ermon 2021, equation 12)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from textdifuse_ros.checks import check_number
from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.samplers.base import NoiseSource, SamplerState, draw_noise
from textdifuse_ros.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Ddim:
    """The first-order solver of the probability-flow ODE; ``eta`` adds fresh noise.

    :ivar eta: 0 draws none (deterministic); 1 is ancestral sampling with ``beta~``
    :raises ConfigError: eta is outside [0, 1]
    """

    eta: float = 0.0

    uses_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0, 1)

    def step(
        self, state: SamplerState, denoised: Denoised, schedule: NoiseSchedule, generator: NoiseSource | None
    ) -> SamplerState:
        """See :meth:`textdifuse_ros.diffusion.samplers.base.Sampler.step`."""
        if state.index == 0:
            return SamplerState(denoised.x0.to(state.z.dtype), -1)
        abar_prev = float(schedule.abar_prev[state.index])
        variance = self.eta**2 * float(schedule.posterior_variance[state.index])
        x0, eps = denoised.x0.to(state.z.dtype), denoised.eps.to(state.z.dtype)
        z = math.sqrt(abar_prev) * x0 + math.sqrt(max(1.0 - abar_prev - variance, 0.0)) * eps
        if variance > 0.0:
            z = z + math.sqrt(variance) * draw_noise(z.shape, generator, z)
        return SamplerState(z, state.index - 1)
