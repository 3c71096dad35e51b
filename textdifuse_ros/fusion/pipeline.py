"""The method as one computation on tensors: :meth:`Pipeline.run`.

Nothing here waits for the device or copies from the host, except the measuring of an :class:`.Emphasis` on the CPU's
route. The same code therefore runs operation by operation and is captured as CUDA graphs (:mod:`.graphs`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.prior import GaussianPrior
from textdifuse_ros.diffusion.process import ReverseStep, reverse, start_noise
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.samplers import NoiseCrop, NoiseTape, Sampler, fork
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.fusion.denoise import FeatureDenoiser, luma_prior
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.modulation import EmphasizedObjects, MaskedModulation, RegionModulation
from textdifuse_ros.fusion.regions import cut
from textdifuse_ros.image.color import rgb_to_ycbcr, ycbcr_to_rgb
from textdifuse_ros.image.ranges import signed_to_unit, to_levels, to_unit, unit_to_signed
from textdifuse_ros.image.sizing import crop_to, pad_to_multiple
from textdifuse_ros.networks.drive import MULTIPLE, SENSOR_INDEX, DriveNetworks
from textdifuse_ros.networks.encoder import Pyramid
from textdifuse_ros.networks.illuminant import normalize_gains
from textdifuse_ros.sensors import INFRARED

LEVELS_PER_UNIT = 127.5
"""Grey levels of a difference of 1 in [-1, 1]."""

Noise = torch.Generator | NoiseTape
Lap = Callable[[str], None]


def no_lap(name: str) -> None:
    """Ignore the end of a stage.

    :param name: of the stage
    """


class YCbCrImage(NamedTuple):
    """A padded color image and its components.

    :ivar rgb: float32 [1, 3, H, W] in [0, 1]
    :ivar luma: float32 [1, 1, H, W] in [0, 1]
    :ivar chroma: float32 [1, 2, H, W] in [-0.5, 0.5]
    """

    rgb: Tensor
    luma: Tensor
    chroma: Tensor


@dataclass(frozen=True, eq=False)
class Fusion:
    """The result of :meth:`Pipeline.run`, and the intermediates from which objects can be emphasized.

    H and W are the padded size. Luma is float32 [1, 1, H, W] in [-1, 1].

    :ivar luma: fused luma, with the emphasis if one was given
    :ivar plain_luma: fused luma without it
    :ivar chroma: restored chroma, float32 [1, 2, H, W] in [-0.5, 0.5]
    :ivar size: height and width before padding [pixels]
    :ivar infrared: float32 [1, 1, H, W] in [-1, 1]
    :ivar sources: weighted features of the visible and the infrared image, ``w Phi`` of equation (3)
    :ivar start: Z_T, float32 [1, 1, H, W]
    :ivar noise: the source that the luma process drew its step noise from, positioned after ``start``
    :ivar estimates: of every reverse step; empty unless recorded
    :ivar spread: variance of the fused luma given the pair, float32 [1, 1, H, W]; None unless requested
    """

    luma: Tensor
    plain_luma: Tensor
    chroma: Tensor
    size: tuple[int, int]
    infrared: Tensor
    sources: tuple[Pyramid, Pyramid]
    start: Tensor
    noise: Noise
    estimates: tuple[Denoised, ...]
    spread: Tensor | None = None

    def confidence(self) -> Tensor | None:
        """Expected absolute error of the plain luma [grey levels], float32 [height, width]; None unless requested.

        Of a normal distribution it is ``sqrt(2 / pi)`` times the standard deviation.
        """
        if self.spread is None:
            return None
        return crop_to(LEVELS_PER_UNIT * (2 / math.pi * self.spread).sqrt(), *self.size)[0, 0]

    def image(self, luma: Tensor | None = None, *, grey: bool = False) -> Tensor:
        """Join luma and chroma into a color image.

        :param luma: like the field ``luma``, which is the default
        :param grey: leave the chroma out; all channels are then equal
        :returns: uint8 [height, width, 3] RGB
        """
        luma = self.luma if luma is None else luma
        return join_grey(luma, self.size) if grey else join(luma, self.chroma, self.size)


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The fusion of one image size with one set of weights.

    :ivar networks: in evaluation mode
    :ivar schedule: the full noise schedule; timesteps index it
    :ivar steps: number of reverse steps
    :ivar sampler: rule of one reverse step
    :ivar full_frame: decode the whole frame for emphasized objects instead of regions around them: more arithmetic, but
        always the same operations, as CUDA graphs need
    """

    networks: DriveNetworks
    schedule: NoiseSchedule
    steps: int
    sampler: Sampler
    full_frame: bool = False

    def run(
        self,
        visible: Tensor,
        infrared: Tensor,
        noise: Noise,
        emphasis: Emphasis | None = None,
        *,
        record: bool = False,
        confidence: bool = False,
        lap: Lap = no_lap,
    ) -> Fusion:
        """Fuse one pair: equations (2) to (8), and (12), (13) for emphasized objects.

        :param visible: uint8 or uint16 [height, width, 3] RGB
        :param infrared: uint8 [height, width, 1]
        :param noise: source of the noise; drawn from in a fixed order
        :param emphasis: the objects to emphasize
        :param record: keep the estimates of every step, for a later :meth:`emphasize`
        :param confidence: compute :attr:`Fusion.spread`; the networks must have a prior
        :param lap: called with the name of each stage at its end
        """
        # 1. Floats in [0, 1], padded; luma X^b and chroma X^c (BT.601, full range).
        x = split(padded(visible))  # luma [1, 1, H, W], chroma [1, 2, H, W]
        y = unit_to_signed(padded(infrared))  # [1, 1, H, W]
        lap("prepare")

        # 2. Equation (2): one encoder E for both sources, once per frame instead of at every step (ADR 2).
        luma = self.networks.luma
        phi_x, phi_y = luma.encode_pair(unit_to_signed(self._white_balanced(x)), y)
        # 3. Equation (3): the FCM weighs them; Phi^f is the sum.
        sources = luma.control.weigh_sources(phi_x, phi_y)
        phi_f = tuple(a + b for a, b in zip(*sources, strict=True))
        lap("encode")

        # 4. Equations (4) to (8): the reverse process of the fused luma, from noise Z_T to Z_0.
        start = start_noise(y.shape, noise, y.device)
        step_noise = fork(noise)
        steps = _Steps(self._reverse_luma(phi_f, start, noise, variance=confidence), keep=record)
        # 5. Equations (12), (13): beside it, step by step, a modulated process of the emphasized objects.
        objects = self._objects(sources, y, emphasis) if emphasis else None
        modulated = None if objects is None else self._modulated(start, step_noise, steps, objects)
        plain = steps.finish().clamp(-1, 1)
        fused = plain if objects is None or modulated is None else _put(modulated, plain, objects)
        lap("steps")

        # 6. Color: X^c is restored alone, by a regression (ADR 14).
        chroma = self._restored_chroma(x)
        lap("chroma")

        size = infrared.shape[0], infrared.shape[1]
        spread = steps.first.x0_variance if confidence else None
        return Fusion(fused, plain, chroma, size, y, sources, start, step_noise, tuple(steps.kept), spread)

    def objects_of(self, plain: Fusion, emphasis: Emphasis) -> RegionModulation:
        """The emphasized objects of a fused pair; reads from the device.

        :param plain: the fusion without them
        :param emphasis: of an image of its size
        """
        return self._objects(plain.sources, plain.infrared, emphasis)

    def emphasize(self, plain: Fusion, objects: EmphasizedObjects) -> Fusion:
        """Step 5 of :meth:`run`. On CUDA it is a graph of its own, since the host must measure the objects before it.

        :param plain: recorded, with :attr:`Fusion.estimates`
        :param objects: of the same pair
        """
        modulated = self._modulated(plain.start, plain.noise, plain.estimates, objects)
        return replace(plain, luma=_put(modulated, plain.plain_luma, objects))

    def _objects(self, sources: tuple[Pyramid, Pyramid], infrared: Tensor, emphasis: Emphasis) -> RegionModulation:
        assert self.networks.modulation is not None
        return RegionModulation(self.networks.modulation, sources, infrared, emphasis, full_frame=self.full_frame)

    def _modulated(
        self, start: Tensor, noise: Noise, estimates: Iterable[Denoised], objects: EmphasizedObjects
    ) -> Tensor:
        """Run the modulated process on the part of the frame that holds the objects; [1, 1, h, w] in [-1, 1].

        The plain process is never changed: it would carry the objects beyond their masks through the decoder's
        receptive field. So everything outside the masks keeps its bytes.
        """
        top, left, bottom, right = objects.part
        cropped = NoiseCrop(fork(noise), start.shape, slice(top, bottom), slice(left, right))
        denoiser = MaskedModulation(self.networks.luma.decoder, self.schedule, estimates, objects, self._luma_prior)
        *_, last = reverse(denoiser, cut(start, objects.part), self._respaced(), self.sampler, cropped)
        return last.z.clamp(-1, 1)

    def restore(self, image: Tensor, sensor: str, noise: Noise, *, grey: bool = False, lap: Lap = no_lap) -> Tensor:
        """Restore one source alone (equation 1): its own features stand in for Phi^f.

        :param image: uint8 or uint16 [height, width, 3] RGB; an infrared image has three equal channels
        :param sensor: ``visible`` or ``infrared``
        :param noise: source of the noise
        :param grey: leave the chroma out; all channels are then equal
        :param lap: called with the name of each stage at its end
        :returns: uint8 [height, width, 3] RGB
        """
        x = split(padded(image))
        lap("prepare")
        luma = x.luma if sensor == INFRARED else self._white_balanced(x)
        source = torch.full((1,), SENSOR_INDEX[sensor], device=luma.device)
        phi = self.networks.luma.encoder(unit_to_signed(luma), source)
        lap("encode")
        start = start_noise(x.luma.shape, noise, x.luma.device)
        *_, last = self._reverse_luma(phi, start, noise)
        lap("steps")
        size = image.shape[0], image.shape[1]
        chroma = None if grey else self._restored_chroma(x)
        lap("chroma")
        luma = last.z.clamp(-1, 1)
        return join_grey(luma, size) if chroma is None else join(luma, chroma, size)

    @cached_property
    def _luma_prior(self) -> GaussianPrior | None:
        return luma_prior(self.networks.config, self.schedule)

    def _respaced(self) -> NoiseSchedule:
        return respace(self.schedule, space_timesteps(len(self.schedule), self.steps))

    def _reverse_luma(
        self, features: Pyramid, start: Tensor, noise: Noise, *, variance: bool = False
    ) -> Iterator[ReverseStep]:
        """Run the luma process on the given features, step by step."""
        decoder, learned = self.networks.luma.decoder, variance or self.sampler.uses_variance
        denoiser = FeatureDenoiser(decoder, features, self.schedule, prior=self._luma_prior, variance=learned)
        return reverse(denoiser, start, self._respaced(), self.sampler, noise)

    def _restored_chroma(self, visible: YCbCrImage) -> Tensor:
        """Restore chroma at half the size; float32 [1, 2, H, W] in [-0.5, 0.5]."""
        chroma = self.networks.chroma
        restored = chroma(chroma.white_balance(_half_size(visible)))  # [1, 2, H / 2, W / 2]
        return F.interpolate(restored.clamp(-1, 1) / 2, scale_factor=2, mode="bilinear", align_corners=False)

    def _white_balanced(self, visible: YCbCrImage) -> Tensor:
        """Luma without the illuminant's color, at unchanged brightness; float32 [1, 1, H, W] in [0, 1]."""
        estimator = self.networks.chroma.light
        if estimator is None:
            return visible.luma
        gains = estimator(_half_size(visible))
        return rgb_to_ycbcr((visible.rgb * normalize_gains(gains)).clamp(0, 1))[0]


class _Steps:
    """The plain process: iterates over its estimates, so that another process can run beside it.

    :ivar first: the estimate from pure noise
    :ivar kept: the estimates so far, where they are kept
    """

    first: Denoised

    def __init__(self, steps: Iterator[ReverseStep], *, keep: bool) -> None:
        self._steps, self._keep = steps, keep
        self.kept: list[Denoised] = []

    def __iter__(self) -> Iterator[Denoised]:
        for number, step in enumerate(self._steps):
            self._z = step.z
            if number == 0:
                self.first = step.denoised
            if self._keep:
                self.kept.append(step.denoised)
            yield step.denoised

    def finish(self) -> Tensor:
        """Take the steps that are left, and return Z_0."""
        for _ in self:
            pass
        return self._z


def _put(modulated: Tensor, plain: Tensor, objects: EmphasizedObjects) -> Tensor:
    """Put the emphasized part into the plain luma; leaves both unchanged."""
    luma = plain.clone()
    cut(luma, objects.part).copy_(modulated)
    return luma


def padded(stored: Tensor) -> Tensor:
    """Convert a stored image to floats and pad it.

    The size becomes a multiple of twice what the networks take, since chroma is restored at half the size.

    :param stored: uint8 or uint16 [height, width, C]
    :returns: float32 [1, C, H, W] in [0, 1]
    """
    return pad_to_multiple(to_unit(stored), 2 * MULTIPLE)


def split(rgb: Tensor) -> YCbCrImage:
    """Split a color image into luma and chroma.

    :param rgb: float32 [1, 3, H, W] in [0, 1]
    """
    return YCbCrImage(rgb, *rgb_to_ycbcr(rgb))


def join(luma: Tensor, chroma: Tensor, size: tuple[int, int]) -> Tensor:
    """Join luma and chroma, and crop the padding.

    :param luma: float32 [1, 1, H, W] in [-1, 1]
    :param chroma: float32 [1, 2, H, W] in [-0.5, 0.5]
    :param size: height and width of the result [pixels]
    :returns: uint8 [height, width, 3] RGB
    """
    return to_levels(crop_to(ycbcr_to_rgb(signed_to_unit(luma), chroma), *size))


def join_grey(luma: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat luma in all channels, and crop the padding.

    :param luma: float32 [1, 1, H, W] in [-1, 1]
    :param size: height and width of the result [pixels]
    :returns: uint8 [height, width, 3] RGB
    """
    return to_levels(crop_to(signed_to_unit(luma), *size)).repeat(1, 1, 3)


def _half_size(image: YCbCrImage) -> Tensor:
    """The chroma networks' input: luma and twice the chroma at half the size, [1, 3, H / 2, W / 2] in [-1, 1]."""
    return F.avg_pool2d(torch.cat((unit_to_signed(image.luma), 2 * image.chroma), 1), 2)
