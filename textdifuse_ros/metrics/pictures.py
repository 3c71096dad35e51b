"""What the metrics take: grey pictures of 0 .. 255, checked and made float64."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError


def to_grey(picture: np.ndarray, what: str = "the fused picture") -> np.ndarray:
    """The grey that all grey metrics are taken from: OpenCV's 8-bit BT.601 luma of the saved picture.

    :param picture: uint8 [H, W, 3] RGB, or uint8 [H, W], which is returned as it is
    :return: uint8 [H, W]
    :raises ImageError: another type or shape
    """
    if picture.dtype == np.uint8 and picture.ndim == 2:
        return picture
    check_color(picture, what)
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def check_color(picture: np.ndarray, what: str) -> None:
    """Refuse anything but ``uint8`` [H, W, 3], not empty.

    :raises ImageError: another type or shape
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ImageError(what, "uint8 [H, W, 3] (RGB)", describe(picture))


def grey_values(what: str, picture: np.ndarray) -> np.ndarray:
    """One grey picture as float64.

    :param picture: uint8 or float64 [H, W] in 0 .. 255, not empty
    :return: float64 [H, W]; the picture itself where it is float64 already
    :raises ImageError: another type or shape
    """
    if picture.ndim != 2 or picture.dtype.name not in ("uint8", "float64") or not picture.size:
        raise ImageError(what, "uint8 or float64 [H, W] in 0 .. 255", describe(picture))
    return picture.astype(np.float64, copy=False)


def check_least(what: str, picture: np.ndarray, least: int) -> None:
    """Refuse a picture of which a side is shorter than ``least`` pixels.

    :raises ImageError: too small
    """
    if min(picture.shape[:2]) < least:
        raise ImageError(what, f"at least {least} x {least} pixels for this metric", describe(picture))


def check_alike(what: str, picture: np.ndarray, other: np.ndarray) -> None:
    """Refuse two pictures of different shapes.

    :raises ImageError: they differ
    """
    if picture.shape != other.shape:
        shape, due = (" x ".join(map(str, each.shape)) for each in (picture, other))
        raise ImageError(what, f"of the shape of the picture it is compared with ({due})", shape)
