"""Edge metrics: gradient strength of the fused image, and preservation of the sources' edges."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.metrics.images import check_min_size, check_same_shape, grey_values

# Constants of Xydeas and Petrovic: maximum, slope and center of the two sigmoids.
GAMMA_STRENGTH, SLOPE_STRENGTH, MIDDLE_STRENGTH = 0.9994, -15.0, 0.5
GAMMA_ANGLE, SLOPE_ANGLE, MIDDLE_ANGLE = 0.9879, -22.0, 0.8
_CHUNK = 1 << 15  # pixels; the intermediate arrays then stay in the CPU cache


def average_gradient(fused: np.ndarray) -> float:
    """AG: average gradient, ``sum sqrt((gx^2 + gy^2) / 2) / ((H - 1)(W - 1))`` [grey level per pixel].

    Central differences, one-sided at the border, as in :func:`numpy.gradient`; the sum runs over all H W pixels. Noise
    increases it as much as detail does.
    Cui, Feng, Xu, Li, Chen, "Detail preserved fusion of visible and infrared images using regional saliency extraction
    and multi-scale image decomposition", Optics Communications 341, 2015.

    :param fused: uint8 or float64 [H, W] in 0 .. 255, at least 2 x 2
    :raises ImageError: wrong type or shape, or too small
    """
    values = grey_values("the fused image", fused)
    check_min_size("the fused image", values, 2)
    along_y, along_x = np.gradient(values)
    strength = np.sqrt((along_x * along_x + along_y * along_y) / 2)
    return float(strength.sum() / ((values.shape[0] - 1) * (values.shape[1] - 1)))


def qabf(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Q^AB/F: share of the sources' edges that the fused image preserves, in strength and direction; 0 .. 0.99.

    Xydeas, Petrovic, "Objective image fusion performance measure", Electronics Letters 36, 2000:
    Sobel strength ``g = sqrt(sx^2 + sy^2)`` and angle ``alpha = arctan(sy / sx)`` (pi/2 where ``sx`` is 0);
    ``G`` the smaller strength over the larger, ``A = 1 - |alpha_A - alpha_F| / (pi / 2)``;
    ``Q = Gamma_g / (1 + exp(k_g (G - s_g))) * Gamma_a / (1 + exp(k_a (A - s_a)))``; the mean of Q over pixels and both
    sources, weighted by the source's strength (L = 1). Borders are replicated, so that they add no edges.

    :param fused: uint8 or float64 [H, W] in 0 .. 255
    :param a: one source, likewise, of the same size
    :param b: the other source
    :returns: NaN if both sources are constant and have no edges
    :raises ImageError: wrong type or shape, or different shapes
    """
    images = [grey_values(what, each) for what, each in (("the fused image", fused), ("A", a), ("B", b))]
    for source in images[1:]:
        check_same_shape("the fused image", images[0], source)
    (strength, angle), *sources = [_edges(image) for image in images]
    preserved = total = 0.0
    rows = max(1, _CHUNK // strength.shape[1])
    for source_strength, source_angle in sources:
        for top in range(0, len(strength), rows):
            band = slice(top, top + rows)
            weight = source_strength[band]
            preserved += float(np.sum(weight * _preservation(strength[band], angle[band], weight, source_angle[band])))
        total += float(source_strength.sum())
    return preserved / total if total > 0 else float("nan")


def _edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel strength, and angle in [-pi/2, pi/2]."""
    along_x = cv2.Sobel(image, cv2.CV_64F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.Sobel(image, cv2.CV_64F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
    strength = np.sqrt(along_x * along_x + along_y * along_y)
    slope = np.full_like(along_x, np.inf)  # arctan(inf) is pi/2
    np.divide(along_y, along_x, out=slope, where=along_x != 0)
    return strength, np.arctan(slope, out=slope)


def _preservation(
    strength: np.ndarray, angle: np.ndarray, source_strength: np.ndarray, source_angle: np.ndarray
) -> np.ndarray:
    """Edge preservation Q of one source at each pixel."""
    larger = np.maximum(strength, source_strength)
    ratio = np.ones_like(larger)  # 1 where both strengths are 0; the weight is 0 there
    np.divide(np.minimum(strength, source_strength), larger, out=ratio, where=larger > 0)
    agreement = 1 - np.abs(source_angle - angle) * (2 / np.pi)
    by_strength = 1 + np.exp(SLOPE_STRENGTH * (ratio - MIDDLE_STRENGTH))
    by_angle = 1 + np.exp(SLOPE_ANGLE * (agreement - MIDDLE_ANGLE))
    return (GAMMA_STRENGTH * GAMMA_ANGLE) / (by_strength * by_angle)
