"""The objects to emphasize: strengths, soft borders, and the direction of each object; without PyTorch."""

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
"""Width of the background ring around an object [pixels]."""

FAINT, SURE = 0.05, 0.01
"""Contrasts in [0, 1]: below the first, the infrared image influences an object's direction; above twice the second,
the direction is certain."""


@dataclass(frozen=True, eq=False)
class Emphasis:
    """The objects to emphasize, and their provenance.

    :ivar strengths: float32 [H, W] in [-1, 2]: 0 unchanged, 1 emphasized, negative suppressed
    :ivar text: the prompt, for the provenance
    :ivar strength: the general strength, already contained in ``strengths``, for the provenance
    :ivar localizer: name of the localizer, for the provenance
    :ivar objects: uint16 [H, W], number of the object of each pixel, so that of two touching objects one may become
        brighter and the other darker; None: connected pixels are one object
    :raises ImageError: wrong dtypes or sizes, strengths not finite or out of range
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
        """Emphasize localized objects by the strengths of their phrases, times a general one.

        :param found: the objects
        :param strength: the general strength, in [-1, 2]
        :param text: the prompt
        :param localizer: name of the localizer
        """
        return cls(found.strength_map(strength), text, strength, localizer, found.instance_map())

    def resized(self, width: int, height: int) -> Emphasis:
        """Resize for an image of another size.

        :param width: of that image [pixels]
        :param height: of that image [pixels]
        """
        size, nearest = (width, height), cv2.INTER_NEAREST
        strengths = cv2.resize(self.strengths, size, interpolation=nearest)
        objects = None if self.objects is None else cv2.resize(self.objects, size, interpolation=nearest)
        return replace(self, strengths=strengths, objects=objects)

    def mask(self) -> np.ndarray:
        """Where the image changes, uint8 [H, W]: 0 where it does not, 255 well within the objects' borders."""
        return np.ceil(self.soft * 255).astype(np.uint8)

    @cached_property
    def soft(self) -> np.ndarray:
        """The mask M of equation (13), see :func:`soften`."""
        return soften(self.strengths)

    @property
    def provenance(self) -> dict[str, str | int | float]:
        """``text``, ``strength`` and ``localizer``, for the provenance of the image."""
        return {"text": self.text, "strength": self.strength, "localizer": self.localizer}


def check_strengths(strengths: np.ndarray, image: np.ndarray) -> None:
    """Check that strengths have the size of an image.

    :param strengths: [H, W]
    :param image: [H, W] or [H, W, 3]
    :raises ImageError: they differ
    """
    if strengths.shape != image.shape[:2]:
        (height, width), (own_height, own_width) = image.shape[:2], strengths.shape
        expected = f"as large as the image ({width} x {height} pixels)"
        raise ImageError("the strengths", expected, f"{own_width} x {own_height}")


def amounts(
    plain: np.ndarray, infrared: np.ndarray, strengths: np.ndarray, objects: np.ndarray | None = None
) -> np.ndarray:
    """How much brighter, darker and fainter each object becomes.

    A positive strength increases the contrast of an object to its background ring. Where that contrast is low, the
    infrared image decides the direction, so that warm objects become brighter.

    :param plain: float32 [H, W] in [0, 1], an estimate of the plain fusion
    :param infrared: float32 [H, W] in [0, 1]
    :param strengths: float32 [H, W] in [-1, 2]
    :param objects: uint16 [H, W], see :class:`Emphasis`
    :returns: float32 [3, H, W] in [0, 2]; 0 where the strength is 0
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
    """Rows and columns of a rectangle and the ring around it.

    :param box: left, top, width, height [pixels]
    """
    left, top, across, down = box
    return slice(max(0, top - RING), top + down + RING), slice(max(0, left - RING), left + across + RING)


def object_boxes(objects: np.ndarray, raised: np.ndarray) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """The objects that have marked pixels: number, and the box (left, top, width, height) of those pixels.

    :param objects: [H, W], number of the object of each pixel
    :param raised: bool [H, W], the marked pixels
    """
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
    """Whether an object is made brighter (1) or darker (0) than its surroundings; in between where unsure.

    :param plain: float32 [H, W] in [0, 1]
    :param infrared: likewise
    :param mask: bool [H, W], the object
    :param named: bool [H, W], all objects, excluded from the ring
    """
    ring = surroundings(mask, named)
    if not ring.any():
        return 1.0
    contrast, warmth = (_mean(image, mask) - _mean(image, ring) for image in (plain, infrared))
    lead = contrast + 0.3 * warmth * float(np.exp(-((contrast / FAINT) ** 2)))
    # Exactly 0 or 1 where certain: the other direction is then not computed.
    return round(0.5 + 0.5 * float(np.tanh(lead / SURE)), 3)


def _mean(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean over the pixels of a mask, bool [H, W]; cv2.mean takes a tenth of the time of indexing them."""
    return cv2.mean(np.ascontiguousarray(image), mask.view(np.uint8))[0]


def surroundings(mask: np.ndarray, named: np.ndarray) -> np.ndarray:
    """The background ring: pixels within 10 pixels of an object that belong to no object, bool [H, W].

    :param mask: bool [H, W], the object
    :param named: bool [H, W], all objects
    """
    dilated = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RING + 1, 2 * RING + 1), np.uint8))
    ring: np.ndarray = (dilated > 0) & ~named
    return ring


def soften(strengths: np.ndarray) -> np.ndarray:
    """The mask M of equation (13): 0 where the strength is 0, rising to 1 over 2 pixels within the border.

    :param strengths: float32 [H, W] in [-1, 2]
    :returns: float32 [H, W] in [0, 1]
    """
    # Faster than exact distances; accurate to 2 % up to 2 pixels (OpenCV's 5x5 mask gives 2.197 for sqrt(5)).
    named = (strengths != 0).view(np.uint8)
    left, top, across, down = cv2.boundingRect(named)
    # With a margin of one pixel outside the objects, except at the image border.
    part = slice(max(0, top - 1), top + down + 1), slice(max(0, left - 1), left + across + 1)
    depth = cv2.distanceTransform(np.ascontiguousarray(named[part]), cv2.DIST_L2, cv2.DIST_MASK_5)
    ramp = np.zeros(strengths.shape, np.float32)
    ramp[part] = np.clip((depth - 0.5) / SOFT, 0, 1)
    return ramp
