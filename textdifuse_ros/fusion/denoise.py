"""A decoder and its features as the denoiser that the reverse process calls."""

from __future__ import annotations

import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.networks.decoder import Decoder
from textdifuse_ros.networks.encoder import Pyramid


def as_timesteps(t: int | Tensor, like: Tensor) -> Tensor:
    """A timestep, or one a sample, as int64 [1] or [N] on ``like``'s device."""
    # Filled on the device: a copy to it would be waited for.
    return t.reshape(-1).to(like.device) if isinstance(t, Tensor) else torch.full((1,), t, device=like.device)


class FeatureDenoiser:
    """Predicts the clean signal from ``z_t`` and a pyramid that stays the same at every step (equation 4).

    The decoder predicts x0 itself: at the highest timestep, where a one-step run decides everything, eps says nothing.

    :param decoder: of luma or chroma
    :param features: Phi^f, or one source's features while restoring it
    :param schedule: the full schedule
    :param base: what the decoder's output is a correction to, float [N, C, H, W]; None for nothing. Chroma is
        corrected, so that colors which are right cost nothing; fused luma has no one source that it corrects.
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
