"""Frames of a camera that turns, as a video without a recording."""

from __future__ import annotations

import cv2
import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
HEIGHT, WIDTH, FRAMES = 96, 128, 6


def town(seed: int) -> np.ndarray:
    """A wide textured image, float32 in 40 .. 210."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(40, 210, (12, 40)).astype(np.float32), (400, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 4, coarse.shape), 0, 255).astype(np.float32)


def drive(seed: int, noise: float = 6.0) -> list[Pair]:
    """A camera that turns by two pixels a frame; the visible sensor is noisy."""
    rng = np.random.default_rng([seed, 1])
    wide, thermal = town(seed), town(seed + 100)
    frames = []
    for n in range(FRAMES):
        view = (slice(None), slice(2 * n, 2 * n + WIDTH))
        grain = rng.normal(0, noise, (HEIGHT, WIDTH, 3))
        visible = np.clip(wide[view][..., None] * (1.0, 0.9, 0.7) + grain, 0, 255).astype(np.uint8)
        frames.append((visible, thermal[view].astype(np.uint8)))
    return frames
