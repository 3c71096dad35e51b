"""Visible images of a monochrome camera, whose three channels are equal."""

from __future__ import annotations

import numpy as np

_SAMPLE = 16  # rows and columns between the pixels that are looked at first


def is_grey(image: np.ndarray) -> bool:
    """Whether the three channels are equal everywhere.

    :param image: uint8 or uint16 [H, W, 3] RGB
    """
    # A few pixels settle it for nearly every color image.
    return _equal(image[::_SAMPLE, ::_SAMPLE]) and _equal(image)


def _equal(image: np.ndarray) -> bool:
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    return bool((red == green).all() and (green == blue).all())
