"""Noise schedules: how much of the clean signal is left at each timestep.

Sources: Ho et al. 2020 (DDPM) for the linear schedule and the posterior; Nichol & Dhariwal 2021 (iDDPM) for the
cosine schedule and the clipped logarithm of the posterior variance.

Everything is float64 [S] over the S steps of the schedule, read-only. Index 0 is the cleanest step. The paper counts
its timesteps from 1; here they count from 0, so the paper's t is our t + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from textdifuse_ros.checks import check_number, describe
from textdifuse_ros.errors import ConfigError, InputError

MAX_BETA = 0.999


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise at each step of a diffusion: ``z = sqrt(abar) x0 + sqrt(1 - abar) eps``.

    A full schedule has one step per timestep; a respaced one (:mod:`textdifuse_ros.diffusion.respacing`) has fewer, as
    listed in ``timesteps``. The samplers take steps by index, a denoiser takes the timestep.

    The products ``abar`` are stored, and the betas follow from them: so a respaced schedule has the full one's ``abar``
    to the last bit, and ``beta`` of index 0 is exactly ``1 - abar``.

    :ivar abar: float64 [S] in (0, 1), strictly falling: the paper's cumulative product of the alphas
    :ivar timesteps: original timestep of each index, ascending
    :raises InputError: abar or timesteps are not as stated
    """

    abar: np.ndarray
    timesteps: tuple[int, ...]

    def __post_init__(self) -> None:
        abar = np.array(self.abar, dtype=np.float64)
        timesteps = tuple(int(t) for t in self.timesteps)
        if abar.ndim != 1 or not len(abar) or not (np.diff(np.r_[1.0, abar, 0.0]) < 0).all():
            raise InputError("abar of a noise schedule", "numbers that fall strictly within (0, 1)", describe(abar))
        if len(timesteps) != len(abar) or timesteps[0] < 0 or not (np.diff(timesteps) > 0).all():
            raise InputError("timesteps of a noise schedule", f"{len(abar)} ascending numbers from 0", timesteps)
        object.__setattr__(self, "abar", _frozen(abar))
        object.__setattr__(self, "timesteps", timesteps)

    @classmethod
    def from_betas(cls, betas: np.ndarray) -> NoiseSchedule:
        """The full schedule of the given betas, one per timestep.

        :param betas: float64 [T] in (0, 1)
        """
        return cls(np.cumprod(1.0 - np.asarray(betas, dtype=np.float64)), tuple(range(len(betas))))

    def __len__(self) -> int:
        """Number of steps S."""
        return len(self.timesteps)

    @cached_property
    def abar_prev(self) -> np.ndarray:
        """``abar`` of the next cleaner step; 1 (no noise at all) at index 0."""
        return _frozen(np.r_[1.0, self.abar[:-1]])

    @cached_property
    def alphas(self) -> np.ndarray:
        """``abar / abar_prev``."""
        return _frozen(self.abar / self.abar_prev)

    @cached_property
    def betas(self) -> np.ndarray:
        """``1 - alphas``."""
        return _frozen(1.0 - self.alphas)

    @cached_property
    def log_betas(self) -> np.ndarray:
        """Logarithm of the betas, the upper end of equation 6."""
        return _frozen(np.log(self.betas))

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        """``beta~`` of equation 6, the variance of q(z_prev | z, x0); 0 at index 0."""
        return _frozen(self.betas * (1.0 - self.abar_prev) / (1.0 - self.abar))

    @cached_property
    def posterior_log_variance(self) -> np.ndarray:
        """Logarithm of ``beta~``, the lower end of equation 6.

        Index 0, whose ``beta~`` is 0, takes the value of index 1, as in iDDPM; the only step of a one-step schedule
        takes its beta.
        """
        variance = self.posterior_variance
        first = variance[1] if len(variance) > 1 else self.betas[0]
        return _frozen(np.log(np.r_[first, variance[1:]]))

    @cached_property
    def posterior_mean_x0(self) -> np.ndarray:
        """Coefficient of x0 in the mean of q(z_prev | z, x0); exactly 1 at index 0."""
        return _frozen(self.betas * np.sqrt(self.abar_prev) / (1.0 - self.abar))

    @cached_property
    def posterior_mean_z(self) -> np.ndarray:
        """Coefficient of z in the mean of q(z_prev | z, x0); exactly 0 at index 0."""
        return _frozen((1.0 - self.abar_prev) * np.sqrt(self.alphas) / (1.0 - self.abar))

    @cached_property
    def half_log_snr(self) -> np.ndarray:
        """``lambda = log(sqrt(abar) / sqrt(1 - abar))`` of DPM-Solver; falls with the index."""
        return _frozen(0.5 * (np.log(self.abar) - np.log1p(-self.abar)))


def _frozen(values: np.ndarray) -> np.ndarray:
    values.setflags(write=False)
    return values


def cosine(T: int, s: float = 0.008, max_beta: float = MAX_BETA) -> NoiseSchedule:
    """The cosine schedule of iDDPM: ``abar(t) = cos^2((t / T + s) / (1 + s) pi / 2)`` with the betas capped.

    :param T: number of timesteps, at least 1
    :param s: offset that keeps the first betas from vanishing
    :param max_beta: cap of the betas, which keeps the last ``abar`` above 0
    :raises ConfigError: T is no integer of at least 1
    """
    check_number("timesteps", T, 1, None, integer=True)
    signal = np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
    return NoiseSchedule.from_betas(np.minimum(1.0 - signal[1:] / signal[:-1], max_beta))


def linear(T: int) -> NoiseSchedule:
    """DDPM's linear schedule, betas from 1e-4 to 0.02 at T = 1000; for other T scaled by 1000 / T, capped at 0.999.

    :raises ConfigError: T is no integer of at least 1
    """
    check_number("timesteps", T, 1, None, integer=True)
    scale = 1000 / T
    return NoiseSchedule.from_betas(np.minimum(np.linspace(1e-4 * scale, 0.02 * scale, T), MAX_BETA))


_SCHEDULES: dict[str, Callable[[int], NoiseSchedule]] = {"cosine": cosine, "linear": linear}


def by_name(name: str, T: int) -> NoiseSchedule:
    """The full schedule called ``name``, ``cosine`` or ``linear``.

    :raises ConfigError: an unknown name, or T is no integer of at least 1
    """
    if name not in _SCHEDULES:
        raise ConfigError("schedule", f"one of {', '.join(_SCHEDULES)}", repr(name))
    return _SCHEDULES[name](T)
