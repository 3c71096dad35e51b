"""Local metrics: object contrast, change outside a mask, flicker of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError
from textdifuse_ros.metrics.images import check_min_size, check_same_shape, grey_values

RING = 10  # width of the ring that an object is compared with [pixel]
MAX_ROUND_TRIP = 1.0  # maximum forward-backward error of a known motion [pixel]
FLOW_MIN_SIZE = 32  # [pixel]; OpenCV's optical flow crashes on much smaller frames


def box_masks(boxes: Sequence[Sequence[float]] | np.ndarray, height: int, width: int) -> np.ndarray:
    """Convert boxes to masks.

    :param boxes: [N, 4], left, top, right, bottom, right and bottom exclusive; rounded and clipped [pixel]
    :param height: image height [pixel]
    :param width: image width [pixel]
    :returns: bool [N, height, width]; a box outside the image gives an empty mask
    """
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, box in zip(masks, boxes, strict=True):
        left, top, right, bottom = (max(0, round(float(edge))) for edge in box)
        mask[top:bottom, left:right] = True
    return masks


def instance_masks(instances: np.ndarray) -> np.ndarray:
    """Convert an instance map to masks.

    :param instances: integer [H, W], the number of each pixel's object; 0 without an object
    :returns: bool [N, H, W], in ascending order of the numbers
    """
    numbers = np.setdiff1d(instances, 0)
    return np.equal(instances, numbers[:, None, None])


def object_contrast(grey: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Compute the contrast of each object, |mean inside - mean of the ring around it| [grey level].

    The ring is all pixels within 10 pixels (Euclidean) of the object that belong to no object.

    :param grey: uint8 or float64 [H, W] in 0 .. 255
    :param masks: bool [N, H, W], one mask per object; they may overlap
    :returns: float64 [N]; NaN for an empty mask or an empty ring
    :raises ImageError: wrong type or shape
    """
    values = grey_values("the image", grey)
    if masks.ndim != 3 or masks.dtype != bool or masks.shape[1:] != values.shape:
        expected = f"bool [N, {values.shape[0]}, {values.shape[1]}], as large as the image"
        raise ImageError("the masks of the objects", expected, describe(masks))
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
        distance = cv2.distanceTransform((~mask[near]).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        ring = free[near] & (distance <= RING)
        if ring.any():
            contrasts[n] = abs(values[near][mask[near]].mean() - values[near][ring].mean())
    return contrasts


def contrast_gain(with_text: np.ndarray, without_text: np.ndarray) -> float:
    """Compute the relative gain in mean object contrast by a text: 0.2 is 20 % more contrast.

    A ratio of means, not a mean of ratios, which objects of little contrast would dominate.

    :param with_text: float64 [N], :func:`object_contrast` of the image fused with the text
    :param without_text: float64 [N], of the same objects in the image fused without it
    :returns: over the objects whose contrast is defined in both; NaN if there are none, or their contrast without the
        text is 0
    :raises ImageError: different numbers of objects
    """
    check_same_shape("the contrasts", with_text, without_text)
    both = ~(np.isnan(with_text) | np.isnan(without_text))
    before = float(without_text[both].sum())
    return float(with_text[both].sum()) / before - 1 if before > 0 else float("nan")


@dataclass(frozen=True)
class OutsideChange:
    """Change of an image outside a mask.

    :ivar share: share of the pixels outside the mask in which any channel differs, 0 .. 1
    :ivar largest: largest difference of a channel outside the mask [grey level]
    """

    share: float
    largest: float


def change_outside(image: np.ndarray, plain: np.ndarray, mask: np.ndarray) -> OutsideChange:
    """Compare an image fused with a text to the plain one outside the mask; both figures must be 0.

    :param image: uint8 or float64, [H, W] or [H, W, 3], in 0 .. 255
    :param plain: likewise, of the same shape
    :param mask: bool [H, W], True where change is allowed
    :returns: NaN values if the mask covers the whole image
    :raises ImageError: different shapes, or a mask of wrong type or size
    """
    check_same_shape("the image", image, plain)
    if mask.dtype != bool or mask.shape != image.shape[:2]:
        expected = f"bool [{image.shape[0]}, {image.shape[1]}], as large as the image"
        raise ImageError("the mask", expected, describe(mask))
    if mask.all():
        return OutsideChange(float("nan"), float("nan"))
    difference = np.abs(image[~mask].astype(np.float64) - plain[~mask])
    by_pixel = difference.reshape(len(difference), -1).max(1)
    return OutsideChange(float(np.mean(by_pixel > 0)), float(by_pixel.max()))


@dataclass(frozen=True)
class Motion:
    """Backward motion from a frame to the previous one.

    :ivar flow: float32 [H, W, 2]; pixel (x, y) was at (x, y) + flow [pixel]
    :ivar known: bool [H, W]; False where the position is outside the previous frame, or was occluded in it
    """

    flow: np.ndarray
    known: np.ndarray


def find_motion(previous: np.ndarray, current: np.ndarray) -> Motion:
    """Estimate the motion between two frames of a *reference*: a source, since a fused sequence would judge itself.

    Dense inverse search (Kroeger, Timofte, Dai, Van Gool, "Fast optical flow using dense inverse search", ECCV 2016;
    OpenCV's medium preset) in both directions: a pixel's motion is known if the forward-backward error is at most one
    pixel.

    :param previous: uint8 [H, W], at least 32 x 32
    :param current: the next frame, of the same size
    :raises ImageError: wrong type or shape, different shapes, or too small
    """
    for frame in (previous, current):
        if frame.dtype != np.uint8 or frame.ndim != 2:
            raise ImageError("a frame of the reference", "uint8 [H, W] (grey)", describe(frame))
        check_min_size("a frame of the reference", frame, FLOW_MIN_SIZE)
    check_same_shape("a frame of the reference", current, previous)
    back = _flow(current, previous)
    forth = _flow(previous, current)
    height, width = current.shape
    x, y = _positions(back)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    returned = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    error = np.linalg.norm(back + returned, axis=2)
    return Motion(back, inside & (error <= MAX_ROUND_TRIP))


def _flow(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    # A new object for each call: OpenCV crashes if it is reused for another size.
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start, end = np.ascontiguousarray(start), np.ascontiguousarray(end)
    return np.asarray(method.calc(start, end, np.zeros((*start.shape, 2), np.float32)))


def _positions(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return x + flow[..., 0], y + flow[..., 1]


def flicker(previous: np.ndarray, current: np.ndarray, motion: Motion) -> float:
    """Mean absolute difference between a frame and the motion-compensated previous one [grey level].

    This is the warping error of Lai, Huang, Wang, Shechtman, Yumer, Yang, "Learning blind video temporal consistency",
    ECCV 2018, with the absolute difference of grey levels, where the motion is known. Blur decreases it: read it
    together with sharpness (:func:`.detail.average_gradient`). Interpolation adds to it in any sharp sequence; the
    flicker of the sources shows how much.

    :param previous: uint8 or float64 [H, W] in 0 .. 255, a fused frame
    :param current: the next fused frame
    :param motion: motion of the reference between the same frames, from :func:`find_motion`
    :returns: NaN if no motion is known
    :raises ImageError: wrong type or shape, or different shapes
    """
    before, now = grey_values("the previous frame", previous), grey_values("the frame", current)
    check_same_shape("the frame", now, before)
    check_same_shape("the frame", now, motion.known)
    if not motion.known.any():
        return float("nan")
    warped = cv2.remap(before, *_positions(motion.flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(now - warped)[motion.known].mean())
