"""Metrics of several draws of one image from a generative model."""

from __future__ import annotations

import numpy as np

from textdifuse_ros.metrics.images import check_same_shape, grey_values


def gradient_energy(image: np.ndarray) -> float:
    """Mean squared gradient of an image, by central differences [grey level squared per pixel squared].

    :param image: uint8 or float64 [H, W] in 0 .. 255, at least 2 x 2
    :raises ImageError: wrong type or shape
    """
    along_y, along_x = np.gradient(grey_values("the image", image))
    return float(np.mean(along_x * along_x + along_y * along_y))


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    :param x: float, any shape
    :param y: likewise, of the same shape
    :returns: -1 .. 1; NaN if one is constant
    :raises ImageError: different shapes
    """
    check_same_shape("the values", x, y)
    ranks = [_ranks(values.reshape(-1)) for values in (x, y)]
    a, b = (values - values.mean() for values in ranks)
    scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / scale if scale > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return ((last - counts + 1 + last) / 2)[group.reshape(-1)]
