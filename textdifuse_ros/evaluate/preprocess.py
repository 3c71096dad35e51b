"""The pre-processing of the rows ``NAME+pre``: what OpenCV does about noise, color and darkness before any fusion.

Each step looks at the image and does nothing where there is nothing to do, as a careful user would set it up: a
blind chain of filters would be an easy opponent.
"""

from __future__ import annotations

import cv2
import numpy as np

SUFFIX = "+pre"
NOISE_FLOOR = 3.0
"""Noise [levels] below which an image is taken as clean."""
TARGET_LUMA = 110.0
"""Mean luma up to which a dark image is raised."""
LARGEST_GAIN = 3.0
"""Of a color channel in the white balance."""


def preprocess(visible: np.ndarray, infrared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Denoise both images, balance the visible one's white, raise it where it is dark.

    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    :returns: like the arguments
    """
    visible = enhance_low_light(balance_white(denoise(visible)))
    return visible, denoise(infrared)


def noise_level(grey: np.ndarray) -> float:
    """Standard deviation of white noise in an image [levels]: Immerkaer's mask, with the median for the mean.

    :param grey: uint8 [H, W]
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    residual = cv2.filter2D(grey.astype(np.float32), -1, mask, borderType=cv2.BORDER_REFLECT_101)
    # The mask has norm 6; the median of |x| of a normal variable is 0.6745 sigma.
    return float(np.median(np.abs(residual)) / 6 / 0.6745)


def denoise(image: np.ndarray) -> np.ndarray:
    """Non-local means (Buades et al. 2005, OpenCV), by 1.2 times the measured noise; a clean image is left alone.

    :param image: uint8 [H, W] or [H, W, 3]
    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    sigma = noise_level(grey)
    if sigma < NOISE_FLOOR:
        return image
    if image.ndim == 2:
        return cv2.fastNlMeansDenoising(image, None, 1.2 * sigma, 5, 15)
    return cv2.fastNlMeansDenoisingColored(image, None, 1.2 * sigma, 1.5 * sigma, 5, 15)


def balance_white(visible: np.ndarray) -> np.ndarray:
    """Grey world: one gain a channel, so that their means agree.

    :param visible: uint8 [H, W, 3] RGB
    """
    means = visible.reshape(-1, 3).mean(0)
    gains = np.clip(means.mean() / np.maximum(means, 1), 1 / LARGEST_GAIN, LARGEST_GAIN)
    return np.clip(np.rint(visible * gains), 0, 255).astype(np.uint8)


def enhance_low_light(visible: np.ndarray) -> np.ndarray:
    """Gamma on the luma of a dark image, up to a mean of 110, then CLAHE (limit 1.5); others are left alone.

    :param visible: uint8 [H, W, 3] RGB
    """
    coded = cv2.cvtColor(visible, cv2.COLOR_RGB2YCrCb)
    mean = float(coded[..., 0].mean())
    if mean >= TARGET_LUMA or mean < 1:
        return visible
    gamma = max(np.log(TARGET_LUMA / 255) / np.log(mean / 255), 0.35)
    curve = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    coded[..., 0] = cv2.createCLAHE(1.5, (8, 8)).apply(cv2.LUT(coded[..., 0], curve))
    return cv2.cvtColor(coded, cv2.COLOR_YCrCb2RGB)
