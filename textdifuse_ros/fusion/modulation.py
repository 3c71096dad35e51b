"""Text re-modulation in the reverse loop, equations (12) and (13).

The plain process runs as if there were no text; beside it runs a modulated one on the objects and their surroundings
only. Blending at every step is the modulated process's own affair: if the plain one saw the blended image, pixels
outside the objects would change through the decoder's receptive field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.process import reverse
from textdifuse_ros.diffusion.samplers import NoiseCrop, NoiseTape, Sampler, fork
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.fusion.denoise import DecodingDenoiser, RecordingDenoiser, as_timesteps
from textdifuse_ros.fusion.emphasis import (
    RING,
    Emphasis,
    amounts,
    named_pixels,
    object_boxes,
    surroundings,
    with_ring,
)
from textdifuse_ros.fusion.regions import alike, bounds, boxes_within, cut, cut_all, everything, find_regions
from textdifuse_ros.image.ranges import signed_to_unit
from textdifuse_ros.networks.encoder import STEM, Pyramid, cell_of
from textdifuse_ros.networks.modulation import Modulation

AHEAD = 8
"""Steps that the plain process is ahead of the modulated one; their estimates are kept."""


@dataclass(frozen=True, eq=False)
class _Faint:
    """An object that is played down: at most until it is as bright as its surroundings, and never made to stand out.

    Kappa is found for features, and where the contrast is small already it may lead past equality, or away from it.

    :ivar near: the rows and columns of the object and the ring around it, in the part that is decoded
    :ivar inside: float32 [1, 1, h, w], 1 on the object
    :ivar ring: likewise, on its surroundings
    """

    near: tuple[slice, slice]
    inside: Tensor
    ring: Tensor

    def hold(self, plain: Tensor, played_down: Tensor) -> None:
        """Take as much of the change back, in place, as goes past equality or away from it; [1, 1, H, W] each."""
        before, after = (image[..., self.near[0], self.near[1]] for image in (plain, played_down))
        around = (before * self.ring).sum() / self.ring.sum()
        contrast, left = ((image * self.inside).sum() / self.inside.sum() - around for image in (before, after))
        # The share of the change that leads to equality; where the change leads away from it, none.
        kept = (contrast / (contrast - left)).nan_to_num(1.0).clamp(0, 1)
        after.copy_(torch.where(self.inside > 0, torch.lerp(before, after, kept), after))


def _faint_objects(strengths: np.ndarray, objects: np.ndarray | None, device: torch.device) -> list[_Faint]:
    """The objects of negative strength that have surroundings to be compared with, of the part that is decoded."""
    faint = strengths < 0
    if not faint.any():
        return []
    named = named_pixels(strengths, objects)
    if objects is None:
        _, objects = cv2.connectedComponents(faint.astype(np.uint8), connectivity=8)
    found = []
    for number, box in object_boxes(objects, faint):
        near = with_ring(box)
        mask = faint[near] & (objects[near] == number)
        ring = surroundings(mask, named[near])
        if ring.any():
            inside, around = (torch.from_numpy(part.astype(np.float32))[None, None].to(device) for part in (mask, ring))
            found.append(_Faint(near, inside, around))
    return found


class Modulated:
    """The objects of one image, ready for the reverse process.

    :param modulation: gives kappa
    :param sources: both sources' weighted features, of one image
    :param infrared: [1, 1, H, W] in [-1, 1]
    :param emphasis: of the upper left part of it that is the image; the rest only fills up
    :param whole: decode the whole image, not only what lies around the objects: more arithmetic in fewer and always
        the same operations
    :ivar groups: what is decoded, regions of one size together
    :ivar part: the part of the image that holds all of them, and the objects' surroundings
    :ivar soft: the mask M of equation (13) there, float32 [1, 1, h, w]
    :ivar faint: the objects that are played down
    :ivar plain: what the plain process has come to, float32 [1, 1, H, W] in [-1, 1]; set by :meth:`run`
    """

    plain: Tensor

    def __init__(
        self,
        modulation: Modulation,
        sources: tuple[Pyramid, Pyramid],
        infrared: Tensor,
        emphasis: Emphasis,
        *,
        whole: bool = False,
    ) -> None:
        self._modulation, self._sources = modulation, sources
        height, width = infrared.shape[-2:]
        strengths = _filled_up(emphasis.strengths, height, width)
        self.groups = everything(height, width) if whole else alike(find_regions(strengths), height, width)
        self.part = bounds(self.groups, height, width, RING)
        top, left, bottom, right = self.part
        rows, columns = slice(top, bottom), slice(left, right)
        # Softened before it is filled up: an object that the image cuts off has no border there.
        soft = _filled_up(emphasis.soft, height, width)[rows, columns]
        self.soft = torch.from_numpy(soft)[None, None].to(infrared.device)
        objects = None if emphasis.objects is None else _filled_up(emphasis.objects, height, width)
        apart = None if objects is None else objects[rows, columns]
        self.faint = _faint_objects(strengths[rows, columns], apart, infrared.device)
        # What the host has to know is brought from the device, and no more.
        rows, columns = with_ring(cv2.boundingRect((strengths != 0).view(np.uint8)))
        self._near = rows.start, columns.start, min(rows.stop, height), min(columns.stop, width)
        self._infrared, self._strengths = cut(infrared, self._near), strengths[rows, columns]
        self._apart = None if objects is None else objects[rows, columns]

    def amounts(self, plain: Tensor) -> Tensor:
        """How much brighter, darker and fainter in the part, float32 [1, 3, h, w], see :func:`amounts`.

        :param plain: float32 [1, 1, H, W], the plain process's first estimate
        """
        return self._placed(self._asked(plain), plain)

    def _asked(self, plain: Tensor) -> np.ndarray:
        """The amounts near the objects."""
        return amounts(_to_unit(cut(plain, self._near)), _to_unit(self._infrared), self._strengths, self._apart)

    def _placed(self, asked: np.ndarray, plain: Tensor) -> Tensor:
        top, left, bottom, right = self.part
        placed = plain.new_zeros((1, 3, bottom - top, right - left))
        (near,) = boxes_within([self._near], self.part)
        cut(placed, near).copy_(torch.from_numpy(asked))
        return placed

    def features(self, plain: Tensor) -> list[Pyramid]:
        """The modulated features of each group of regions (equation 12).

        :param plain: float32 [1, 1, H, W], the plain process's first estimate
        """
        asked = self._asked(plain)
        wanted = self._placed(asked, plain)
        (top, left, bottom, right), cell = self.part, 2 * STEM
        where = slice(top // cell, bottom // cell), slice(left // cell, right // cell)
        context = self._modulation.context(*self._sources, wanted, plain, where)
        found = []
        for regions in self.groups:
            boxes = [region.whole for region in regions]
            visible, infrared = (
                tuple(cut_all(level, boxes, cell_of(n)) for n, level in enumerate(source)) for source in self._sources
            )
            inner = boxes_within(boxes, self.part)
            # A core may be the whole image, larger than what is near the objects.
            cores = np.maximum(boxes_within([region.core for region in regions], self._near), 0)
            parts = [asked[:, up:down, west:east].any((1, 2)) for up, west, down, east in cores]
            ways = np.flatnonzero(np.any(parts, 0)).tolist()
            around = cut_all(context, inner, cell)
            found.append(self._modulation(visible, infrared, cut_all(wanted, inner), around, ways))
        return found

    def run(
        self,
        denoiser: DecodingDenoiser,
        start: Tensor,
        schedule: NoiseSchedule,
        sampler: Sampler,
        noise: torch.Generator | NoiseTape,
    ) -> Tensor:
        """The plain and the modulated process with the same noise; what the second one has come to, [1, 1, H, W].

        The plain one goes some steps ahead: in turns each would find the other's data in the processor's cache. The
        modulated one runs on the part that holds the objects, for elsewhere it is the plain one.

        Arguments as of :func:`textdifuse_ros.diffusion.process.reverse`; the noise is left as the plain process alone
        would leave it.

        :param denoiser: the plain one
        """
        plain = RecordingDenoiser(denoiser)
        top, left, bottom, right = self.part
        twin = NoiseCrop(fork(noise), start.shape, slice(top, bottom), slice(left, right))
        steps = reverse(plain, start, schedule, sampler, noise)
        masked = MaskedModulation(denoiser, plain.take, self)
        modulated = reverse(masked, cut(start, self.part), schedule, sampler, twin)
        while ahead := list(islice(steps, AHEAD)):
            self.plain = ahead[-1].z
            *_, last = islice(modulated, len(ahead))
        result = self.plain.clone()
        cut(result, self.part).copy_(last.z)
        return result


class FullFrameModulation:
    """What :class:`Modulated` is where the whole image is decoded and nothing is played down, of tensors alone.

    :param amounts: of :meth:`Modulated.amounts`, float32 [1, 3, H, W]
    :param soft: as of :class:`Modulated`
    """

    def __init__(self, modulation: Modulation, sources: tuple[Pyramid, Pyramid], amounts: Tensor, soft: Tensor) -> None:
        self._modulation, self._sources, self._amounts = modulation, sources, amounts
        self.soft = soft
        self.groups = everything(*soft.shape[2:])
        self.part = self.groups[0][0].whole
        self.faint: list[_Faint] = []

    def features(self, plain: Tensor) -> list[Pyramid]:
        """As of :class:`Modulated`."""
        context = self._modulation.context(*self._sources, self._amounts, plain)
        return [self._modulation(*self._sources, self._amounts, context)]


class MaskedModulation:
    """The modulated process's denoiser: the plain estimate, and its own of the objects (equation 13).

    The blend is taken on the estimate x0: the samplers' steps are linear in it and the noise is the same, so z is
    blended with it.

    :param denoiser: the plain process's
    :param plain: gives that one's estimates, step by step
    """

    def __init__(
        self, denoiser: DecodingDenoiser, plain: Callable[[], Denoised], objects: Modulated | FullFrameModulation
    ) -> None:
        self.decoder, self.schedule = denoiser.decoder, denoiser.schedule
        self._plain, self._objects = plain, objects
        self._regions = [[region.within(objects.part) for region in regions] for regions in objects.groups]
        self._features: list[Pyramid] | None = None

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        """See :class:`.Denoiser`; of the part that holds the objects."""
        estimate = self._plain()
        if self._features is None:
            self._features = self._objects.features(estimate.x0)
        timestep = as_timesteps(t, z_t)
        plain = cut(estimate.x0, self._objects.part)
        variance = None if estimate.variance is None else cut(estimate.variance, self._objects.part)
        x0 = plain.clone()
        for regions, features in zip(self._regions, self._features, strict=True):
            seen = cut_all(z_t, [region.whole for region in regions])
            estimates, _ = self.decoder(features, seen, timestep, variance=False)
            for region, decoded in zip(regions, estimates.split(1), strict=True):
                before, soft = (cut(image, region.core) for image in (plain, self._objects.soft))
                after = cut(decoded, region.core_in_whole).clamp(-1, 1)
                cut(x0, region.core).copy_(torch.lerp(before, after, soft))
        for item in self._objects.faint:
            item.hold(plain, x0)
        return make_denoised("x0", x0, z_t, t, self.schedule, variance)


def _to_unit(image: Tensor) -> np.ndarray:
    """[1, 1, H, W] in [-1, 1] to float32 [H, W] in [0, 1]."""
    unit: np.ndarray = signed_to_unit(image[0, 0].float()).cpu().numpy()
    return unit


def _filled_up(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """With zeros to the right and below."""
    down, right = height - image.shape[0], width - image.shape[1]
    return np.pad(image, ((0, down), (0, right))) if down or right else image
