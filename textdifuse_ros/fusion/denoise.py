"""A decoder and its features as the denoiser of the reverse process."""

from __future__ import annotations

import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.networks.decoder import Decoder
from textdifuse_ros.networks.encoder import Pyramid


def as_timesteps(t: int | Tensor, like: Tensor) -> Tensor:
    """Convert a timestep to int64 [1] or [N].

    :param t: timestep, one for all or int64 [N]
    :param like: on the target device
    """
    # Filled on the device: a copy to it would synchronize.
    return t.reshape(-1).to(like.device) if isinstance(t, Tensor) else torch.full((1,), t, device=like.device)


class FeatureDenoiser:
    """Predicts the clean signal from ``z_t`` and a pyramid that stays the same at every step (equation 4).

    The decoder predicts x0: at the highest timestep, which decides a one-step run, eps carries no information.

    :param decoder: of luma or chroma
    :param features: Phi^f, or one source's features while restoring it
    :param schedule: the full schedule
    :param base: float [N, C, H, W], to which the decoder's output is added; or None. Chroma is a correction, so that
        right colors need none; fused luma has no single source to correct.
    :param clip: clamp x0 to [-1, 1]; off in training, where clamping would stop gradients
    :param variance: whether to compute the learned variance
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
        """Denoise; see :class:`.Denoiser`.

        :param z_t: float32 [N, C, H, W], H and W multiples of 16
        :param t: timestep of the full schedule, one for all or int64 [N]
        """
        x0, logit = self.decoder(self.features, z_t, as_timesteps(t, z_t), variance=self.variance)
        if self.base is not None:
            x0 = x0 + self.base
        fraction = None if logit is None else torch.sigmoid(logit)
        return make_denoised("x0", x0, z_t, t, self.schedule, fraction, clip=self.clip)
