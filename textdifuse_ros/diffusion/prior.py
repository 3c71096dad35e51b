"""Preconditioning of a conditional x0 prediction by a Gaussian prior.

The condition alone tells the clean signal up to an error of some standard deviation ``std``; ``z_t`` is a second,
independent observation of it with noise of variance ``(1 - abar) / abar``. The network's output F counts as the mean of
the prior, and the estimate is the mean of the posterior, both observations weighted by their precision:

    k  = std^2 abar / (std^2 abar + 1 - abar)
    x0 = (1 - k) F + k z_t / sqrt(abar),        Var(x0 | z_t) = (1 - k) std^2 exp(r)

At the highest timesteps k is 0 and F is the estimate. At the lowest k is 1: the estimate is ``z_t`` without any work of
the network, whose error cannot destroy what ``z_t`` shows already. It plays the role of ``c_skip`` and ``c_out`` of
EDM (Karras et al. 2022, section 5), with the spread of the signal *given the condition* as ``sigma_data``. The network
also predicts r, the logarithm by which the true variance differs from that of the prior.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from textdifuse_ros.diffusion.posterior import coefficient
from textdifuse_ros.diffusion.schedule import NoiseSchedule

LOG_RATIO = 7.0
"""Largest absolute value of r; beyond it the variance of a pixel is that of no image."""


class GaussianPrior:
    """The prior of one full schedule.

    :param std: standard deviation, in units of [-1, 1]
    :param schedule: the *full* schedule, where the timestep is the index
    """

    def __init__(self, std: float, schedule: NoiseSchedule) -> None:
        abar: np.ndarray = schedule.abar
        total = std**2 * abar + 1 - abar
        self._kept = (1 - abar) / total  # 1 - k
        self._observed = std**2 * np.sqrt(abar) / total  # k / sqrt(abar)
        self._variance = self._kept * std**2

    def mean(self, prior: Tensor, z_t: Tensor, t: int | Tensor) -> Tensor:
        """Estimate x0.

        :param prior: float32 [N, C, H, W] in [-1, 1], the network's output F
        :param z_t: likewise, noised
        :param t: timestep, one for all or int64 [N]
        """
        return coefficient(self._kept, t, z_t) * prior + coefficient(self._observed, t, z_t) * z_t

    def variance(self, log_ratio: Tensor, t: int | Tensor) -> Tensor:
        """Compute the variance of x0 given z_t.

        :param log_ratio: float32 [N, C, H, W], r; limited to ``LOG_RATIO``
        :param t: timestep, one for all or int64 [N]
        """
        return coefficient(self._variance, t, log_ratio) * log_ratio.clamp(-LOG_RATIO, LOG_RATIO).exp()

    def typical_variance(self, t: int | Tensor, like: Tensor) -> Tensor:
        """Look up the variance of x0 given z_t at r = 0.

        :param t: timestep, one for all or int64 [N]
        :param like: [N, ...], whose type and device the result has
        """
        return coefficient(self._variance, t, like)
