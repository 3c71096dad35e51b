"""Small checks that raise the project's errors in the project's form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from textdifuse_ros.errors import ConfigError, ImageError

if TYPE_CHECKING:
    import numpy as np


def describe(array: object) -> str:
    """The data type and shape of an array or tensor in words, ``uint8 [480, 640, 3]``; else the type's name."""
    shape = getattr(array, "shape", None)
    dtype = getattr(array, "dtype", None)
    if shape is None or dtype is None:
        return type(array).__name__
    return f"{str(dtype).removeprefix('torch.')} {[int(n) for n in shape]}"


def check_visible(image: np.ndarray, what: str = "the visible image") -> None:
    """Refuse anything but ``uint8`` or ``uint16`` [H, W, 3], H and W at least 8.

    :raises ImageError: another type, shape or size
    """
    if getattr(image, "ndim", 0) != 3 or image.shape[2] != 3 or image.dtype.name not in ("uint8", "uint16"):
        raise ImageError(what, "uint8 or uint16 [H, W, 3] (RGB)", describe(image))
    _check_size(image, what)


def check_infrared(image: np.ndarray, what: str = "the infrared image") -> None:
    """Refuse anything but ``uint8`` or ``uint16`` [H, W], H and W at least 8.

    :raises ImageError: another type, shape or size
    """
    if getattr(image, "ndim", 0) != 2 or image.dtype.name not in ("uint8", "uint16"):
        raise ImageError(what, "uint8 or uint16 [H, W] (grey)", describe(image))
    _check_size(image, what)


def _check_size(image: np.ndarray, what: str) -> None:
    if min(image.shape[:2]) < 8:
        raise ImageError(what, "at least 8 x 8 pixels", describe(image))


def check_same_size(visible: np.ndarray, infrared: np.ndarray) -> None:
    """Refuse a pair whose heights or widths differ.

    :raises ImageError: the sizes differ
    """
    if visible.shape[:2] != infrared.shape[:2]:
        (vh, vw), (ih, iw) = visible.shape[:2], infrared.shape[:2]
        raise ImageError(
            "the infrared image",
            f"as large as the visible one ({vw} x {vh} pixels)",
            f"{iw} x {ih}",
            "register the pair to one size first",
        )


def check_number(
    name: str, value: object, low: float | None, high: float | None, unit: str = "", *, integer: bool = False
) -> None:
    """Refuse a value that is no finite number, no integer where one is due, or outside [low, high].

    :raises ConfigError: names the parameter, its range and unit
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
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(name, bounds, repr(value))
    if integer and not isinstance(value, int):
        raise ConfigError(name, bounds, repr(value))
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError(name, bounds, repr(value))
