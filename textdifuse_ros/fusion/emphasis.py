"""What is to stand out in an image, where its borders soften, and which way each object goes; without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError
from textdifuse_ros.localize.base import Localization

LOW, HIGH = -1.0, 2.0
"""Range of the strengths."""

SOFT = 2.0
"""Width of the transition within an object's border [pixels]; outside the border nothing changes."""

RING = 10
"""Width of the surroundings that an object is set off from [pixels]."""

FAINT, SURE = 0.05, 0.01
"""Contrasts in [0, 1]: below about the first the infrared has a say in an object's direction, and from twice the second
on there is no doubt about it."""


@dataclass(frozen=True, eq=False)
class Emphasis:
    """What is to stand out, and what it came from.

    :ivar strengths: float32 [H, W] in [-1, 2]: 0 leaves alone, 1 emphasizes, negative plays down
    :ivar text: the prompt, for the provenance
    :ivar strength: the general strength that is in ``strengths`` already, for the provenance
    :ivar localizer: what found the objects, for the provenance
    :ivar objects: uint16 [H, W], which object a pixel belongs to, so that of two that touch one may become brighter
        and the other darker; None where that is not known, and what touches is one
    :raises ImageError: strengths or objects of another type, strengths not finite or out of range
    """

    strengths: np.ndarray
    text: str = ""
    strength: float = 1.0
    localizer: str = ""
    objects: np.ndarray | None = None

    def __post_init__(self) -> None:
        values = self.strengths
        if values.dtype != np.float32 or values.ndim != 2:
            raise ImageError("the strengths", "float32 [H, W]", describe(values))
        if values.size and not (values.min() >= LOW and values.max() <= HIGH):
            found = f"{values.min():g} to {values.max():g}"
            raise ImageError("the strengths", f"in [{LOW:g}, {HIGH:g}]", found)
        objects = self.objects
        if objects is not None and (objects.dtype != np.uint16 or objects.shape != values.shape):
            raise ImageError("the objects", f"uint16 {list(values.shape)}", describe(objects))

    def __bool__(self) -> bool:
        """Whether there is anything to change."""
        return bool(self.strengths.any())

    @classmethod
    def of(cls, found: Localization, strength: float, text: str, localizer: str) -> Emphasis:
        """What a localizer found, at the strengths of its phrases times a general one.

        :param strength: in [-1, 2]
        """
        return cls(found.strength_map(strength), text, strength, localizer, found.instance_map())

    def resized(self, width: int, height: int) -> Emphasis:
        """The same for an image of another size [pixels]."""
        size, nearest = (width, height), cv2.INTER_NEAREST
        strengths = cv2.resize(self.strengths, size, interpolation=nearest)
        objects = None if self.objects is None else cv2.resize(self.objects, size, interpolation=nearest)
        return replace(self, strengths=strengths, objects=objects)

    def mask(self) -> np.ndarray:
        """Where the image changes, uint8 [H, W]: 0 where it does not at all, 255 where the border is far enough."""
        return np.ceil(self.soft * 255).astype(np.uint8)

    @cached_property
    def soft(self) -> np.ndarray:
        """The mask M of equation (13), see :func:`soften`."""
        return soften(self.strengths)

    @property
    def provenance(self) -> dict[str, str | int | float]:
        """What to note beside the image: ``text``, ``strength``, ``localizer``."""
        return {"text": self.text, "strength": self.strength, "localizer": self.localizer}


def check_strengths(strengths: np.ndarray, image: np.ndarray) -> None:
    """Refuse strengths of another size than the image's.

    :raises ImageError: of another size
    """
    if strengths.shape != image.shape[:2]:
        (height, width), (own_height, own_width) = image.shape[:2], strengths.shape
        due = f"as large as the image ({width} x {height} pixels)"
        raise ImageError("the strengths", due, f"{own_width} x {own_height}")


def amounts(
    plain: np.ndarray, infrared: np.ndarray, strengths: np.ndarray, objects: np.ndarray | None = None
) -> np.ndarray:
    """How much brighter, darker and fainter each object is to be.

    A positive strength takes an object further in the direction in which it differs from its surroundings already;
    where it hardly differs, the infrared decides, so that what is warm becomes brighter.

    :param plain: float32 [H, W] in [0, 1], an estimate of what is fused without a text
    :param infrared: float32 [H, W] in [0, 1]
    :param strengths: float32 [H, W] in [-1, 2]
    :param objects: uint16 [H, W], see :class:`Emphasis`
    :returns: float32 [3, H, W] in [0, 2]; all 0 where the strength is
    """
    found = np.zeros((3, *strengths.shape), np.float32)
    around = with_ring(cv2.boundingRect((strengths != 0).view(np.uint8)))
    plain, infrared, strengths = (image[around] for image in (plain, infrared, strengths))
    objects = None if objects is None else objects[around]
    named = named_pixels(strengths, objects)
    brighter, darker, fainter = found[:, *around]
    np.maximum(-strengths, 0, out=fainter)
    raised = strengths > 0
    if objects is None:
        _, objects = cv2.connectedComponents(raised.astype(np.uint8), connectivity=8)
    for number, box in object_boxes(objects, raised):
        near = with_ring(box)
        mask = raised[near] & (objects[near] == number)
        bright = brighter_share(plain[near], infrared[near], mask, named[near])
        np.copyto(brighter[near], bright * strengths[near], where=mask)
        np.copyto(darker[near], (1 - bright) * strengths[near], where=mask)
    return found


def named_pixels(strengths: np.ndarray, objects: np.ndarray | None) -> np.ndarray:
    """Pixels excluded from the background ring, bool [H, W].

    Objects of strength 0 are excluded too, so that their neighbors do not jump when their strength leaves 0.

    :param strengths: float32 [H, W] in [-1, 2]
    :param objects: uint16 [H, W], see :class:`Emphasis`; or None
    """
    named: np.ndarray = strengths != 0
    return named if objects is None else named | (objects > 0)


def with_ring(box: Sequence[int]) -> tuple[slice, slice]:
    """The rows and columns of a rectangle (left, top, width, height) and of the ring around it."""
    left, top, across, down = box
    return slice(max(0, top - RING), top + down + RING), slice(max(0, left - RING), left + across + RING)


def object_boxes(objects: np.ndarray, raised: np.ndarray) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """The number of each object of which something is raised, and where that lies: left, top, width, height."""
    places = np.nonzero(raised)
    labels = objects[places]
    order = np.argsort(labels, kind="stable")
    numbers = labels[order]
    starts = np.flatnonzero(np.r_[numbers.size > 0, numbers[1:] != numbers[:-1]])
    if not starts.size:
        return
    first, last = ([reduce.reduceat(axis[order], starts) for axis in places] for reduce in (np.minimum, np.maximum))
    for number, top, left, bottom, right in zip(numbers[starts], *first, *last, strict=True):
        yield int(number), (int(left), int(top), int(right - left + 1), int(bottom - top + 1))


def brighter_share(plain: np.ndarray, infrared: np.ndarray, mask: np.ndarray, named: np.ndarray) -> float:
    """How surely an object stands out as brighter than its surroundings, 0 (as darker) to 1.

    :param plain: float32 [H, W] in [0, 1]; infrared likewise
    :param mask: bool [H, W], the object
    :param named: bool [H, W], all objects; none of them is surroundings
    """
    ring = surroundings(mask, named)
    if not ring.any():
        return 1.0
    contrast, warmth = (_mean(image, mask) - _mean(image, ring) for image in (plain, infrared))
    lead = contrast + 0.3 * warmth * float(np.exp(-((contrast / FAINT) ** 2)))
    # Exactly 0 or 1 where there is no doubt: the other way is then not computed.
    return round(0.5 + 0.5 * float(np.tanh(lead / SURE)), 3)


def _mean(image: np.ndarray, mask: np.ndarray) -> float:
    """Of the pixels of a mask, bool [H, W]; OpenCV's takes a tenth of the time of picking them out."""
    return cv2.mean(np.ascontiguousarray(image), mask.view(np.uint8))[0]


def surroundings(mask: np.ndarray, named: np.ndarray) -> np.ndarray:
    """What is within 10 pixels of an object and belongs to none, bool [H, W]."""
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RING + 1, 2 * RING + 1), np.uint8))
    ring: np.ndarray = (grown > 0) & ~named
    return ring


def soften(strengths: np.ndarray) -> np.ndarray:
    """The mask M of equation (13): exactly 0 where the strength is, rising to 1 over 2 pixels within the border.

    :param strengths: float32 [H, W]
    :returns: float32 [H, W] in [0, 1]
    """
    # Exact distances take longer; up to 2 pixels these are right to 2 % (OpenCV's 5x5 mask: 2.197 for the root of 5).
    named = (strengths != 0).view(np.uint8)
    left, top, across, down = cv2.boundingRect(named)
    # With a pixel around it that is not named, unless the image ends there.
    part = slice(max(0, top - 1), top + down + 1), slice(max(0, left - 1), left + across + 1)
    depth = cv2.distanceTransform(np.ascontiguousarray(named[part]), cv2.DIST_L2, cv2.DIST_MASK_5)
    ramp = np.zeros(strengths.shape, np.float32)
    ramp[part] = np.clip((depth - 0.5) / SOFT, 0, 1)
    return ramp
