"""The Gaussians of one reverse step: q(z_prev | z, x0) and the model's p(z_prev | z)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.prediction import lift, per_sample
from textdifuse_ros.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Gaussian:
    """An independent normal distribution for each pixel.

    :ivar mean: float32 (or wider) [N, C, H, W]
    :ivar log_variance: natural logarithm, broadcasts to the mean
    """

    mean: Tensor
    log_variance: Tensor


def coefficient(values: np.ndarray, index: int | Tensor, like: Tensor) -> Tensor:
    """Look up a row of a schedule in float64, and convert it for multiplication with ``like``.

    :param values: float64 [S]
    :param index: step index, one for all or int64 [N]
    :param like: [N, ...]
    :returns: tensor of ``like``'s type and device that broadcasts to it
    """
    found = per_sample(values, index, like.ndim)
    # Filled on the device: a copy to it would synchronize.
    return found.to(like) if isinstance(found, Tensor) else like.new_full((), found)


def q_posterior(x0: Tensor, z_t: Tensor, index: int | Tensor, schedule: NoiseSchedule) -> Gaussian:
    """q(z_prev | z_t, x0), DDPM equations 6 and 7.

    The logarithm of the variance is clipped at index 0 (:attr:`NoiseSchedule.posterior_log_variance`).

    :param x0: float32 [N, C, H, W], the clean signal or an estimate
    :param z_t: likewise, noised
    :param index: step index of z_t in ``schedule``, one for all or int64 [N]
    :param schedule: the (respaced) schedule
    """
    x0, z_t = lift(x0), lift(z_t)
    mean = (
        coefficient(schedule.posterior_mean_x0, index, z_t) * x0
        + coefficient(schedule.posterior_mean_z, index, z_t) * z_t
    )
    return Gaussian(mean, coefficient(schedule.posterior_log_variance, index, z_t))


def p_mean_variance(denoised: Denoised, z_t: Tensor, index: int | Tensor, schedule: NoiseSchedule) -> Gaussian:
    """p(z_prev | z_t), equations 5 and 6.

    The mean of equation 5 equals the mean of q(z_prev | z_t, x0) at the estimated x0. It is computed in that form,
    which respects a clipped x0 and avoids the division by a small ``sqrt(alpha)``.

    Equation 6 interpolates the logarithm of the variance between ``beta~`` and ``beta``. A denoiser that knows the
    variance of x0 gives the exact value instead, by the law of total variance (Bao et al. 2022, "Analytic-DPM"):
    ``beta~ + c^2 Var(x0 | z_t)``, where c is the coefficient of x0 in the mean. It holds for every respacing, whereas
    a learned fraction holds for the schedule that it was learned on. Without either the variance is ``beta~``.

    :param denoised: the denoiser's view of z_t
    :param z_t: float32 [N, C, H, W], noised
    :param schedule: the (respaced) schedule
    :param index: step index of z_t in ``schedule``, one for all or int64 [N]
    """
    q = q_posterior(denoised.x0, z_t, index, schedule)
    if denoised.x0_variance is not None:
        variance = lift(denoised.x0_variance)
        share = coefficient(schedule.posterior_mean_x0**2, index, variance)
        return Gaussian(q.mean, (coefficient(schedule.posterior_variance, index, variance) + share * variance).log())
    if denoised.variance is None:
        return q
    v = lift(denoised.variance)
    log_variance = v * coefficient(schedule.log_betas, index, v) + (1 - v) * q.log_variance
    return Gaussian(q.mean, log_variance)
