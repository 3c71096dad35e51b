"""What the metrics take: grey images of 0 .. 255, checked and made float64."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError


def to_grey(image: np.ndarray, what: str = "the fused image") -> np.ndarray:
    """The grey that all grey metrics are taken from: OpenCV's 8-bit BT.601 luma of the saved image.

    :param image: uint8 [H, W, 3] RGB, or uint8 [H, W], which is returned as it is
    :returns: uint8 [H, W]
    :raises ImageError: another type or shape
    """
    if image.dtype == np.uint8 and image.ndim == 2:
        return image
    check_color(image, what)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def check_color(image: np.ndarray, what: str) -> None:
    """Refuse anything but ``uint8`` [H, W, 3], not empty.

    :raises ImageError: another type or shape
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(what, "uint8 [H, W, 3] (RGB)", describe(image))


def grey_values(what: str, image: np.ndarray) -> np.ndarray:
    """One grey image as float64.

    :param image: uint8 or float64 [H, W] in 0 .. 255, not empty
    :returns: float64 [H, W]; the image itself where it is float64 already
    :raises ImageError: another type or shape
    """
    if image.ndim != 2 or image.dtype.name not in ("uint8", "float64") or not image.size:
        raise ImageError(what, "uint8 or float64 [H, W] in 0 .. 255", describe(image))
    return image.astype(np.float64, copy=False)


def check_min_size(what: str, image: np.ndarray, least: int) -> None:
    """Refuse an image of which a side is shorter than ``least`` pixels.

    :raises ImageError: too small
    """
    if min(image.shape[:2]) < least:
        raise ImageError(what, f"at least {least} x {least} pixels for this metric", describe(image))


def check_same_shape(what: str, image: np.ndarray, other: np.ndarray) -> None:
    """Refuse two images of different shapes.

    :raises ImageError: they differ
    """
    if image.shape != other.shape:
        shape, due = (" x ".join(map(str, each.shape)) for each in (image, other))
        raise ImageError(what, f"of the shape of the image it is compared with ({due})", shape)
