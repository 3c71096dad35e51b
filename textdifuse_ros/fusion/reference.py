"""The method of the authors' released program as one computation: :meth:`ReferencePipeline.run`.

It departs from the paper: the sample is the mean of the posterior (with the sampler ``posterior_mean``), the learned
variance is not used, and chroma is that of the visible image. It differs from the program in two things: the noise is
given, where theirs depends on the images before; and the image keeps its size, where theirs is cut to multiples of 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.process import ReverseStep, reverse, start_noise
from textdifuse_ros.diffusion.respacing import respace, space_with_ends
from textdifuse_ros.diffusion.samplers import Sampler
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.errors import ImageError
from textdifuse_ros.fusion.denoise import as_timesteps
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.pipeline import Lap, Noise, no_lap
from textdifuse_ros.image.grey import is_grey
from textdifuse_ros.networks.reference.networks import MULTIPLE, ReferenceNetworks
from textdifuse_ros.sensors import INFRARED

LONGEST_SHORT_SIDE = 640
"""Larger images are fused at this length of the short side [pixels]."""


class ReferenceDenoiser:
    """Predicts the clean luma: equations (2) to (4) and (8), both encoders and the fusion control at every step.

    :param networks: in evaluation mode
    :param sources: luma of the first and the second source, or of one that is restored alone; float32 [1, 1, H, W] in
        [-1, 1]
    :param schedule: the full schedule
    """

    def __init__(self, networks: ReferenceNetworks, sources: tuple[Tensor, ...], schedule: NoiseSchedule) -> None:
        self.networks, self.sources, self.schedule = networks, sources, schedule

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        """Denoise; see :class:`.Denoiser`.

        :param z_t: float32 [1, 1, H, W], H and W multiples of 16
        :param t: timestep of the full schedule
        """
        timestep = as_timesteps(t, z_t)
        first, *others = self.sources
        if others:
            features = self.networks.fuse_features(self.networks.encode_pair(z_t, first, others[0], timestep))
        else:
            features = self.networks.encoder(z_t, first, timestep)
        eps, v = self.networks.decoder(features, timestep)
        return make_denoised("eps", eps, z_t, t, self.schedule, (v + 1) / 2, clip=True)


@dataclass(frozen=True, eq=False)
class ReferenceFusion:
    """The result of :meth:`ReferencePipeline.run`.

    :ivar luma: Z_0, float32 [1, 1, h, w] in [-1, 1], of the size in which it was fused
    :ivar chroma: of the visible image, uint8 [h, w, 2] (Cb, Cr)
    :ivar size: height and width of the pair [pixels]
    """

    luma: Tensor
    chroma: np.ndarray
    size: tuple[int, int]

    @property
    def plain_luma(self) -> Tensor:
        """The same luma: there is no emphasis."""
        return self.luma

    def confidence(self) -> None:
        """None: the family has no estimate of the image's error."""

    def image(self, luma: Tensor | None = None, *, grey: bool = False) -> Tensor:
        """Join luma and chroma into a color image of the pair's size.

        :param luma: like the field ``luma``, which is the default
        :param grey: leave the chroma out; all channels are then equal
        :returns: uint8 [height, width, 3] RGB, on the CPU
        """
        levels = ((self.luma if luma is None else luma)[0, 0].cpu().numpy() + 1) * np.float32(127.5)
        y = levels.round().astype(np.uint8)
        cb, cr = np.moveaxis(self.chroma, 2, 0)
        rgb = np.dstack((y, y, y)) if grey else cv2.cvtColor(np.dstack((y, cr, cb)), cv2.COLOR_YCrCb2RGB)
        return torch.from_numpy(_enlarged(np.asarray(rgb, np.uint8), *self.size))


@dataclass(frozen=True, eq=False)
class ReferencePipeline:
    """The fusion of one image size with the published networks.

    :ivar networks: in evaluation mode
    :ivar schedule: the full noise schedule; timesteps index it
    :ivar steps: number of reverse steps; the program takes 25
    :ivar sampler: rule of one reverse step; the program's is ``posterior_mean``
    """

    networks: ReferenceNetworks
    schedule: NoiseSchedule
    steps: int
    sampler: Sampler

    def run(
        self,
        visible: Tensor,
        infrared: Tensor,
        noise: Noise,
        emphasis: Emphasis | None = None,
        *,
        confidence: bool = False,
        lap: Lap = no_lap,
    ) -> ReferenceFusion:
        """Fuse one pair.

        :param visible: uint8 [height, width, 3] RGB; 16 bits (int32) lose the lower eight
        :param infrared: uint8 [height, width, 1]
        :param noise: source of the noise
        :param emphasis: must be empty: the published weights know no text
        :param confidence: must be off: the published variance is that of a step, not of the image
        :param lap: called with the name of each stage at its end
        :raises ImageError: smaller than 16 pixels
        """
        assert not emphasis and not confidence
        # 1. 8-bit luma and chroma by Pillow, at the size of the program.
        size = infrared.shape[0], infrared.shape[1]
        y, cb, cr = _channels(_as_rgb(visible))
        other, *_ = _channels(infrared.cpu().numpy())
        sources = tuple(_signed(luma, visible.device) for luma in (y, other))  # [1, 1, h, w]
        if self.networks.config.task == "medical":
            sources = sources[::-1]
        lap("prepare")
        # 2. The reverse process of the fused luma, from noise Z_T to Z_0.
        start = start_noise(sources[0].shape, noise, visible.device)
        *_, last = self.reverse(sources, start, noise)
        lap("steps")
        # 3. Chroma is that of the visible image.
        return ReferenceFusion(last.z.clamp(-1, 1), np.dstack((cb, cr)), size)

    def restore(self, image: Tensor, sensor: str, noise: Noise, *, grey: bool = False, lap: Lap = no_lap) -> Tensor:
        """Restore the luma of one source alone (equation 1): decode its own features.

        :param image: uint8 [height, width, 3] RGB; 16 bits (int32) lose the lower eight
        :param sensor: ``visible`` or ``infrared``, whose result is grey
        :param noise: source of the noise
        :param grey: leave the chroma out; all channels are then equal
        :param lap: called with the name of each stage at its end
        :returns: uint8 [height, width, 3] RGB
        :raises ImageError: smaller than 16 pixels
        """
        y, cb, cr = _channels(_as_rgb(image))
        source = _signed(y, image.device)
        lap("prepare")
        *_, last = self.reverse((source,), start_noise(source.shape, noise, image.device), noise)
        lap("steps")
        size = image.shape[0], image.shape[1]
        fusion = ReferenceFusion(last.z.clamp(-1, 1), np.dstack((cb, cr)), size)
        return fusion.image(grey=grey or sensor == INFRARED)

    def reverse(self, sources: tuple[Tensor, ...], start: Tensor, noise: Noise | None = None) -> Iterator[ReverseStep]:
        """Run the reverse process, step by step.

        :param sources: see :class:`ReferenceDenoiser`
        :param start: Z_T, float32 [1, 1, H, W]
        :param noise: source of the step noise; may be None where the sampler draws none
        """
        schedule = respace(self.schedule, space_with_ends(len(self.schedule), self.steps))
        denoiser = ReferenceDenoiser(self.networks, sources, self.schedule)
        return reverse(denoiser, start, schedule, self.sampler, noise)


def fused_size(width: int, height: int) -> tuple[int, int]:
    """The size in which the program fuses an image: width and height [pixels].

    :param width: of the image [pixels]
    :param height: of the image [pixels]
    """
    width, height = _scaled_size(width, height)
    return width - width % MULTIPLE, height - height % MULTIPLE


def _scaled_size(width: int, height: int) -> tuple[int, int]:
    """The size before it is cut to multiples."""
    width, height = _halved_size(width, height)
    if min(width, height) < LONGEST_SHORT_SIDE:
        return width, height
    scale = LONGEST_SHORT_SIDE / min(width, height)
    return round(width * scale), round(height * scale)


def _halved_size(width: int, height: int) -> tuple[int, int]:
    while min(width, height) >= 2 * LONGEST_SHORT_SIDE:
        width, height = width // 2, height // 2
    return width, height


def _as_rgb(stored: Tensor) -> np.ndarray:
    rgb = stored if stored.dtype == torch.uint8 else (stored >> 8).to(torch.uint8)
    return rgb.cpu().numpy()


def _channels(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma, Cb and Cr, each uint8 [h, w], at the size of :func:`fused_size`."""
    # Pillow's luma of three equal channels is not always their value; grey files have one.
    image = Image.fromarray(stored[:, :, 0] if stored.shape[2] == 1 or is_grey(stored) else stored).convert("YCbCr")
    width, height = fused_size(*image.size)
    if not width or not height:
        raise ImageError("the size of the pair", f"{MULTIPLE} pixels or more in both directions", image.size)
    while min(image.size) >= 2 * LONGEST_SHORT_SIDE:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if min(image.size) >= LONGEST_SHORT_SIDE:
        image = image.resize(_scaled_size(*image.size), Image.Resampling.BICUBIC)
    y, cb, cr = np.moveaxis(np.array(image)[:height, :width], 2, 0)
    return y, cb, cr


def _signed(levels: np.ndarray, device: torch.device) -> Tensor:
    """Map 8-bit levels to float32 [1, 1, h, w] in [-1, 1]."""
    return torch.from_numpy(levels.astype(np.float32) / 127.5 - 1)[None, None].to(device)


def _enlarged(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Give a fused image the pair's size: repeat its edge in place of what was cut off, then undo the scaling."""
    scaled_width, scaled_height = _scaled_size(width, height)
    rim = scaled_height - image.shape[0], scaled_width - image.shape[1]
    image = np.pad(image, ((0, rim[0]), (0, rim[1]), (0, 0)), mode="edge")
    if (scaled_width, scaled_height) == (width, height):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
