"""The ``drive`` networks and their configuration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textdifuse_ros.config.base import parameter
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.networks.decoder import Decoder
from textdifuse_ros.networks.encoder import LEVELS, ConditionEncoder, Pyramid
from textdifuse_ros.networks.fusion_control import FusionControl
from textdifuse_ros.networks.illuminant import IlluminantEstimator, apply_gains
from textdifuse_ros.networks.modulation import Modulation
from textdifuse_ros.sensors import SENSORS

MULTIPLE = 16
"""The networks take heights and widths that are multiples of this [pixels]."""

SENSOR_INDEX = {sensor: index for index, sensor in enumerate(SENSORS)}
"""Index of a sensor in the luma encoder."""


@dataclass(frozen=True)
class DriveConfig:
    """Sizes of the networks and the schedule they were trained on; stored in the checkpoint."""

    luma_widths: tuple[int, ...] = parameter((48, 96, 192), "Channels of the luma levels.", low=8, high=1024)
    luma_blocks: tuple[int, ...] = parameter((1, 2, 3), "Residual blocks of the luma encoder's levels.", low=1, high=16)
    luma_decoder_blocks: tuple[int, ...] = parameter(
        (2, 1, 1), "Residual blocks of the luma decoder's levels.", low=1, high=16
    )
    luma_fine: int = parameter(
        0, "1 passes detail within cells of 4 pixels on as pixels, 0 as features only.", low=0, high=1
    )
    control_width: int = parameter(32, "Channels in which the fusion control compares the sources.", low=4, high=512)
    chroma_widths: tuple[int, ...] = parameter((32, 64, 88), "Channels of the chroma levels.", low=8, high=1024)
    chroma_blocks: tuple[int, ...] = parameter(
        (1, 2, 2), "Residual blocks of the chroma encoder's levels.", low=1, high=16
    )
    chroma_decoder_blocks: tuple[int, ...] = parameter(
        (1, 1, 1), "Residual blocks of the chroma decoder's levels.", low=1, high=16
    )
    light_width: int = parameter(
        0, "Hidden channels of the chroma's illuminant estimator; 0 for none.", low=0, high=512
    )
    modulation_width: int = parameter(0, "Hidden channels of the text re-modulation; 0 for none.", low=0, high=512)
    luma_prior: float = parameter(
        0.0,
        "Typical standard deviation of luma given the sources alone, in units of [-1, 1]: the decoder's outputs are "
        "mean and variance of a prior, which is weighed against z_t. 0: they are x0 and the variance fraction v.",
        low=0.0,
        high=1.0,
    )
    schedule: str = parameter("cosine", "Noise schedule.", choices=("cosine", "linear"))
    timesteps: int = parameter(1000, "Timesteps of the full schedule.", low=4, high=10_000)

    def __post_init__(self) -> None:
        for name in ("luma_widths", "luma_blocks", "luma_decoder_blocks"):
            _check_levels(name, getattr(self, name))
            _check_levels(name.replace("luma", "chroma"), getattr(self, name.replace("luma", "chroma")))


def _check_levels(name: str, values: tuple[int, ...]) -> None:
    if len(values) != LEVELS:
        raise ConfigError(name, f"{LEVELS} integers, one a level", list(values))


class LumaNetwork(nn.Module):
    """Brightness: one encoder for both sources, the fusion control, and the decoder.

    :param config: sizes
    """

    def __init__(self, config: DriveConfig) -> None:
        super().__init__()
        fine = bool(config.luma_fine)
        self.encoder = ConditionEncoder(1, config.luma_widths, config.luma_blocks, sources=2, fine=fine)
        self.control = FusionControl(config.luma_widths, config.control_width, fine=fine)
        self.decoder = Decoder(1, config.luma_widths, config.luma_decoder_blocks, fine=fine)

    def encode_pair(self, visible: Tensor, infrared: Tensor) -> tuple[Pyramid, Pyramid]:
        """Encode both sources as one batch (equation 2): Phi^X and Phi^Y.

        :param visible: float32 [N, 1, H, W] in [-1, 1], luma
        :param infrared: float32 [N, 1, H, W] in [-1, 1]
        """
        count = visible.shape[0]
        # Filled on the device: a copy to it would synchronize.
        source = torch.cat([torch.full((count,), kind, device=visible.device) for kind in SENSOR_INDEX.values()])
        both = self.encoder(torch.cat((visible, infrared)), source)
        return tuple(f[:count] for f in both), tuple(f[count:] for f in both)

    def fuse_features(self, visible: Tensor, infrared: Tensor) -> Pyramid:
        """The fused pyramid Phi^f of a pair (equations 2 and 3).

        :param visible: float32 [N, 1, H, W] in [-1, 1], luma
        :param infrared: likewise
        """
        fused: Pyramid = self.control(*self.encode_pair(visible, infrared))
        return fused


class ChromaNetwork(nn.Module):
    """Color: restores the chroma of the visible image, conditioned on the whole visible image (Y, Cb, Cr).

    It was trained as a diffusion and nearly ignored its noise: given the image, color is as good as certain at this
    resolution. So it is a regression: the decoder's estimate from pure noise, without the noise (ADR 14).

    :param config: sizes
    """

    def __init__(self, config: DriveConfig) -> None:
        super().__init__()
        self.encoder = ConditionEncoder(3, config.chroma_widths, config.chroma_blocks)
        self.decoder = Decoder(2, config.chroma_widths, config.chroma_decoder_blocks)
        self.timestep = config.timesteps - 1
        self.light = IlluminantEstimator(config.light_width) if config.light_width else None

    def forward(self, image: Tensor) -> Tensor:
        """Restore chroma.

        :param image: float32 [N, 3, H, W] in [-1, 1], white-balanced luma and twice the chroma; H, W multiples of 16
        :returns: twice the chroma, float32 [N, 2, H, W], in [-1, 1] but for overshoots
        """
        # Filled on the device: a copy to it would synchronize.
        timestep = torch.full((1,), self.timestep, device=image.device)
        correction, _ = self.decoder(self.encoder(image), None, timestep, variance=False)
        return image[:, 1:] + correction

    def white_balance(self, image: Tensor) -> Tensor:
        """Correct the illuminant; the result is encoded, and the decoder corrects it further.

        :param image: float32 [N, 3, H, W] in [-1, 1], luma and twice the chroma
        :returns: likewise; the image itself where the networks have no estimator
        """
        return image if self.light is None else apply_gains(image, self.light(image))


class DriveNetworks(nn.Module):
    """All networks of one checkpoint: ``luma``, ``chroma`` and, where configured, ``modulation``.

    :param config: sizes
    """

    def __init__(self, config: DriveConfig) -> None:
        super().__init__()
        self.config = config
        self.luma = LumaNetwork(config)
        self.chroma = ChromaNetwork(config)
        self.modulation = Modulation(config.luma_widths, config.modulation_width) if config.modulation_width else None

    @property
    def provenance(self) -> dict[str, str]:
        """What the provenance of an image names beside the weights: nothing, this is the family of the project."""
        return {}
