"""Input of the metrics: checked grey images, 0 .. 255, in float64."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError


def to_grey(image: np.ndarray, what: str = "the fused image") -> np.ndarray:
    """Convert an image to OpenCV's 8-bit BT.601 luma, on which all grey metrics are computed.

    :param image: uint8 [H, W, 3] RGB, or uint8 [H, W], which is returned unchanged
    :param what: name of the image in the error message
    :returns: uint8 [H, W]
    :raises ImageError: wrong type or shape
    """
    if image.dtype == np.uint8 and image.ndim == 2:
        return image
    check_color(image, what)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def check_color(image: np.ndarray, what: str) -> None:
    """Check that an image is uint8 RGB.

    :param image: uint8 [H, W, 3], not empty
    :param what: name of the image in the error message
    :raises ImageError: wrong type or shape
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(what, "uint8 [H, W, 3] (RGB)", describe(image))


def grey_values(what: str, image: np.ndarray) -> np.ndarray:
    """Convert a grey image to float64.

    :param what: name of the image in the error message
    :param image: uint8 or float64 [H, W] in 0 .. 255, not empty
    :returns: float64 [H, W]; the same array if already float64
    :raises ImageError: wrong type or shape
    """
    if image.ndim != 2 or image.dtype.name not in ("uint8", "float64") or not image.size:
        raise ImageError(what, "uint8 or float64 [H, W] in 0 .. 255", describe(image))
    return image.astype(np.float64, copy=False)


def check_min_size(what: str, image: np.ndarray, size: int) -> None:
    """Check that both sides of an image have at least ``size`` pixels.

    :param what: name of the image in the error message
    :param image: [H, W] or [H, W, C]
    :param size: minimum [pixel]
    :raises ImageError: too small
    """
    if min(image.shape[:2]) < size:
        raise ImageError(what, f"at least {size} x {size} pixels for this metric", describe(image))


def check_same_shape(what: str, image: np.ndarray, other: np.ndarray) -> None:
    """Check that two images have the same shape.

    :param what: name of ``image`` in the error message
    :param image: any array
    :param other: any array
    :raises ImageError: the shapes differ
    """
    if image.shape != other.shape:
        shape, expected = (" x ".join(map(str, each.shape)) for each in (image, other))
        raise ImageError(what, f"of the same shape as the image it is compared with ({expected})", shape)
