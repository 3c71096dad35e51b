"""Conversion of single 16-bit and float images to 8 bits.

A thermal camera's counts (or temperatures) cover a small, drifting part of their range, so they are stretched between
two percentiles of the image. A 16-bit color image uses its full range and is only scaled: stretching it would undo
the camera's exposure control.
"""

from __future__ import annotations

import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError

LOW_PERCENTILE = 0.5
HIGH_PERCENTILE = 99.5
MID_GREY = 128


def to_uint8(image: np.ndarray, what: str = "the image", valid: np.ndarray | None = None) -> np.ndarray:
    """Convert an image to 8 bits.

    - uint8 [H, W] or [H, W, 3] is returned unchanged (no copy).
    - uint16 [H, W, 3] (visible) is divided by 257 and rounded: 65535 becomes 255.
    - uint16 or float [H, W] (infrared) is stretched from its 0.5th .. 99.5th percentile to 0 .. 255 and clipped, see
      :func:`stretch_limits`; a constant image becomes mid grey, 128.

    :param image: image of one of these types
    :param what: name of the image in error messages
    :param valid: bool [H, W], the pixels with a value, of which the limits are taken; the others become black. None for
        all
    :returns: uint8, of the same shape
    :raises ImageError: unsupported type or shape; NaN or infinite values that are said to be valid
    """
    grey, color = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
    if image.dtype == np.uint8 and (grey or color):
        return image
    if image.dtype == np.uint16 and color:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if grey and image.size and image.dtype.name in ("uint16", "float32", "float64"):
        if valid is None:
            return stretch(image, *stretch_limits(image, what))
        low, high = stretch_limits(image[valid], what)
        return stretch(np.where(valid, image, np.array(low, image.dtype)), low, high)
    raise ImageError(what, "uint8 or uint16 [H, W, 3], or uint8, uint16 or float [H, W]", describe(image))


def stretch_limits(image: np.ndarray, what: str = "the image") -> tuple[float, float]:
    """Compute the values of a thermal image that map to black and white: its 0.5th and 99.5th percentile.

    If these coincide (a small warm object in front of a uniform background), the minimum and maximum replace them so
    that the object stays visible. The limits are equal only for a constant image.

    :param image: uint16 or float [H, W] or [N], not empty
    :param what: name of the image in error messages
    :returns: low and high limit; percentiles by nearest rank
    :raises ImageError: NaN or infinite values
    """
    check_finite_image(image, what)
    low, high = percentile_values(image, (LOW_PERCENTILE, HIGH_PERCENTILE))
    if low == high:
        low, high = image.min(), image.max()
    return float(low), float(high)


def percentile_values(image: np.ndarray, percentiles: tuple[float, ...]) -> np.ndarray:
    """Compute percentiles of an image by nearest rank.

    :param image: uint16 or finite float, not empty
    :param percentiles: each in 0 .. 100
    :returns: one value for each percentile; int64 for uint16, else the image's data type
    """
    # Nearest rank, since interpolation could overflow between extreme floats.
    ranks = np.rint(np.array(percentiles) / 100 * (image.size - 1)).astype(np.int64)
    if image.dtype == np.uint16:  # counting is eight times faster than sorting, and the node does it every frame
        return np.searchsorted(np.cumsum(np.bincount(image.reshape(-1))), ranks, side="right")
    return np.partition(image, ranks, axis=None)[ranks]


def check_finite_image(image: np.ndarray, what: str) -> None:
    """Check that a float image has no NaN or infinite values; integer images pass.

    :param image: any numeric array
    :param what: name of the image in the error message
    :raises ImageError: with the number of such pixels
    """
    if image.dtype.kind == "f":
        bad = image.size - int(np.count_nonzero(np.isfinite(image)))
        if bad:
            found = f"{bad} of {image.size} pixels NaN or infinite"
            raise ImageError(what, "finite everywhere", found, "replace them at the source")


def stretch(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map [low, high] linearly to 0 .. 255, clipped and rounded to nearest.

    :param image: uint16 or float, finite
    :param low: value that maps to 0
    :param high: value that maps to 255
    :returns: uint8, of the same shape; 128 everywhere if ``low`` equals ``high``
    """
    if low == high:
        return np.full(image.shape, MID_GREY, np.uint8)
    values = np.arange(65536) if image.dtype == np.uint16 else image
    # Halved, so that the span of two extreme float64 values stays finite.
    share = (np.clip(values, low, high) / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
    mapped = (share * 255.0 + 0.5).astype(np.uint8)
    return mapped[image] if image.dtype == np.uint16 else mapped
