"""A textured square that moves in front of a still ground, and its masks."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.localize.base import Instance, mask_box

SIZE = HEIGHT, WIDTH = 240, 320


def square(left: int, top: int = 90, side: int = 60) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def instance(mask: np.ndarray, phrase: int = 1, track: int = 0, score: float = 0.9, stamp: float = 0.0) -> Instance:
    return Instance(mask, mask_box(mask), score, phrase, track, stamp)


def texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return smooth / smooth.std()


def frame(left: int, *, night: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A textured square in front of a still, textured ground; by night only the infrared shows it."""
    thing = np.roll(texture(2), left, axis=1)
    infrared = np.where(square(left), 180 + 12 * thing, 90 + 12 * texture(1)).clip(0, 255).astype(np.uint8)
    visible = np.repeat(infrared[:, :, None], 3, 2)
    if night:
        visible = np.random.default_rng(left).integers(0, 4, visible.shape, dtype=np.uint8)
    return visible, infrared


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)
