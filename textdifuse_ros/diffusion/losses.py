"""Training losses of the diffusion: iDDPM's hybrid loss (equation 1) and the few-step objective.

Likelihood terms are in *nats* per dimension (divide by ln 2 for bits). Every loss is float32 [N], the mean over C, H
and W of each sample, so that a caller can weight samples or log them by timestep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.posterior import p_mean_variance, q_posterior
from textdifuse_ros.diffusion.prediction import lift
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.errors import ConfigError

VLB_WEIGHT = 0.001


@dataclass(frozen=True)
class HybridLoss:
    """The parts of equation 1, each [N].

    :ivar total: ``simple + weight * S * vlb``
    :ivar simple: mean squared error of eps or x0
    :ivar vlb: the variational bound's term of this step [nats per dimension]; 0 where no variance is learned
    """

    total: Tensor
    simple: Tensor
    vlb: Tensor


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N1 || N2) of normal distributions, element by element [nats]. The arguments broadcast.

    :param mean1: float, mean of N1
    :param log_variance1: float, natural logarithm of the variance of N1
    :param mean2: float, mean of N2
    :param log_variance2: float, natural logarithm of the variance of N2
    """
    difference = log_variance1 - log_variance2
    return 0.5 * (difference.exp() - 1.0 - difference + (mean1 - mean2) ** 2 * torch.exp(-log_variance2))


def discretized_gaussian_nll(x: Tensor, mean: Tensor, log_variance: Tensor, levels: int = 256) -> Tensor:
    """Negative log-likelihood of the bin of x under a normal distribution, element by element [nats].

    [-1, 1] is divided into ``levels`` bins around evenly spaced values; the outermost bins reach to infinity, so that
    the probabilities of all levels sum to 1 (DDPM, equation 13).

    :param x: values of the levels in [-1, 1], e.g. ``pixel / 127.5 - 1``
    :param mean: of the distribution, like ``x``
    :param log_variance: natural logarithm of its variance, broadcasts to ``x``
    :param levels: number of bins
    """
    half = 1.0 / (levels - 1)
    scale = torch.exp(-0.5 * log_variance)
    low, high = (x - half - mean) * scale, (x + half - mean) * scale
    # Where the mean lies below the bin, both ends are mirrored into the left tail: the distribution function keeps its
    # precision near 0 and loses it near 1.
    mirror = low + high > 0
    left, right = torch.where(mirror, -high, low), torch.where(mirror, -low, high)
    log_right = torch.special.log_ndtr(right)
    gap = (torch.special.log_ndtr(left) - log_right).clamp(max=-1e-12)
    inside = log_right + torch.log(-torch.expm1(gap))
    lowest, highest = x < -1.0 + half, x > 1.0 - half
    tail = torch.special.log_ndtr(torch.where(lowest, high, -low))
    return -torch.where(lowest | highest, tail, inside)


def vlb_term(denoised: Denoised, x0: Tensor, z_t: Tensor, index: int | Tensor, schedule: NoiseSchedule) -> Tensor:
    """One step's term of the variational bound, [N] [nats per dimension].

    KL(q(z_prev | z_t, x0) || p(z_prev | z_t)) for index > 0 and -log p(x0 | z_t) on 256 levels at index 0. The mean of
    p is detached: this term trains the variance only, the simple one the mean.

    :param denoised: the network's view of z_t
    :param x0: the clean signal, float [N, C, H, W] in [-1, 1]
    :param z_t: float [N, C, H, W], x0 noised to ``index`` of ``schedule``
    :param index: step index, one for all or int64 [N]
    :param schedule: the (respaced) schedule
    """
    x0, z_t = lift(x0), lift(z_t)
    q = q_posterior(x0, z_t, index, schedule)
    p = p_mean_variance(denoised, z_t, index, schedule)
    mean, log_variance = p.mean.detach(), p.log_variance.expand_as(x0)
    kl = normal_kl(q.mean, q.log_variance, mean, log_variance)
    nll = discretized_gaussian_nll(x0, mean, log_variance)
    last = torch.as_tensor(index, device=x0.device).reshape(-1) == 0
    return torch.where(last, _per_sample_mean(nll), _per_sample_mean(kl))


def hybrid_loss(
    denoised: Denoised,
    x0: Tensor,
    noise: Tensor,
    z_t: Tensor,
    index: int | Tensor,
    schedule: NoiseSchedule,
    *,
    weight: float = VLB_WEIGHT,
    simple: Literal["eps", "x0"] = "eps",
) -> HybridLoss:
    """The hybrid loss of iDDPM, equation 1.

    L_vlb is the *sum* over the S steps of the schedule; with the step drawn uniformly, S times one term estimates it.
    (iDDPM's code uses bits with the same weight of 0.001.)

    :param denoised: the network's view of z_t; without variance the bound's term is 0
    :param x0: the clean signal, float [N, C, H, W] in [-1, 1]
    :param noise: the noise in z_t, like ``x0``
    :param z_t: float [N, C, H, W], x0 noised to ``index`` of ``schedule``
    :param index: step index, one for all or int64 [N]
    :param schedule: the (respaced) schedule
    :param weight: lambda of ``L_simple + lambda L_vlb``
    :param simple: ``eps`` or ``x0``, compared in the simple term
    :raises ConfigError: ``simple`` is neither
    """
    if simple == "eps":
        error = _per_sample_mean((denoised.eps - lift(noise)) ** 2)
    elif simple == "x0":
        error = _per_sample_mean((denoised.x0 - lift(x0)) ** 2)
    else:
        raise ConfigError("simple", "eps or x0", repr(simple))
    if denoised.variance is None:
        return HybridLoss(error, error, torch.zeros_like(error))
    vlb = vlb_term(denoised, x0, z_t, index, schedule)
    return HybridLoss(error + weight * len(schedule) * vlb, error, vlb)


def few_step_loss(
    x0_hat: Tensor, x0: Tensor, gradient: Callable[[Tensor], Tensor], gradient_weight: float = 0.2
) -> Tensor:
    """L1 of the estimate plus a multiple of the L1 of its gradient magnitude, [N].

    The objective of few-step models, whose quality depends on each estimate itself and not on the noise it implies.

    :param x0_hat: float [N, C, H, W], the estimate
    :param x0: the clean signal, likewise
    :param gradient: maps [N, C, H, W] to a gradient magnitude, e.g. ``|gx| + |gy|`` of Sobel
    :param gradient_weight: weight of the gradient term
    """
    x0_hat, x0 = lift(x0_hat), lift(x0)
    edges = (gradient(x0_hat) - gradient(x0)).abs()
    return _per_sample_mean((x0_hat - x0).abs()) + gradient_weight * _per_sample_mean(edges)


def _per_sample_mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)
