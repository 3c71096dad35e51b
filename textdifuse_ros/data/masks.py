"""Random object masks for training the text re-modulation.

A localizer returns masks that follow edges, boxes, and wrong masks. So half of the random masks are grown from the
image and follow its edges, and the others are independent of it.
"""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.data.degradations import smooth_field

MAX_OBJECTS = 6
"""Largest number of objects of a crop."""

LEAST_AREA, LARGEST_SHARE = 30, 0.3
"""Smallest object [pixels], and largest object as a share of the crop."""


def random_masks(visible: np.ndarray, infrared: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw up to six objects that do not overlap, of 30 pixels to 30 % of the crop.

    :param visible: float32 [H, W] in [0, 1], luma
    :param infrared: float32 [H, W] in [0, 1]
    :param rng: source of all randomness
    :returns: bool [H, W] each; rarely an empty list
    """
    free = np.ones(visible.shape, bool)
    masks = []
    for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        chance = rng.random()
        if chance < 0.65:
            mask = _grown(infrared if rng.random() < 0.7 else visible, rng)
            if chance < 0.2:
                mask = _box_around(mask, rng)
        elif chance < 0.8:
            mask = _ellipse(visible.shape, rng)
        elif chance < 0.9:
            mask = _box_around(_ellipse(visible.shape, rng), rng)
        else:
            field = smooth_field(visible.shape[0], visible.shape[1], int(rng.integers(4, 12)), rng)
            mask = _ellipse(visible.shape, rng, 2.0) & (field > 0.5)
        mask = mask & free
        if LEAST_AREA <= np.count_nonzero(mask) <= LARGEST_SHARE * mask.size:
            masks.append(mask)
            free &= ~mask
    return masks


def _grown(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A region of similar grey level around a place that stands out from its surroundings."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.2)
    apart = np.abs(smooth - cv2.blur(smooth, (41, 41)))
    rows, columns = rng.integers(image.shape[0], size=12), rng.integers(image.shape[1], size=12)
    best = int(apart[rows, columns].argmax())
    mask = np.zeros((image.shape[0] + 2, image.shape[1] + 2), np.uint8)
    width = float(rng.uniform(0.05, 0.2))
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    cv2.floodFill(smooth, mask, (int(columns[best]), int(rows[best])), 0.0, width, width, flags)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    return cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, ellipse), cv2.MORPH_OPEN, ellipse)[1:-1, 1:-1] > 0


def _box_around(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The box around a mask, enlarged by up to a tenth at each side."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    grow = rng.uniform(0, 0.1, 4) * (width, height, width, height)
    box = np.zeros_like(mask)
    box[
        max(0, top - round(grow[1])) : top + height + round(grow[3]),
        max(0, left - round(grow[0])) : left + width + round(grow[2]),
    ] = True
    return box


def _ellipse(shape: tuple[int, ...], rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """An ellipse with semi-axes of 3 to 45 pixels and any orientation."""
    long = scale * float(np.exp(rng.uniform(np.log(4), np.log(45))))
    axes = (max(3, round(long)), max(3, round(long * rng.uniform(0.3, 1))))
    center = (int(rng.integers(shape[1])), int(rng.integers(shape[0])))
    canvas = np.zeros(shape, np.uint8)
    cv2.ellipse(canvas, center, axes, float(rng.uniform(0, 180)), 0, 360, 1, cv2.FILLED)
    return canvas > 0
