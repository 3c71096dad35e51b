"""The pre-processing of the rows ``NAME+pre``: denoising, white balance and low-light enhancement by OpenCV.

Each step measures the image and is skipped if it is not needed, as a careful user would configure it: an unconditional
chain of filters would be too weak a baseline.
"""

from __future__ import annotations

import cv2
import numpy as np

SUFFIX = "+pre"
NOISE_FLOOR = 3.0
"""Noise level below which an image counts as clean [levels]."""
TARGET_LUMA = 110.0
"""Mean luma to which a dark image is brightened [levels]."""
LARGEST_GAIN = 3.0
"""Maximum gain of a color channel in the white balance; its inverse is the minimum."""


def preprocess(visible: np.ndarray, infrared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Denoise both images; white-balance the visible image and brighten it if it is dark.

    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    :returns: both images, same types and shapes
    """
    visible = enhance_low_light(balance_white(denoise(visible)))
    return visible, denoise(infrared)


def noise_level(grey: np.ndarray) -> float:
    """Estimate the standard deviation of white noise [levels] (Immerkaer 1996, with the median instead of the mean).

    :param grey: uint8 [H, W]
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    residual = cv2.filter2D(grey.astype(np.float32), -1, mask, borderType=cv2.BORDER_REFLECT_101)
    # The mask has norm 6; the median of |x| of a normal variable is 0.6745 sigma.
    return float(np.median(np.abs(residual)) / 6 / 0.6745)


def denoise(image: np.ndarray) -> np.ndarray:
    """Denoise by non-local means (Buades et al. 2005) with 1.2 times the measured noise; skip clean images.

    :param image: uint8 [H, W] or [H, W, 3] RGB
    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    sigma = noise_level(grey)
    if sigma < NOISE_FLOOR:
        return image
    if image.ndim == 2:
        return cv2.fastNlMeansDenoising(image, None, 1.2 * sigma, 5, 15)
    return cv2.fastNlMeansDenoisingColored(image, None, 1.2 * sigma, 1.5 * sigma, 5, 15)


def balance_white(visible: np.ndarray) -> np.ndarray:
    """White-balance by the grey-world assumption: one gain per channel makes their means equal.

    :param visible: uint8 [H, W, 3] RGB
    """
    means = visible.reshape(-1, 3).mean(0)
    gains = np.clip(means.mean() / np.maximum(means, 1), 1 / LARGEST_GAIN, LARGEST_GAIN)
    return np.clip(np.rint(visible * gains), 0, 255).astype(np.uint8)


def enhance_low_light(visible: np.ndarray) -> np.ndarray:
    """Brighten the luma of a dark image by gamma to a mean of about 110, then CLAHE (limit 1.5); skip bright images.

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
