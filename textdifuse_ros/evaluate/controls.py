"""What any fusion has to beat: eight controls without a network.

Each makes a luma from the two sources and keeps the visible image's chroma. A metric on which one of them comes first
proves nothing for that set of images.

The recipe, to the bit: luma and chroma of the visible image are OpenCV's 8-bit YCrCb (BT.601, full range); the new
luma is computed in float64, rounded (halves to even), clipped to 0 .. 255; OpenCV turns it back to RGB. How halves are
rounded matters for ``mean`` alone: half of its values are halves, which fill the even levels, and always rounding up
would give 0.19 bit more entropy.
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


def visible_itself(visible: Luma, infrared: Luma) -> Luma:
    """The visible luma; only the conversion to YCrCb and back may change a channel by a grey level."""
    return visible


def infrared_itself(visible: Luma, infrared: Luma) -> Luma:
    """The infrared image in the visible image's colors."""
    return infrared


def mean(visible: Luma, infrared: Luma) -> Luma:
    """(A + B) / 2."""
    return (visible.astype(np.float64) + infrared) / 2


def maximum(visible: Luma, infrared: Luma) -> Luma:
    """max(A, B)."""
    return np.maximum(visible, infrared)


def noisy_maximum(visible: Luma, infrared: Luma) -> Luma:
    """max(A, B) with white Gaussian noise of sigma 15.

    The seed is taken from the images: the same pair gives the same bytes, while the frames of a sequence get noise of
    their own, as a sensor's would be.
    """
    seed = zlib.crc32(infrared.tobytes(), zlib.crc32(visible.tobytes()))
    noise = np.random.default_rng(seed).standard_normal(visible.shape)
    return np.maximum(visible, infrared) + NOISE_SIGMA * noise


def equalized_maximum(visible: Luma, infrared: Luma) -> Luma:
    """max(CLAHE(A), B), clip limit 2, 8 x 8 tiles."""
    return np.maximum(_equalized(visible, CLAHE_LIMIT_MAX), infrared)


def centred_sum(visible: Luma, infrared: Luma) -> Luma:
    """A + B, its mean over the image moved to 127.5; clipped when saved."""
    total = visible.astype(np.float64) + infrared
    return total - total.mean() + 127.5


def equalized_sum(visible: Luma, infrared: Luma) -> Luma:
    """The mean of A + B and max, with 1.2 times the contrast.

    Both are of CLAHE(A) (clip limit 1.5, 8 x 8 tiles) and B, the sum as in :func:`centred_sum` and not clipped before
    it is blended; the gain stretches the deviation from the blend's own mean.
    """
    equalized = _equalized(visible, CLAHE_LIMIT_SUM)
    blend = (centred_sum(equalized, infrared) + np.maximum(equalized, infrared)) / 2
    return (blend - blend.mean()) * CLAHE_SUM_GAIN + blend.mean()


def _equalized(luma: Luma, limit: float) -> Luma:
    return cv2.createCLAHE(limit, CLAHE_TILES).apply(luma)


def keep_chroma(fuse_luma: Callable[[Luma, Luma], Luma]) -> Control:
    """A control from a rule for the luma.

    :param fuse_luma: visible and infrared luma, uint8 [H, W], to the fused one, uint8 or float64 [H, W], any range
    :returns: visible uint8 [H, W, 3] RGB and infrared uint8 [H, W] to the fused image, uint8 [H, W, 3] RGB; raises
        ImageError for another type or shape, different sizes, or less than 8 x 8 pixels
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
    "visible": keep_chroma(visible_itself),
    "infrared": keep_chroma(infrared_itself),
    "mean": keep_chroma(mean),
    "max": keep_chroma(maximum),
    "max+noise15": keep_chroma(noisy_maximum),
    "clahe+max": keep_chroma(equalized_maximum),
    "sum": keep_chroma(centred_sum),
    "clahe+sum": keep_chroma(equalized_sum),
}
