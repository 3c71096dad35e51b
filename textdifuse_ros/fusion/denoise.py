"""A decoder and its features as the denoiser of the reverse process."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.prior import GaussianPrior
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.networks.decoder import Decoder
from textdifuse_ros.networks.drive import DriveConfig
from textdifuse_ros.networks.encoder import Pyramid


def as_timesteps(t: int | Tensor, like: Tensor) -> Tensor:
    """Convert a timestep to int64 [1] or [N].

    :param t: timestep, one for all or int64 [N]
    :param like: on the target device
    """
    # Filled on the device: a copy to it would synchronize.
    return t.reshape(-1).to(like.device) if isinstance(t, Tensor) else torch.full((1,), t, device=like.device)


def luma_prior(config: DriveConfig, schedule: NoiseSchedule) -> GaussianPrior | None:
    """The prior that the luma decoder of a configuration was trained with, or None.

    :param config: of the networks
    :param schedule: the full schedule
    """
    return GaussianPrior(config.luma_prior, schedule) if config.luma_prior else None


class FeatureDenoiser:
    """Predicts the clean signal from ``z_t`` and a pyramid that stays the same at every step (equation 4).

    The decoder predicts x0: at the highest timestep, which decides a one-step run, eps carries no information.

    :param decoder: of luma
    :param features: Phi^f, or one source's features while restoring it
    :param schedule: the full schedule
    :param clip: clamp x0 to [-1, 1]; off in training, where clamping would stop gradients
    :param prior: weighs the decoder's output against ``z_t``; None where the output is the estimate
    :param variance: whether to compute the learned variance; a prior needs it in any case
    """

    def __init__(
        self,
        decoder: Decoder,
        features: Pyramid,
        schedule: NoiseSchedule,
        *,
        prior: GaussianPrior | None = None,
        clip: bool = True,
        variance: bool = True,
    ) -> None:
        self.decoder, self.features, self.schedule, self.clip = decoder, features, schedule, clip
        self.prior, self.variance = prior, variance

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        """Denoise; see :class:`.Denoiser`.

        :param z_t: float32 [N, C, H, W], H and W multiples of 16
        :param t: timestep of the full schedule, one for all or int64 [N]
        """
        learned = self.variance or self.prior is not None
        x0, second = self.decoder(self.features, z_t, as_timesteps(t, z_t), variance=learned)
        if self.prior is not None:
            x0, x0_variance = self.prior.posterior(x0, second, z_t, t)
            return replace(make_denoised("x0", x0, z_t, t, self.schedule, clip=self.clip), x0_variance=x0_variance)
        fraction = None if second is None else torch.sigmoid(second)
        return make_denoised("x0", x0, z_t, t, self.schedule, fraction, clip=self.clip)
