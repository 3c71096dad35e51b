"""Procedural noise for surfaces."""

from __future__ import annotations

import cv2
import numpy as np


def value_noise(
    random: np.random.Generator, height: int, width: int, cells: tuple[int, int], octaves: int = 4
) -> np.ndarray:
    """Value noise that tiles seamlessly in both directions.

    :param random: source of all randomness
    :param height: [pixels]
    :param width: [pixels]
    :param cells: random values along height and width in the coarsest octave; each finer one has twice as many and
        half the weight
    :param octaves: number of octaves
    :returns: float32 [height, width] in [-1, 1], mean about 0
    """
    total = np.zeros((height, width), np.float32)
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        rows = min(cells[0] << octave, height)
        columns = min(cells[1] << octave, width)
        grid = np.pad(random.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32), 2, mode="wrap")
        y = (np.arange(height, dtype=np.float32) + 0.5) * (rows / height) + 1.5
        x = (np.arange(width, dtype=np.float32) + 0.5) * (columns / width) + 1.5
        map_x, map_y = np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))
        total += weight * cv2.remap(grid, map_x.copy(), map_y.copy(), cv2.INTER_LINEAR)
        weights += weight
        weight /= 2.0
    return total / np.float32(weights)
