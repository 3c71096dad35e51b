"""Text re-modulation in the reverse process, equations (12) and (13).

The plain process runs as if there were no text. Beside it runs a modulated process, on the objects and their
surroundings only; :meth:`.Pipeline.emphasize` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.prior import GaussianPrior
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.fusion.denoise import as_timesteps
from textdifuse_ros.fusion.emphasis import (
    RING,
    Emphasis,
    amounts,
    named_pixels,
    object_boxes,
    surroundings,
    with_ring,
)
from textdifuse_ros.fusion.regions import (
    Box,
    Region,
    bounds,
    boxes_within,
    cut,
    cut_all,
    find_regions,
    full_frame_region,
    merge_sizes,
)
from textdifuse_ros.image.ranges import signed_to_unit
from textdifuse_ros.networks.decoder import Decoder
from textdifuse_ros.networks.encoder import STEM, Pyramid, cell_of
from textdifuse_ros.networks.modulation import Modulation


@dataclass(frozen=True, eq=False)
class _FaintObject:
    """A suppressed object: its contrast to its background ring may fall to zero, but neither invert nor grow.

    Kappa acts on features, so on an object of low contrast it may do either.

    :ivar near: rows and columns of the object and its ring, in the decoded part
    :ivar inside: float32 [1, 1, h, w], 1 on the object
    :ivar ring: float32 [1, 1, h, w], 1 on its background ring
    """

    near: tuple[slice, slice]
    inside: Tensor
    ring: Tensor

    def limit(self, plain: Tensor, suppressed: Tensor) -> None:
        """Undo, in place, the part of the change that inverts or increases the contrast.

        :param plain: float32 [1, 1, h, w] in [-1, 1]
        :param suppressed: likewise; written to
        """
        before, after = (image[..., self.near[0], self.near[1]] for image in (plain, suppressed))
        around = (before * self.ring).sum() / self.ring.sum()
        contrast, left = ((image * self.inside).sum() / self.inside.sum() - around for image in (before, after))
        # The share of the change that brings the contrast to zero; none where the change increases it.
        kept = (contrast / (contrast - left)).nan_to_num(1.0).clamp(0, 1)
        after.copy_(torch.where(self.inside > 0, torch.lerp(before, after, kept), after))


def _faint_objects(strengths: np.ndarray, objects: np.ndarray | None, device: torch.device) -> list[_FaintObject]:
    """The objects of negative strength, in the decoded part; those without a background ring are left out."""
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
            found.append(_FaintObject(near, inside, around))
    return found


class EmphasizedObjects(Protocol):
    """The emphasized objects as the modulated process needs them.

    :ivar groups: the regions to decode, those of one size together
    :ivar part: the part of the frame that holds the regions and the objects' surroundings
    :ivar soft: mask M of equation (13) in that part, float32 [1, 1, h, w] in [0, 1]
    :ivar faint: the suppressed objects
    """

    groups: list[list[Region]]
    part: Box
    soft: Tensor
    faint: list[_FaintObject]

    def features(self, plain: Tensor) -> list[Pyramid]:
        """The modulated features of each group (equation 12).

        :param plain: float32 [1, 1, H, W] in [-1, 1], the plain process's first estimate of x0
        """
        ...


class RegionModulation:
    """Emphasized objects of which only the surrounding regions are decoded; the amounts are measured on the host.

    :param modulation: gives kappa
    :param sources: both sources' weighted features
    :param infrared: float32 [1, 1, H, W] in [-1, 1], padded
    :param emphasis: of the frame before padding
    :param full_frame: decode one region, the whole frame
    """

    def __init__(
        self,
        modulation: Modulation,
        sources: tuple[Pyramid, Pyramid],
        infrared: Tensor,
        emphasis: Emphasis,
        *,
        full_frame: bool = False,
    ) -> None:
        self._modulation, self._sources = modulation, sources
        height, width = infrared.shape[-2:]
        strengths = _zero_padded(emphasis.strengths, height, width)
        self.groups = (
            full_frame_region(height, width) if full_frame else merge_sizes(find_regions(strengths), height, width)
        )
        self.part = bounds(self.groups, height, width, RING)
        top, left, bottom, right = self.part
        rows, columns = slice(top, bottom), slice(left, right)
        # Softened before padding: an object cut off by the image has no border there.
        soft = _zero_padded(emphasis.soft, height, width)[rows, columns]
        self.soft = torch.from_numpy(soft)[None, None].to(infrared.device)
        objects = None if emphasis.objects is None else _zero_padded(emphasis.objects, height, width)
        apart = None if objects is None else objects[rows, columns]
        self.faint = _faint_objects(strengths[rows, columns], apart, infrared.device)
        # Only what the host measures is copied from the device.
        rows, columns = with_ring(cv2.boundingRect((strengths != 0).view(np.uint8)))
        self._near = rows.start, columns.start, min(rows.stop, height), min(columns.stop, width)
        self._infrared, self._strengths = cut(infrared, self._near), strengths[rows, columns]
        self._apart = None if objects is None else objects[rows, columns]

    def amounts(self, plain: Tensor) -> Tensor:
        """Measure how much brighter, darker and fainter each pixel of the part becomes; see :func:`.emphasis.amounts`.

        :param plain: float32 [1, 1, H, W] in [-1, 1], the plain process's first estimate of x0
        :returns: float32 [1, 3, h, w] in [0, 2]
        """
        return self._placed(self._measured(plain), plain)

    def _measured(self, plain: Tensor) -> np.ndarray:
        """The amounts near the objects."""
        return amounts(_to_unit(cut(plain, self._near)), _to_unit(self._infrared), self._strengths, self._apart)

    def _placed(self, measured: np.ndarray, plain: Tensor) -> Tensor:
        """Put the amounts near the objects into a tensor of the decoded part."""
        top, left, bottom, right = self.part
        placed = plain.new_zeros((1, 3, bottom - top, right - left))
        (near,) = boxes_within([self._near], self.part)
        cut(placed, near).copy_(torch.from_numpy(measured))
        return placed

    def features(self, plain: Tensor) -> list[Pyramid]:
        """The modulated features of each group (equation 12).

        :param plain: float32 [1, 1, H, W] in [-1, 1], the plain process's first estimate of x0
        """
        measured = self._measured(plain)
        placed = self._placed(measured, plain)
        (top, left, bottom, right), cell = self.part, 2 * STEM
        where = slice(top // cell, bottom // cell), slice(left // cell, right // cell)
        context = self._modulation.context(*self._sources, placed, plain, where)
        found = []
        for regions in self.groups:
            boxes = [region.whole for region in regions]
            visible, infrared = (
                tuple(cut_all(level, boxes, cell_of(n)) for n, level in enumerate(source)) for source in self._sources
            )
            inner = boxes_within(boxes, self.part)
            # A core may be the whole image, larger than the measured area near the objects.
            cores = np.maximum(boxes_within([region.core for region in regions], self._near), 0)
            parts = [measured[:, up:down, west:east].any((1, 2)) for up, west, down, east in cores]
            directions = np.flatnonzero(np.any(parts, 0)).tolist()
            around = cut_all(context, inner, cell)
            found.append(self._modulation(visible, infrared, cut_all(placed, inner), around, directions))
        return found


class FullFrameModulation:
    """Emphasized objects of a frame that is decoded as a whole, without work on the host: fit for a CUDA graph.

    No object may be suppressed, since that requires measurements on the host.

    :param modulation: gives kappa
    :param sources: both sources' weighted features
    :param amounts: float32 [1, 3, H, W] in [0, 2], see :meth:`RegionModulation.amounts`
    :param soft: mask M of equation (13), float32 [1, 1, H, W] in [0, 1]
    """

    def __init__(self, modulation: Modulation, sources: tuple[Pyramid, Pyramid], amounts: Tensor, soft: Tensor) -> None:
        self._modulation, self._sources, self._amounts = modulation, sources, amounts
        self.soft = soft
        self.groups = full_frame_region(*soft.shape[2:])
        self.part = self.groups[0][0].whole
        self.faint: list[_FaintObject] = []

    def features(self, plain: Tensor) -> list[Pyramid]:
        """The modulated features of the frame (equation 12).

        :param plain: float32 [1, 1, H, W] in [-1, 1], the plain process's first estimate of x0
        """
        context = self._modulation.context(*self._sources, self._amounts, plain)
        return [self._modulation(*self._sources, self._amounts, context)]


class MaskedModulation:
    """The denoiser of the modulated process: the plain estimate outside the mask, its own inside (equation 13).

    The estimates of x0 are blended rather than Z. Every sampler's step is linear in x0 and both processes have the same
    noise, so this blends Z as well.

    :param decoder: of luma
    :param schedule: the full schedule
    :param estimates: of each plain step, float32 [1, 1, H, W]
    :param objects: to emphasize
    :param prior: of the decoder, or None
    """

    def __init__(
        self,
        decoder: Decoder,
        schedule: NoiseSchedule,
        estimates: Iterable[Denoised],
        objects: EmphasizedObjects,
        prior: GaussianPrior | None = None,
    ) -> None:
        self._decoder, self._schedule, self._prior = decoder, schedule, prior
        self._estimates = iter(estimates)
        self._objects = objects
        self._regions = [[region.within(objects.part) for region in regions] for regions in objects.groups]
        self._features: list[Pyramid] | None = None

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        """Denoise one step of the part that holds the objects; see :class:`.Denoiser`.

        :param z_t: float32 [1, 1, h, w], the part of Z_t
        :param t: timestep of the full schedule
        """
        whole = next(self._estimates)
        if self._features is None:
            self._features = self._objects.features(whole.x0)
        plain = cut(whole.x0, self._objects.part)
        variance, x0_variance = (
            None if image is None else cut(image, self._objects.part) for image in (whole.variance, whole.x0_variance)
        )
        x0 = plain.clone()
        timestep = as_timesteps(t, z_t)
        for regions, features in zip(self._regions, self._features, strict=True):
            z_regions = cut_all(z_t, [region.whole for region in regions])
            decoded, second = self._decoder(features, z_regions, timestep, variance=self._prior is not None)
            if self._prior is not None:
                decoded, _ = self._prior.posterior(decoded, second, z_regions, t)
            for region, own in zip(regions, decoded.split(1), strict=True):
                before, soft = (cut(image, region.core) for image in (plain, self._objects.soft))
                after = cut(own, region.core_in_whole).clamp(-1, 1)
                cut(x0, region.core).copy_(torch.lerp(before, after, soft))
        for item in self._objects.faint:
            item.limit(plain, x0)
        denoised = make_denoised("x0", x0, z_t, t, self._schedule, variance)
        return replace(denoised, x0_variance=x0_variance)


def _to_unit(image: Tensor) -> np.ndarray:
    """[1, 1, H, W] in [-1, 1] to float32 [H, W] in [0, 1]."""
    unit: np.ndarray = signed_to_unit(image[0, 0].float()).cpu().numpy()
    return unit


def _zero_padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pad with zeros to the right and below."""
    down, right = height - image.shape[0], width - image.shape[1]
    return np.pad(image, ((0, down), (0, right))) if down or right else image
