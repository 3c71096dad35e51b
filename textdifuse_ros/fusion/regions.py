"""The rectangles of an image that are decoded for emphasized objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import torch
from torch import Tensor

from textdifuse_ros.networks.drive import MULTIPLE

MARGIN = 8
"""Minimum width of the surroundings that are decoded with an object [pixels].

The decoder's receptive field reaches about 72 pixels, but distant pixels hardly change an object; a test limits their
effect to a twelfth of the text's.
"""

GROUP = 20_000
"""Overhead of one extra batch shape, in pixels (measured on two cores)."""

SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
"""Sides of what is decoded [pixels]. PyTorch keeps memory for every new shape, so there must be few."""

Box = tuple[int, int, int, int]
"""(top, left, bottom, right) [pixels], bottom and right excluded."""


def boxes_within(boxes: list[Box], part: Box) -> list[Box]:
    """Translate rectangles into the coordinates of a part of the image.

    :param boxes: within the part
    :param part: of the image
    """
    top, left = part[:2]
    return [(up - top, west - left, down - top, east - left) for up, west, down, east in boxes]


@dataclass(frozen=True)
class Region:
    """A decoded rectangle.

    :ivar core: rectangle of the objects
    :ivar whole: rectangle with their surroundings; edges are multiples of 16
    """

    core: Box
    whole: Box

    @property
    def core_in_whole(self) -> Box:
        """The core in the coordinates of the whole."""
        return boxes_within([self.core], self.whole)[0]

    def within(self, part: Box) -> Region:
        """Translate into the coordinates of a part of the image.

        :param part: contains the region
        """
        return Region(*boxes_within([self.core, self.whole], part))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole [pixels]."""
        top, left, bottom, right = self.whole
        return bottom - top, right - left

    @property
    def pixels(self) -> int:
        """Number of decoded pixels."""
        height, width = self.size
        return height * width


def find_regions(strengths: np.ndarray) -> list[Region]:
    """Find rectangles that contain all objects; neighbors share one where that decodes fewer pixels.

    :param strengths: float32 [H, W] in [-1, 2], H and W multiples of 16
    :returns: an empty list where all strengths are 0
    """
    height, width = strengths.shape
    named = (strengths != 0).astype(np.uint8)
    rows = named.reshape(height // MULTIPLE, MULTIPLE, width).max(1)
    cells = rows.reshape(height // MULTIPLE, width // MULTIPLE, MULTIPLE).max(2)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(cells, connectivity=8)
    regions: list[Region] = []
    for left, top, across, down, _ in (statistics[1:] * MULTIPLE).tolist():
        # The cells' rectangle is up to 15 pixels too wide on each side.
        x, y, across, down = cv2.boundingRect(named[top : top + down, left : left + across])
        new = _region((top + y, left + x, top + y + down, left + x + across), height, width)
        while (union := _cheaper_union(new, regions, height, width)) is not None:
            new = union
        regions.append(new)
    if sum(region.pixels for region in regions) > height * width:
        return full_frame_region(height, width)[0]
    return regions


def _cheaper_union(new: Region, regions: list[Region], height: int, width: int) -> Region | None:
    """Remove a region that is cheaper to decode together with the new one; returns their union, or None."""
    for other in regions:
        (top, left, bottom, right), (up, west, down, east) = new.core, other.core
        core = (min(top, up), min(left, west), max(bottom, down), max(right, east))
        union = _region(core, height, width)
        if union.pixels <= new.pixels + other.pixels:
            regions.remove(other)
            return union
    return None


def _region(core: Box, height: int, width: int) -> Region:
    top, left, bottom, right = core
    upper, lower = _widened(top, bottom, height)
    west, east = _widened(left, right, width)
    return Region(core, (upper, west, lower, east))


def _widened(first: int, last: int, size: int) -> tuple[int, int]:
    """Extend one side of a region by the margin and to multiples of 16."""
    low, high = max(0, first - MARGIN) // MULTIPLE * MULTIPLE, min(size, last + MARGIN)
    return low, high + -high % MULTIPLE


def merge_sizes(regions: list[Region], height: int, width: int) -> list[list[Region]]:
    """Group regions by size, since those of one size are decoded as a batch; enlarges them to few sizes.

    :param regions: of :func:`find_regions`
    :param height: of the image [pixels]
    :param width: of the image [pixels]
    """
    groups: dict[tuple[int, int], list[Region]] = {}
    for region in regions:
        size = _next_side(region.size[0], height), _next_side(region.size[1], width)
        groups.setdefault(size, []).append(_enlarged(region, size, height, width))
    while len(groups) > 1:
        counts = [(size, len(regions)) for size, regions in groups.items()]
        extra, size, pair = min(_merged(*pair) for pair in combinations(counts, 2))
        if extra > GROUP:
            break
        enlarged = [_enlarged(region, size, height, width) for old in pair for region in groups.pop(old)]
        groups[size] = groups.get(size, []) + enlarged
    return [batch for regions in groups.values() for batch in _batches(regions)]


def _next_side(length: int, limit: int) -> int:
    """The next larger of :data:`SIDES`, or the image's."""
    return min(next((side for side in SIDES if side >= length), limit), limit)


def _batches(regions: list[Region]) -> Iterator[list[Region]]:
    """Split a group into batches of powers of two, so that there are few sizes of batches."""
    while regions:
        count = 1 << (len(regions).bit_length() - 1)
        yield regions[:count]
        regions = regions[count:]


_Size = tuple[int, int]


def _merged(one: tuple[_Size, int], other: tuple[_Size, int]) -> tuple[int, _Size, tuple[_Size, _Size]]:
    """Extra pixels of two groups (size, count) at their common size; that size; and the two sizes."""
    ((height, width), count), ((other_height, other_width), others) = one, other
    common = max(height, other_height), max(width, other_width)
    before = count * height * width + others * other_height * other_width
    return common[0] * common[1] * (count + others) - before, common, (one[0], other[0])


def _enlarged(region: Region, size: tuple[int, int], height: int, width: int) -> Region:
    """Enlarge a region about evenly on all sides, as far as the image allows."""
    edges = []
    for first, last, target, limit in zip(region.whole[:2], region.whole[2:], size, (height, width), strict=True):
        before = (target - (last - first)) // (2 * MULTIPLE) * MULTIPLE
        edges.append(min(max(0, first - before), limit - target))
    (top, left), (rows, columns) = edges, size
    return Region(region.core, (top, left, top + rows, left + columns))


def full_frame_region(height: int, width: int) -> list[list[Region]]:
    """The whole image as the only region.

    :param height: of the image [pixels]
    :param width: of the image [pixels]
    """
    box = (0, 0, height, width)
    return [[Region(box, box)]]


def bounds(groups: list[list[Region]], height: int, width: int, ring: int) -> Box:
    """The rectangle that contains all regions and a ring around the objects; its edges are multiples of 16.

    Its sides, too, are of few lengths.

    :param groups: of :func:`merge_sizes`
    :param height: of the image [pixels], a multiple of 16
    :param width: likewise
    :param ring: width of the ring [pixels]
    """
    wholes = np.array([region.whole for regions in groups for region in regions])
    cores = np.array([region.core for regions in groups for region in regions])
    low = np.minimum(wholes[:, :2].min(0), cores[:, :2].min(0) - ring) // MULTIPLE * MULTIPLE
    high = -(np.minimum(-wholes[:, 2:].max(0), -cores[:, 2:].max(0) - ring) // MULTIPLE * MULTIPLE)
    (top, left), (bottom, right) = np.maximum(low, 0).tolist(), np.minimum(high, (height, width)).tolist()
    box = (top, left, bottom, right)
    size = _next_side(bottom - top, height), _next_side(right - left, width)
    return _enlarged(Region(box, box), size, height, width).whole


def cut(image: Tensor, box: Box, cell: int = 1) -> Tensor:
    """View a rectangle of an image or of features.

    :param image: [..., H / cell, W / cell]
    :param box: in pixels, edges multiples of ``cell``
    :param cell: side of a feature cell [pixels]
    """
    top, left, bottom, right = (edge // cell for edge in box)
    return image[..., top:bottom, left:right]


def cut_all(image: Tensor, boxes: list[Box], cell: int = 1) -> Tensor:
    """Stack rectangles of one size along the batch.

    :param image: of one image, see :func:`cut`
    :param boxes: of one size
    :param cell: side of a feature cell [pixels]
    """
    return torch.cat([cut(image, box, cell) for box in boxes])
