"""A decoder and its features as the denoiser that the reverse process calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, Denoiser, make_denoised
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.networks.decoder import Decoder
from textdifuse_ros.networks.encoder import Pyramid


def as_timesteps(t: int | Tensor, like: Tensor) -> Tensor:
    """A timestep, or one a sample, as int64 [1] or [N] on ``like``'s device."""
    # Filled on the device: a copy to it would be waited for.
    return t.reshape(-1).to(like.device) if isinstance(t, Tensor) else torch.full((1,), t, device=like.device)


class DecodingDenoiser(Denoiser, Protocol):
    """A denoiser whose decoder can be given other features.

    :ivar schedule: the full one
    """

    decoder: Decoder
    schedule: NoiseSchedule


class FeatureDenoiser:
    """Predicts the clean signal from ``z_t`` and a pyramid that stays the same at every step (equation 4).

    The decoder predicts x0 itself: at the highest timestep, where a one-step run decides everything, eps says nothing.

    :param decoder: of luma or chroma
    :param features: Phi^f, or one source's features while restoring it
    :param schedule: the full schedule
    :param base: what the decoder's output is a correction to, float [N, C, H, W]; None for nothing. Chroma is
        corrected, so that colours which are right cost nothing; fused luma has no one source that it corrects.
    :param clip: hold x0 in [-1, 1]; off in training, where clipping would stop gradients
    :param variance: whether the learned variance is asked for
    """

    def __init__(
        self,
        decoder: Decoder,
        features: Pyramid,
        schedule: NoiseSchedule,
        *,
        base: Tensor | None = None,
        clip: bool = True,
        variance: bool = True,
    ) -> None:
        self.decoder, self.features, self.schedule, self.base, self.clip = decoder, features, schedule, base, clip
        self.variance = variance

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        """:param z_t: float32 [N, C, H, W], H and W multiples of 16
        :param t: timestep of the full schedule, one for all or int64 [N]
        """
        x0, logit = self.decoder(self.features, z_t, as_timesteps(t, z_t), variance=self.variance)
        if self.base is not None:
            x0 = x0 + self.base
        fraction = None if logit is None else torch.sigmoid(logit)
        return make_denoised("x0", x0, z_t, t, self.schedule, fraction, clip=self.clip)


class RecordingDenoiser:
    """A denoiser that keeps what it gave.

    :ivar estimates: what it gave and nobody has taken yet
    """

    def __init__(self, denoiser: DecodingDenoiser) -> None:
        self._denoiser = denoiser
        self.decoder, self.schedule = denoiser.decoder, denoiser.schedule
        self.estimates: deque[Denoised] = deque()

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        """See :class:`.Denoiser`."""
        found = self._denoiser(z_t, t)
        self.estimates.append(found)
        return found

    def take(self) -> Denoised:
        """The oldest estimate that nobody has taken."""
        return self.estimates.popleft()


class ReplayDenoiser:
    """A denoiser that gives again what one has given before, for the same process.

    :param estimates: one a step
    """

    def __init__(self, estimates: Iterable[Denoised], decoder: Decoder, schedule: NoiseSchedule) -> None:
        self._estimates = iter(estimates)
        self.decoder, self.schedule = decoder, schedule

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        """See :class:`.Denoiser`; the arguments are those of then."""
        return self.take()

    def take(self) -> Denoised:
        """The estimate of the next step."""
        return next(self._estimates)
