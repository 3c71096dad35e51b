"""Sixteen-bit and float images to eight bits, one image at a time.

A thermal camera's counts (or temperatures) fill a small, drifting part of their range, so they are stretched between
two percentiles of the image itself. A color image of sixteen bits fills its range and is only scaled: stretching
it would undo the exposure that the camera chose.
"""

from __future__ import annotations

import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError

LOW_PERCENTILE = 0.5
HIGH_PERCENTILE = 99.5
MID_GREY = 128


def to_uint8(image: np.ndarray, what: str = "the image") -> np.ndarray:
    """Eight bits of any image that the project takes.

    - uint8 [H, W] or [H, W, 3] is returned as it is (no copy);
    - uint16 [H, W, 3], visible, is divided by 257 and rounded, so that 65535 becomes 255;
    - uint16 or float [H, W], infrared, is stretched from its 0.5th .. 99.5th percentile to 0 .. 255 and clipped
      (see :func:`stretch_limits`); a constant image becomes mid grey, 128.

    :param what: names the image in error messages
    :returns: uint8, of the same shape
    :raises ImageError: another type or shape; NaN or infinite values
    """
    grey, color = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
    if image.dtype == np.uint8 and (grey or color):
        return image
    if image.dtype == np.uint16 and color:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if grey and image.size and image.dtype.name in ("uint16", "float32", "float64"):
        return stretch(image, *stretch_limits(image, what))
    raise ImageError(what, "uint8 or uint16 [H, W, 3], or uint8, uint16 or float [H, W]", describe(image))


def stretch_limits(image: np.ndarray, what: str = "the image") -> tuple[float, float]:
    """The values of a thermal image that become black and white: its 0.5th and 99.5th percentile (nearest rank).

    Where these coincide (a small warm object before an even background) the minimum and the maximum stand in, lest
    the object disappear. The two are equal only for a constant image.

    :param image: uint16 or float [H, W], not empty
    :raises ImageError: NaN or infinite values
    """
    check_finite(image, what)
    low, high = percentile_values(image, (LOW_PERCENTILE, HIGH_PERCENTILE))
    if low == high:
        low, high = image.min(), image.max()
    return float(low), float(high)


def percentile_values(image: np.ndarray, percentiles: tuple[float, ...]) -> np.ndarray:
    """The values at these percentiles (nearest rank), int64 or float as the image.

    :param image: uint16 or finite float, not empty
    """
    # The nearest rank is a value of the image: interpolating could overflow between extreme floats.
    ranks = np.rint(np.array(percentiles) / 100 * (image.size - 1)).astype(np.int64)
    if image.dtype == np.uint16:  # counting is eight times as fast as sorting, and the node does it every frame
        return np.searchsorted(np.cumsum(np.bincount(image.reshape(-1))), ranks, side="right")
    return np.partition(image, ranks, axis=None)[ranks]


def check_finite(image: np.ndarray, what: str) -> None:
    """Refuse a float image with NaN or infinite values; integers pass.

    :raises ImageError: says how many
    """
    if image.dtype.kind == "f":
        bad = image.size - int(np.count_nonzero(np.isfinite(image)))
        if bad:
            found = f"{bad} of {image.size} pixels NaN or infinite"
            raise ImageError(what, "finite everywhere", found, "replace them at the source")


def stretch(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map [low, high] to 0 .. 255, clip what lies outside, round to nearest.

    :param image: uint16 or float, finite
    :returns: uint8, of the same shape; 128 everywhere where ``low`` equals ``high``
    """
    if low == high:
        return np.full(image.shape, MID_GREY, np.uint8)
    values = np.arange(65536) if image.dtype == np.uint16 else image
    # Halves, so that the span of two extreme float64 values stays finite.
    share = (np.clip(values, low, high) / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
    mapped = (share * 255.0 + 0.5).astype(np.uint8)
    return mapped[image] if image.dtype == np.uint16 else mapped
