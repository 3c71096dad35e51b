"""Argument checks that raise the project's typed errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from textdifuse_ros.errors import ConfigError, ImageError, quote

if TYPE_CHECKING:
    import numpy as np


def describe(array: object) -> str:
    """Describe an ``array`` or tensor by data type and shape, ``uint8 [480, 640, 3]``; other objects by type name."""
    shape = getattr(array, "shape", None)
    dtype = getattr(array, "dtype", None)
    if shape is None or dtype is None:
        return type(array).__name__
    return f"{str(dtype).removeprefix('torch.')} {[int(n) for n in shape]}"


def check_visible(image: np.ndarray, what: str = "the visible image") -> None:
    """Check a visible image.

    :param image: uint8 or uint16 [H, W, 3] RGB, H and W at least 8
    :param what: name of the image in the error message
    :raises ImageError: wrong data type, shape or size
    """
    if getattr(image, "ndim", 0) != 3 or image.shape[2] != 3 or image.dtype.name not in ("uint8", "uint16"):
        raise ImageError(what, "uint8 or uint16 [H, W, 3] (RGB)", describe(image))
    _check_size(image, what)


def check_infrared(image: np.ndarray, what: str = "the infrared image") -> None:
    """Check an infrared image.

    :param image: uint8 or uint16 [H, W], H and W at least 8
    :param what: name of the image in the error message
    :raises ImageError: wrong data type, shape or size
    """
    if getattr(image, "ndim", 0) != 2 or image.dtype.name not in ("uint8", "uint16"):
        raise ImageError(what, "uint8 or uint16 [H, W] (grey)", describe(image))
    _check_size(image, what)


def _check_size(image: np.ndarray, what: str) -> None:
    if min(image.shape[:2]) < 8:
        raise ImageError(what, "at least 8 x 8 pixels", describe(image))


def check_same_size(visible: np.ndarray, infrared: np.ndarray) -> None:
    """Check that two images have the same height and width.

    :param visible: [H, W, 3]
    :param infrared: [H, W]
    :raises ImageError: the sizes differ
    """
    if visible.shape[:2] != infrared.shape[:2]:
        (vh, vw), (ih, iw) = visible.shape[:2], infrared.shape[:2]
        raise ImageError(
            "the infrared image",
            f"as large as the visible one ({vw} x {vh} pixels)",
            f"{iw} x {ih}",
            "register the pair first",
        )


def check_number(
    name: str, value: object, low: float | None, high: float | None, unit: str = "", *, integer: bool = False
) -> None:
    """Check that a parameter is a finite number in a closed range.

    :param name: name of the parameter, for the error message
    :param value: any object
    :param low: smallest allowed value; None for no lower bound
    :param high: largest allowed value; None for no upper bound
    :param unit: unit for the error message
    :param integer: whether the value must be an integer
    :raises ConfigError: not a number, not finite, not an integer where required, or out of range
    """
    bounds = "a number" if not integer else "an integer"
    if low is not None and high is not None:
        bounds += f" in [{low:g}, {high:g}]"
    elif low is not None:
        bounds += f" of at least {low:g}"
    elif high is not None:
        bounds += f" of at most {high:g}"
    if unit:
        bounds += f" [{unit}]"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(name, bounds, quote(value))
    if not math.isfinite(value) if isinstance(value, float) else abs(value) >= 2**63:
        raise ConfigError(name, bounds, quote(value))
    if integer and not isinstance(value, int):
        raise ConfigError(name, bounds, quote(value))
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError(name, bounds, quote(value))
