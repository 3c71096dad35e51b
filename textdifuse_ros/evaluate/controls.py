"""Eight control fusions without a network: the baseline that every method has to beat.

Each control computes a luma from the two sources and keeps the chroma of the visible image. A metric on which a control
ranks first proves nothing for that set of images.

Exact recipe: OpenCV's 8-bit YCrCb (BT.601, full range) gives luma and chroma of the visible image; the new luma is
computed in float64, rounded (half to even), clipped to 0 .. 255, and OpenCV converts back to RGB. The rounding rule
matters for ``mean`` only: half of its values end in .5, and rounding them up would raise the entropy by 0.19 bit.

The rules for the luma take ``visible`` and ``infrared``, uint8 [H, W], and return uint8 or float64 [H, W].
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np

from textdifuse_ros.checks import check_infrared, check_same_size, check_visible, describe
from textdifuse_ros.errors import ImageError

Luma = np.ndarray
Control = Callable[[np.ndarray, np.ndarray], np.ndarray]

CLAHE_TILES = (8, 8)
CLAHE_LIMIT_MAX = 2.0
CLAHE_LIMIT_SUM = 1.5
CLAHE_SUM_GAIN = 1.2
NOISE_SIGMA = 15.0  # [grey level]


def copy_visible(visible: Luma, infrared: Luma) -> Luma:
    """Return the visible luma; the conversion to YCrCb and back may change a channel by one grey level."""
    return visible


def copy_infrared(visible: Luma, infrared: Luma) -> Luma:
    """Return the infrared image as luma."""
    return infrared


def mean(visible: Luma, infrared: Luma) -> Luma:
    """Return (A + B) / 2."""
    return (visible.astype(np.float64) + infrared) / 2


def maximum(visible: Luma, infrared: Luma) -> Luma:
    """Return max(A, B)."""
    return np.maximum(visible, infrared)


def noisy_maximum(visible: Luma, infrared: Luma) -> Luma:
    """Return max(A, B) plus white Gaussian noise of sigma 15.

    The seed is derived from the images: the same pair gives the same bytes, and each frame of a sequence gets its own
    noise, like that of a sensor.
    """
    seed = zlib.crc32(infrared.tobytes(), zlib.crc32(visible.tobytes()))
    noise = np.random.default_rng(seed).standard_normal(visible.shape)
    return np.maximum(visible, infrared) + NOISE_SIGMA * noise


def equalized_maximum(visible: Luma, infrared: Luma) -> Luma:
    """Return max(CLAHE(A), B), clip limit 2, 8 x 8 tiles."""
    return np.maximum(_equalize(visible, CLAHE_LIMIT_MAX), infrared)


def centered_sum(visible: Luma, infrared: Luma) -> Luma:
    """Return A + B, shifted to a mean of 127.5 over the image; not clipped."""
    total = visible.astype(np.float64) + infrared
    return total - total.mean() + 127.5


def equalized_sum(visible: Luma, infrared: Luma) -> Luma:
    """Return the average of sum and max of CLAHE(A) and B, with 1.2 times the contrast.

    CLAHE has a clip limit of 1.5 and 8 x 8 tiles. The sum is :func:`centered_sum`, unclipped. The gain scales the
    deviation from the mean of the average.
    """
    equalized = _equalize(visible, CLAHE_LIMIT_SUM)
    blend = (centered_sum(equalized, infrared) + np.maximum(equalized, infrared)) / 2
    return (blend - blend.mean()) * CLAHE_SUM_GAIN + blend.mean()


def _equalize(luma: Luma, limit: float) -> Luma:
    return cv2.createCLAHE(limit, CLAHE_TILES).apply(luma)


def make_control(fuse_luma: Callable[[Luma, Luma], Luma]) -> Control:
    """Create a control from a rule for the luma.

    :param fuse_luma: maps visible and infrared luma, uint8 [H, W], to fused luma, uint8 or float64 [H, W], any range
    :returns: maps visible uint8 [H, W, 3] RGB and infrared uint8 [H, W] to the fused image, uint8 [H, W, 3] RGB; raises
        ImageError for another data type or shape, different sizes, or fewer than 8 x 8 pixels
    """

    def control(visible_rgb: np.ndarray, infrared: np.ndarray) -> np.ndarray:
        check_visible(visible_rgb)
        check_infrared(infrared)
        check_same_size(visible_rgb, infrared)
        for image, what in ((visible_rgb, "the visible image"), (infrared, "the infrared image")):
            if image.dtype != np.uint8:
                raise ImageError(what, "uint8 for a control", describe(image))
        coded = cv2.cvtColor(visible_rgb, cv2.COLOR_RGB2YCrCb)
        coded[..., 0] = np.clip(np.rint(fuse_luma(coded[..., 0].copy(), infrared)), 0, 255)
        return cv2.cvtColor(coded, cv2.COLOR_YCrCb2RGB)

    return control


CONTROLS: dict[str, Control] = {
    "visible": make_control(copy_visible),
    "infrared": make_control(copy_infrared),
    "mean": make_control(mean),
    "max": make_control(maximum),
    "max+noise15": make_control(noisy_maximum),
    "clahe+max": make_control(equalized_maximum),
    "sum": make_control(centered_sum),
    "clahe+sum": make_control(equalized_sum),
}
