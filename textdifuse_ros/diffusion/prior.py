"""Preconditioning of a conditional x0 prediction by a Gaussian prior that the network predicts.

The condition alone tells the clean signal up to an error; ``z_t`` is a second, independent observation of it with noise
of variance ``(1 - abar) / abar``. The network predicts the prior of each pixel, its mean F and its variance
``S = std^2 exp(r)``, and the estimate is the posterior: both observations weighted by their precision,

    k  = S abar / (S abar + 1 - abar)
    x0 = (1 - k) F + k z_t / sqrt(abar),        Var(x0 | z_t) = (1 - k) S

At the highest timesteps k is 0 and F is the estimate. Where the condition leaves nothing open, S is small and the noise
of ``z_t`` does not enter; where much is open, ``z_t`` passes without any work of the network. It plays the role of
``c_skip`` and ``c_out`` of EDM (Karras et al. 2022, section 5), with the spread of each pixel *given the condition* as
``sigma_data``.
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

    :param std: standard deviation at r = 0, in units of [-1, 1]
    :param schedule: the *full* schedule, where the timestep is the index
    """

    def __init__(self, std: float, schedule: NoiseSchedule) -> None:
        self._std, self._abar = std, schedule.abar
        self._root, self._noise = np.sqrt(schedule.abar), 1 - schedule.abar

    def posterior(self, mean: Tensor, log_ratio: Tensor, z_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """Combine the prior with ``z_t``.

        :param mean: float32 [N, C, H, W] in [-1, 1], F
        :param log_ratio: likewise, r; limited to ``LOG_RATIO``
        :param z_t: likewise, noised
        :param t: timestep, one for all or int64 [N]
        :returns: x0 and its variance given z_t
        """
        spread = self._std**2 * log_ratio.clamp(-LOG_RATIO, LOG_RATIO).exp()
        noise = coefficient(self._noise, t, z_t)
        total = spread * coefficient(self._abar, t, z_t) + noise
        prior_share, observed = noise / total, spread * coefficient(self._root, t, z_t) / total
        return prior_share * mean + observed * z_t, prior_share * spread

    def typical_variance(self, t: int | Tensor, like: Tensor) -> Tensor:
        """Look up the variance of x0 given z_t at r = 0.

        :param t: timestep, one for all or int64 [N]
        :param like: [N, ...], whose type and device the result has
        """
        spread = self._std**2
        return coefficient(spread * self._noise / (spread * self._abar + self._noise), t, like)
