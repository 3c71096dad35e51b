"""What happens where: contrast of objects, change outside a mask, flicker along a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError
from textdifuse_ros.metrics.images import check_min_size, check_same_shape, grey_values

RING = 10  # width of the surroundings that an object is compared with [pixels]
ROUND_TRIP = 1.0  # how far off a pixel may end after there and back for its motion to count as known [pixels]
FLOW_LEAST = 32  # pixels a side; much smaller frames crash the optical flow


def box_masks(boxes: Sequence[Sequence[float]] | np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes as masks.

    :param boxes: N of (left, top, right, bottom) [pixels], right and bottom excluded; rounded and clipped
    :returns: bool [N, height, width]; a box outside the image is an empty mask
    """
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, box in zip(masks, boxes, strict=True):
        left, top, right, bottom = (max(0, round(float(edge))) for edge in box)
        mask[top:bottom, left:right] = True
    return masks


def instance_masks(instances: np.ndarray) -> np.ndarray:
    """A map of instances as masks.

    :param instances: integer [H, W], 0 where there is no object, else the object's number
    :returns: bool [N, H, W], by rising number
    """
    numbers = np.setdiff1d(instances, 0)
    return np.equal(instances, numbers[:, None, None])


def object_contrast(grey: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """How far each object stands out: |mean grey inside - mean grey of the ring around it| [grey level].

    The ring is all pixels within 10 pixels (Euclidean) of the object that belong to no object.

    :param grey: uint8 or float64 [H, W] in 0 .. 255
    :param masks: bool [N, H, W], one mask for each object; they may overlap
    :returns: float64 [N]; NaN for an empty mask and for an object without a ring (it, or others, leave no room)
    :raises ImageError: another type or shape
    """
    values = grey_values("the image", grey)
    if masks.ndim != 3 or masks.dtype != bool or masks.shape[1:] != values.shape:
        due = f"bool [N, {values.shape[0]}, {values.shape[1]}], as large as the image"
        raise ImageError("the masks of the objects", due, describe(masks))
    free: np.ndarray = np.logical_not(np.any(masks, axis=0))
    contrasts = np.full(len(masks), np.nan)
    for n, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue
        near = (
            slice(max(0, rows[0] - RING), rows[-1] + 1 + RING),
            slice(max(0, columns[0] - RING), columns[-1] + 1 + RING),
        )
        away = cv2.distanceTransform((~mask[near]).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        ring = free[near] & (away <= RING)
        if ring.any():
            contrasts[n] = abs(values[near][mask[near]].mean() - values[near][ring].mean())
    return contrasts


def contrast_gain(with_text: np.ndarray, without_text: np.ndarray) -> float:
    """The mean contrast of objects with a text over that without it, minus 1: 0.2 is a fifth more contrast.

    A ratio of means, not a mean of ratios: an object that is hardly seen without the text would outweigh all others.

    :param with_text: [N], :func:`object_contrast` of the image made with the text
    :param without_text: [N], of the same objects in the image made without it
    :returns: over the objects whose contrast is defined in both; NaN where there is none, or where
        they have no contrast without the text
    :raises ImageError: different numbers of objects
    """
    check_same_shape("the contrasts", with_text, without_text)
    both = ~(np.isnan(with_text) | np.isnan(without_text))
    before = float(without_text[both].sum())
    return float(with_text[both].sum()) / before - 1 if before > 0 else float("nan")


@dataclass(frozen=True)
class OutsideChange:
    """What changed where nothing should.

    :ivar share: of the pixels outside the mask, 0 .. 1, in which any channel differs
    :ivar largest: difference of a channel outside the mask [grey level]
    """

    share: float
    largest: float


def change_outside(image: np.ndarray, plain: np.ndarray, mask: np.ndarray) -> OutsideChange:
    """How an image made with a text differs from the plain one outside the mask; both figures must be 0.

    :param image: uint8 or float64, [H, W] or [H, W, 3], in 0 .. 255
    :param plain: likewise, of the same shape
    :param mask: bool [H, W], True where change is wanted
    :returns: NaN twice where the mask covers the whole image
    :raises ImageError: different shapes, or a mask of another type or size
    """
    check_same_shape("the image", image, plain)
    if mask.dtype != bool or mask.shape != image.shape[:2]:
        due = f"bool [{image.shape[0]}, {image.shape[1]}], as large as the image"
        raise ImageError("the mask", due, describe(mask))
    if mask.all():
        return OutsideChange(float("nan"), float("nan"))
    difference = np.abs(image[~mask].astype(np.float64) - plain[~mask])
    by_pixel = difference.reshape(len(difference), -1).max(1)
    return OutsideChange(float(np.mean(by_pixel > 0)), float(by_pixel.max()))


@dataclass(frozen=True)
class Motion:
    """Where each pixel of a frame was in the frame before.

    :ivar flow: float32 [H, W, 2]; pixel (x, y) was at (x, y) + flow [pixels]
    :ivar known: bool [H, W]; False where the place lies outside the frame before, or was hidden in it
    """

    flow: np.ndarray
    known: np.ndarray


def find_motion(previous: np.ndarray, current: np.ndarray) -> Motion:
    """The motion between two frames of a *reference* (a source, never a fused sequence: that would judge itself).

    Dense inverse search (Kroeger, Timofte, Dai, Van Gool, "Fast optical flow using dense inverse search", ECCV 2016;
    OpenCV's medium preset), computed in both directions: a pixel's motion is known where there and back ends within one
    pixel of the start.

    :param previous: uint8 [H, W], at least 32 x 32
    :param current: the next frame, of the same size
    :raises ImageError: another type or shape, different shapes, or too small
    """
    for frame in (previous, current):
        if frame.dtype != np.uint8 or frame.ndim != 2:
            raise ImageError("a frame of the reference", "uint8 [H, W] (grey)", describe(frame))
        check_min_size("a frame of the reference", frame, FLOW_LEAST)
    check_same_shape("a frame of the reference", current, previous)
    back = _flow(current, previous)
    forth = _flow(previous, current)
    height, width = current.shape
    x, y = _places(back)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    there = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    off = np.linalg.norm(back + there, axis=2)
    return Motion(back, inside & (off <= ROUND_TRIP))


def _flow(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    # A new one each time: OpenCV's crashes when it is used again with another size.
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start, end = np.ascontiguousarray(start), np.ascontiguousarray(end)
    return np.asarray(method.calc(start, end, np.zeros((*start.shape, 2), np.float32)))


def _places(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return x + flow[..., 0], y + flow[..., 1]


def flicker(previous: np.ndarray, current: np.ndarray, motion: Motion) -> float:
    """The mean absolute difference between a frame and the one before moved along [grey level], where motion is known.

    Blur lowers it: read it beside sharpness (:func:`.detail.average_gradient`). Interpolation leaves some of it in any
    sharp sequence; the flicker of the sources themselves tells how much.
    As the warping error of Lai, Huang, Wang, Shechtman, Yumer, Yang, "Learning blind video temporal consistency", ECCV
    2018, with the absolute difference of grey levels.

    :param previous: uint8 or float64 [H, W] in 0 .. 255, a fused frame
    :param current: the next one
    :param motion: of the reference between the same two moments, see :func:`find_motion`
    :returns: NaN where no pixel's motion is known
    :raises ImageError: another type or shape, or different shapes
    """
    before, now = grey_values("the frame before", previous), grey_values("the frame", current)
    check_same_shape("the frame", now, before)
    check_same_shape("the frame", now, motion.known)
    if not motion.known.any():
        return float("nan")
    moved = cv2.remap(before, *_places(motion.flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(now - moved)[motion.known].mean())
