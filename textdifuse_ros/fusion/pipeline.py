"""From the tensors of a pair to those of a fused image: nothing here waits for the device or copies from the host.

So the same code is run operation by operation and recorded as a CUDA graph (:mod:`textdifuse_ros.fusion.graphs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.process import reverse, start_noise
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.samplers import NoiseTape, Sampler
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.fusion.denoise import DecodingDenoiser, FeatureDenoiser, RecordingDenoiser, ReplayDenoiser
from textdifuse_ros.fusion.modulation import FullFrameModulation, MaskedModulation, Modulated
from textdifuse_ros.image.color import rgb_to_ycbcr, ycbcr_to_rgb
from textdifuse_ros.image.ranges import signed_to_unit, to_levels, to_unit, unit_to_signed
from textdifuse_ros.image.sizing import crop_to, pad_to_multiple
from textdifuse_ros.networks.drive import MULTIPLE, SENSOR_INDEX, DriveNetworks
from textdifuse_ros.networks.encoder import Pyramid
from textdifuse_ros.networks.illuminant import color_of
from textdifuse_ros.sensors import INFRARED


class Visible(NamedTuple):
    """A visible image, padded: RGB float32 [1, 3, H, W], luma [1, 1, H, W], both in [0, 1], and chroma [1, 2, H, W]
    in [-0.5, 0.5].
    """

    rgb: Tensor
    luma: Tensor
    chroma: Tensor


@dataclass(frozen=True, eq=False)
class CachedFusion:
    """What of a plain fusion is needed to make something stand out.

    :ivar image: the fused image, uint8 [H, W, 3]
    :ivar infrared: float32 [1, 1, H', W'] in [-1, 1], padded, as all that follows
    :ivar sources: both sources' weighted features
    :ivar estimates: the denoiser's, of every step
    :ivar color: restored chroma, float32 [1, 2, H, W] in [-0.5, 0.5]
    :ivar noise: that of its process
    """

    image: Tensor
    infrared: Tensor
    sources: tuple[Pyramid, Pyramid]
    estimates: tuple[Denoised, ...]
    color: Tensor
    noise: NoiseTape


def padded(stored: Tensor) -> Tensor:
    """A stored image [H, W, C] as float32 [1, C, H', W'] in [0, 1].

    Chroma is restored at half the size, so it is padded to twice what its network takes.
    """
    return pad_to_multiple(to_unit(stored), 2 * MULTIPLE)


def split(rgb: Tensor) -> Visible:
    """A padded colour image with its luma and chroma."""
    return Visible(rgb, *rgb_to_ycbcr(rgb))


def levels(luma: Tensor, color: Tensor, height: int, width: int) -> Tensor:
    """The fused image, uint8 [height, width, 3] RGB.

    :param luma: float32 [1, 1, H, W] in [-1, 1], padded; ``color`` as of :meth:`Pipeline.color`
    """
    return to_levels(crop_to(ycbcr_to_rgb(signed_to_unit(luma), color), height, width))


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The computation of one image with one set of weights.

    :ivar schedule: the full one
    :ivar steps: of the reverse process
    """

    networks: DriveNetworks
    schedule: NoiseSchedule
    steps: int
    sampler: Sampler

    def fused(self, visible: Visible, warm: Tensor) -> FeatureDenoiser:
        """The denoiser with the fused features Phi^f (equations 2 and 3).

        :param warm: the infrared, float32 [1, 1, H, W] in [0, 1], padded
        """
        return self._with(self.networks.luma.fuse_features(*self._pair(visible, warm)))

    def fused_of(self, visible: Visible, warm: Tensor) -> tuple[FeatureDenoiser, tuple[Pyramid, Pyramid]]:
        """The same, and both sources' weighted features that it is the sum of."""
        luma = self.networks.luma
        sources = luma.control.weigh_sources(*luma.encode_pair(*self._pair(visible, warm)))
        return self._with(tuple(x + y for x, y in zip(*sources, strict=True))), sources

    def alone(self, image: Visible, kind: str) -> FeatureDenoiser:
        """The denoiser with the features of one source (equation 1).

        :param kind: ``VISIBLE`` or ``INFRARED``
        """
        luma = image.luma if kind == INFRARED else self._balanced(image)
        source = torch.full((1,), SENSOR_INDEX[kind], device=luma.device)
        return self._with(self.networks.luma.encoder(unit_to_signed(luma), source))

    def last(
        self,
        denoiser: DecodingDenoiser,
        like: Tensor,
        noise: torch.Generator | NoiseTape,
        modulated: Modulated | None = None,
    ) -> Tensor:
        """The last image of the reverse process, float32 [1, C, H, W] in [-1, 1].

        :param like: a tensor of its shape and device
        """
        schedule = respace(self.schedule, space_timesteps(len(self.schedule), self.steps))
        start = start_noise(like.shape, noise, like.device)
        if modulated is not None:
            return modulated.run(denoiser, start, schedule, self.sampler, noise).clamp(-1, 1)
        *_, last = reverse(denoiser, start, schedule, self.sampler, noise)
        return last.z.clamp(-1, 1)

    def color(self, visible: Visible, noise: torch.Generator | NoiseTape) -> Tensor:
        """Restored chroma, float32 [1, 2, H, W] in [-0.5, 0.5]."""
        chroma = self.networks.chroma
        seen = chroma.relit(_half(visible))
        features, asked = chroma.encoder(seen), self.sampler.uses_variance
        denoiser = FeatureDenoiser(chroma.decoder, features, self.schedule, base=seen[:, 1:], variance=asked)
        small = self.last(denoiser, seen[:, 1:], noise) / 2
        return F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)

    def image(self, visible: Tensor, infrared: Tensor, noise: NoiseTape) -> Tensor:
        """All of a plain fusion: stored images, as of :func:`.upload`, to uint8 [H, W, 3]."""
        seen, noise = split(padded(visible)), noise.again()
        denoiser = self.fused(seen, padded(infrared))
        luma = self.last(denoiser, seen.luma, noise)
        return levels(luma, self.color(seen, noise), *infrared.shape[:2])

    def kept(self, visible: Tensor, infrared: Tensor, noise: NoiseTape) -> CachedFusion:
        """All of a plain fusion, with what it takes to make something stand out in it."""
        seen, warm, noise = split(padded(visible)), padded(infrared), noise.again()
        fused, sources = self.fused_of(seen, warm)
        denoiser = RecordingDenoiser(fused)
        luma = self.last(denoiser, seen.luma, noise)
        color = self.color(seen, noise)
        image = levels(luma, color, *infrared.shape[:2])
        return CachedFusion(image, unit_to_signed(warm), sources, tuple(denoiser.estimates), color, noise)

    def emphasized(self, kept: CachedFusion, modulated: Modulated) -> Tensor:
        """The image in which something stands out, uint8 [H, W, 3]."""
        luma = self.last(self._recalled(kept), kept.infrared, kept.noise.again(), modulated)
        return levels(luma, kept.color, *kept.image.shape[:2])

    def emphasized_everywhere(self, kept: CachedFusion, amounts: Tensor, soft: Tensor) -> Tensor:
        """The same of a whole image in which nothing is played down, from tensors alone."""
        assert self.networks.modulation is not None
        recalled = self._recalled(kept)
        objects = FullFrameModulation(self.networks.modulation, kept.sources, amounts, soft)
        luma = self.last(MaskedModulation(recalled, recalled.take, objects), kept.infrared, kept.noise.again())
        return levels(luma, kept.color, *kept.image.shape[:2])

    def _recalled(self, kept: CachedFusion) -> ReplayDenoiser:
        return ReplayDenoiser(kept.estimates, self.networks.luma.decoder, self.schedule)

    def _pair(self, visible: Visible, warm: Tensor) -> tuple[Tensor, Tensor]:
        return unit_to_signed(self._balanced(visible)), unit_to_signed(warm)

    def _with(self, features: Pyramid) -> FeatureDenoiser:
        asked = self.sampler.uses_variance
        return FeatureDenoiser(self.networks.luma.decoder, features, self.schedule, variance=asked)

    def _balanced(self, visible: Visible) -> Tensor:
        """The luma that an image has without its colour cast, float32 [1, 1, H, W] in [0, 1]; brightness stays."""
        light = self.networks.chroma.light
        if light is None:
            return visible.luma
        gains = light(_half(visible))
        return rgb_to_ycbcr((visible.rgb * color_of(gains)).clamp(0, 1))[0]


def _half(visible: Visible) -> Tensor:
    """What the chroma networks see: luma and twice the chroma at half the size, [1, 3, H / 2, W / 2] in [-1, 1]."""
    return F.avg_pool2d(torch.cat((unit_to_signed(visible.luma), 2 * visible.chroma), 1), 2)
