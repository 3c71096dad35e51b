"""The ``reference`` networks and their configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from textdifuse_ros.config.base import parameter
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.networks.reference.control import FeatureVolume, ReferenceFusionControl
from textdifuse_ros.networks.reference.unet import HEADS, Decoder, Encoder, Features

FAMILY = "reference"
LEVELS = 5
MULTIPLE = 2 ** (LEVELS - 1)
"""The networks take heights and widths that are multiples of this [pixels]."""


@dataclass(frozen=True)
class ReferenceConfig:
    """Sizes of the networks and the schedule they were trained on; stored in the checkpoint.

    The defaults are those of the published files.
    """

    widths: tuple[int, ...] = parameter((128, 128, 256, 384, 512), "Channels of the levels.", low=32, high=1024)
    blocks: int = parameter(2, "Residual blocks of each level.", low=1, high=4)
    task: str = parameter(
        "infrared_visible",
        "infrared_visible: the visible image is the first source; medical: MRI, in the place of infrared, is it.",
        choices=("infrared_visible", "medical"),
    )
    schedule: str = parameter("cosine", "Noise schedule.", choices=("cosine", "linear"))
    timesteps: int = parameter(1000, "Timesteps of the full schedule.", low=4, high=10_000)
    luma_prior: ClassVar[float] = 0.0
    """There is no prior; see :class:`.DriveConfig`."""

    def __post_init__(self) -> None:
        if len(self.widths) != LEVELS or any(width % HEADS for width in self.widths):
            raise ConfigError("widths", f"{LEVELS} multiples of {HEADS}, one a level", list(self.widths))


class ReferenceNetworks(nn.Module):
    """All networks of one checkpoint: ``encoder`` (stage 1), ``decoder`` (stage 2) and ``control`` (the FCM).

    :param config: sizes
    """

    modulation: ClassVar[None] = None
    """There are no weights for a text: the program trains the fusion control on each image."""

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        self.volume = FeatureVolume(config.widths, config.blocks)
        self.encoder = Encoder(config.widths, config.blocks)
        self.decoder = Decoder(config.widths, config.blocks)
        self.control = ReferenceFusionControl(self.volume.channels)

    @property
    def provenance(self) -> dict[str, str]:
        """What the provenance of an image names beside the weights."""
        return {"family": FAMILY, "task": self.config.task}

    def encode_pair(self, z_t: Tensor, first: Tensor, second: Tensor, timestep: Tensor) -> Tensor:
        """The features of both sources as one volume (equation 2), see :class:`.FeatureVolume`.

        :param z_t: [N, 1, H, W]
        :param first: [N, 1, H, W] in [-1, 1]
        :param second: likewise
        :param timestep: [N or 1], of the full schedule
        """
        # Nothing here keeps the features, of which one source has 0.7 GB at 640x480 in float32.
        return self.volume.join(self.encoder(z_t, first, timestep), self.encoder(z_t, second, timestep))

    def fuse_features(self, volumes: Tensor) -> Features:
        """Equation (3).

        :param volumes: of :meth:`encode_pair`
        """
        return self.volume.split(self.control(volumes))
