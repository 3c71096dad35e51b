"""DPM-Solver++ 2M (Lu et al. 2022, algorithm 2): second order, one denoiser call a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.samplers.base import NoiseSource, SamplerState
from textdifuse_ros.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class DpmSolver:
    """Multistep solver of the probability-flow ODE in data prediction. Deterministic.

    The first step, which has no history, is of first order. So is the last, whatever the number of steps: it ends at
    abar = 1, where lambda is infinite and the update is x0 itself (extrapolating x0 there would sharpen its error).
    """

    uses_variance: ClassVar[bool] = False

    def step(
        self, state: SamplerState, denoised: Denoised, schedule: NoiseSchedule, generator: NoiseSource | None
    ) -> SamplerState:
        """See :meth:`textdifuse_ros.diffusion.samplers.base.Sampler.step`; the generator is not used."""
        x0 = denoised.x0.to(state.z.dtype)
        if state.index == 0:
            return SamplerState(x0, -1)
        here, there = schedule.half_log_snr[state.index], schedule.half_log_snr[state.index - 1]
        h = float(there - here)
        data = x0
        if state.previous_x0 is not None and state.previous_half_log_snr is not None:
            ratio = float(here - state.previous_half_log_snr) / h
            data = x0 + (x0 - state.previous_x0) / (2.0 * ratio)
        abar, abar_prev = float(schedule.abar[state.index]), float(schedule.abar_prev[state.index])
        shrink = math.sqrt((1.0 - abar_prev) / (1.0 - abar))
        z = shrink * state.z - math.sqrt(abar_prev) * math.expm1(-h) * data
        return SamplerState(z, state.index - 1, x0, float(here))
