"""The interface between the reverse process and a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from textdifuse_ros.diffusion.prediction import PredictionType, eps_from_x0, lift, per_sample, to_x0_eps
from textdifuse_ros.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Denoised:
    """A denoiser's view of one z_t. All tensors float32 (or wider) [N, C, H, W].

    :ivar x0: the estimate of the clean signal, in [-1, 1] where it is clipped
    :ivar eps: the noise that goes with it, ``z_t = sqrt(abar) x0 + sqrt(1 - abar) eps``
    :ivar variance: the fraction v of equation 6 in [0, 1], 0 for ``beta~`` and 1 for ``beta``; None where not learned
    :ivar x0_variance: variance of the clean signal given z_t, of which ``x0`` is the mean; None where not learned.
        Where it is there, it takes the place of ``variance``: see :func:`.posterior.p_mean_variance`
    """

    x0: Tensor
    eps: Tensor
    variance: Tensor | None = None
    x0_variance: Tensor | None = None


class Denoiser(Protocol):
    """Estimates the clean signal from a noisy one; the condition is part of the object."""

    def __call__(self, z_t: Tensor, t: int | Tensor, /) -> Denoised:
        """Denoise.

        :param z_t: float32 [N, C, H, W]; must not be written to
        :param t: original timestep, one for all or int64 [N]
        :returns: tensors of its own, which later calls do not overwrite
        """
        ...


def make_denoised(
    kind: PredictionType,
    output: Tensor,
    z_t: Tensor,
    t: int | Tensor,
    schedule: NoiseSchedule,
    variance: Tensor | None = None,
    *,
    clip: bool = False,
) -> Denoised:
    """Make a :class:`Denoised` from a raw network output.

    :param kind: what ``output`` is: eps, x0 or v
    :param output: float [N, C, H, W], 16 bits are lifted to float32
    :param z_t: float32 [N, C, H, W], the denoiser's input
    :param t: original timestep, one for all or int64 [N]
    :param schedule: the *full* schedule, where the timestep is the index
    :param variance: the fraction v in [0, 1] like ``output``, or None
    :param clip: clamp x0 to [-1, 1], and recompute eps for the clamped x0
    :raises ConfigError: an unknown kind
    """
    abar = per_sample(schedule.abar, t, z_t.ndim)
    x0, eps = to_x0_eps(kind, output, z_t, abar)
    if clip:
        x0 = x0.clamp(-1.0, 1.0)
        eps = eps_from_x0(x0, z_t, abar)
    return Denoised(x0=x0, eps=eps, variance=None if variance is None else lift(variance))
