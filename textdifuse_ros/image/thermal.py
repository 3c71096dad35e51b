"""Sixteen-bit and float pictures to eight bits, one picture at a time.

A thermal camera's counts (or temperatures) fill a small, drifting part of their range, so they are stretched between
two percentiles of the picture itself. A colour picture of sixteen bits fills its range and is only scaled: stretching
it would undo the exposure that the camera chose.
"""

from __future__ import annotations

import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError

LOW_PERCENTILE = 0.5
HIGH_PERCENTILE = 99.5
MID_GREY = 128


def to_uint8(picture: np.ndarray, what: str = "the picture") -> np.ndarray:
    """Eight bits of any picture that the project takes.

    - uint8 [H, W] or [H, W, 3] is returned as it is (no copy);
    - uint16 [H, W, 3], visible, is divided by 257 and rounded, so that 65535 becomes 255;
    - uint16 or float [H, W], infrared, is stretched from its 0.5th .. 99.5th percentile to 0 .. 255 and clipped
      (see :func:`stretch_limits`); a constant picture becomes mid grey, 128.

    :param what: names the picture in error messages
    :return: uint8, of the same shape
    :raises ImageError: another type or shape; NaN or infinite values
    """
    grey, colour = picture.ndim == 2, picture.ndim == 3 and picture.shape[2] == 3
    if picture.dtype == np.uint8 and (grey or colour):
        return picture
    if picture.dtype == np.uint16 and colour:
        return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if grey and picture.size and picture.dtype.name in ("uint16", "float32", "float64"):
        return stretch(picture, *stretch_limits(picture, what))
    raise ImageError(what, "uint8 or uint16 [H, W, 3], or uint8, uint16 or float [H, W]", describe(picture))


def stretch_limits(picture: np.ndarray, what: str = "the picture") -> tuple[float, float]:
    """The values of a thermal picture that become black and white: its 0.5th and 99.5th percentile (nearest rank).

    Where these coincide (a small warm object before an even background) the minimum and the maximum stand in, lest
    the object disappear. The two are equal only for a constant picture.

    :param picture: uint16 or float [H, W], not empty
    :raises ImageError: NaN or infinite values
    """
    check_finite(picture, what)
    low, high = values_at(picture, (LOW_PERCENTILE, HIGH_PERCENTILE))
    if low == high:
        low, high = picture.min(), picture.max()
    return float(low), float(high)


def values_at(picture: np.ndarray, percentiles: tuple[float, ...]) -> np.ndarray:
    """The values at these percentiles (nearest rank), int64 or float as the picture.

    :param picture: uint16 or finite float, not empty
    """
    # The nearest rank is a value of the picture: interpolating could overflow between extreme floats.
    ranks = np.rint(np.array(percentiles) / 100 * (picture.size - 1)).astype(np.int64)
    if picture.dtype == np.uint16:  # counting is eight times as fast as sorting, and the node does it every frame
        return np.searchsorted(np.cumsum(np.bincount(picture.reshape(-1))), ranks, side="right")
    return np.partition(picture, ranks, axis=None)[ranks]


def check_finite(picture: np.ndarray, what: str) -> None:
    """Refuse a float picture with NaN or infinite values; integers pass.

    :raises ImageError: says how many
    """
    if picture.dtype.kind == "f":
        bad = picture.size - int(np.count_nonzero(np.isfinite(picture)))
        if bad:
            found = f"{bad} of {picture.size} pixels NaN or infinite"
            raise ImageError(what, "finite everywhere", found, "replace them at the source")


def stretch(picture: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map [low, high] to 0 .. 255, clip what lies outside, round to nearest.

    :param picture: uint16 or float, finite
    :return: uint8, of the same shape; 128 everywhere where ``low`` equals ``high``
    """
    if low == high:
        return np.full(picture.shape, MID_GREY, np.uint8)
    values = np.arange(65536) if picture.dtype == np.uint16 else picture
    # Halves, so that the span of two extreme float64 values stays finite.
    share = (np.clip(values, low, high) / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
    mapped = (share * 255.0 + 0.5).astype(np.uint8)
    return mapped[picture] if picture.dtype == np.uint16 else mapped
