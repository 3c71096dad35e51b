"""The forward process, the Gaussians of a reverse step, and the open reverse loop.

Coefficients come from float64 tables; the loop runs in float32, or in float64 if it starts in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from textdifuse_ros.checks import describe
from textdifuse_ros.diffusion.denoiser import Denoised, Denoiser
from textdifuse_ros.diffusion.posterior import Gaussian, coefficient, p_mean_variance, q_posterior
from textdifuse_ros.diffusion.prediction import lift
from textdifuse_ros.diffusion.samplers.base import NoiseSource, Sampler, SamplerState, draw_noise
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.errors import InputError

__all__ = ["Gaussian", "ReverseStep", "p_mean_variance", "q_posterior", "q_sample", "reverse", "start_noise"]


def q_sample(x0: Tensor, index: int | Tensor, noise: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The forward process, ``sqrt(abar) x0 + sqrt(1 - abar) noise``.

    :param x0: float [N, C, H, W] in [-1, 1], 16 bits are lifted to float32
    :param index: step index in ``schedule`` (the timestep, if it is a full one), one for all or int64 [N]
    :param noise: standard normal, like x0
    :param schedule: full or respaced
    """
    x0, noise = lift(x0), lift(noise)
    signal = coefficient(np.sqrt(schedule.abar), index, x0)
    return signal * x0 + coefficient(np.sqrt(1.0 - schedule.abar), index, x0) * noise


def start_noise(shape: Sequence[int], generator: NoiseSource, device: torch.device | str = "cpu") -> Tensor:
    """Draw the standard normal noise that a process starts from; float32.

    :param shape: [N, C, H, W]
    :param generator: drawn from on its own device
    :param device: of the result
    """
    return draw_noise(shape, generator, torch.empty(0, device=device))


@dataclass(frozen=True)
class ReverseStep:
    """The result of one step of the reverse process. The loop continues with these tensors: do not write to them.

    :ivar index: index of the step in the schedule, counting down to 0
    :ivar timestep: original timestep at which the denoiser was called
    :ivar z: float32 (or wider) [N, C, H, W] after the step; after index 0 it is the result, x0
    :ivar denoised: the denoiser's view of the z before the step
    """

    index: int
    timestep: int
    z: Tensor
    denoised: Denoised

    @property
    def x0(self) -> Tensor:
        """The estimate of the clean signal in this step, like ``z``."""
        return self.denoised.x0.to(self.z.dtype)


def reverse(
    denoiser: Denoiser,
    start: Tensor,
    schedule: NoiseSchedule,
    sampler: Sampler,
    generator: NoiseSource | None = None,
) -> Iterator[ReverseStep]:
    """Run the reverse process, yielding each step; the last one's ``z`` is the result.

    Progress, preview and cancelling (stop iterating) belong to the caller; so does ``torch.no_grad``, since training on
    the model's own trajectory needs gradients.

    :param denoiser: called once a step with z and the original timestep
    :param start: float [N, C, H, W] noised to the schedule's last timestep; never written to
    :param schedule: the (respaced) schedule to run, one denoiser call a step
    :param sampler: the rule of one step
    :param generator: source of noise; may be None where the sampler draws none
    :raises InputError: the denoiser's x0 has another shape than z; noise is needed and there is no generator
    """
    state = SamplerState.start(start, schedule)
    while not state.done:
        timestep = schedule.timesteps[state.index]
        denoised = denoiser(state.z, timestep)
        if denoised.x0.shape != state.z.shape:
            raise InputError("the denoiser's x0", f"of z's shape {list(state.z.shape)}", describe(denoised.x0))
        following = sampler.step(state, denoised, schedule, generator)
        yield ReverseStep(state.index, timestep, following.z, denoised)
        state = following
