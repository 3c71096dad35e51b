"""Random degradations of medical slices for training: mild noise, a poor window, and blur.

The visible image is CT (grey), PET or SPECT (pseudo-color), the infrared one MRI. The black background is part of the
image: it stays black unless noise or the window brightens it. The target is always the clean slice.
"""

from __future__ import annotations

import numpy as np

from textdifuse_ros.data import degradations as d


def degrade_functional(
    clean: np.ndarray, sky: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Degrade a CT, PET or SPECT slice at random.

    :param clean: float32 [H, W, 3] in [0, 1]
    :param sky: unused
    :param rng: source of all randomness
    :returns: the degraded image and its target, the clean one
    """
    if rng.random() < 0.4:
        return clean, clean
    image = _window(clean, rng)
    image = _soften(image, rng)
    if rng.random() < 0.6:
        sigma = _between(0.004, 0.05, rng)
        if rng.random() < 0.5:
            image = d.gaussian_noise(image, sigma, rng)
        else:  # noise of the measurement, before the pseudo-color: the same in all channels
            noise = rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None]
            image = np.clip(image + np.float32(sigma) * noise, 0, 1)
    return d.quantize(image), clean


def degrade_mri(clean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Degrade an MRI slice at random.

    :param clean: float32 [H, W] in [0, 1]
    :param rng: source of all randomness
    :returns: the degraded image and its target, the clean one
    """
    if rng.random() < 0.4:
        return clean, clean
    image = _window(clean, rng)
    image = _soften(image, rng)
    if rng.random() < 0.6:
        image = rician_noise(image, _between(0.004, 0.06, rng), rng)
    return d.quantize(image), clean


def rician_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add the noise of a magnitude image, normal in both channels of the receiver (Gudbjartsson and Patz 1995).

    The noise is nearly normal where there is signal; black becomes dark grey, since a magnitude is never negative.

    :param image: float32 [H, W] in [0, 1]
    :param sigma: standard deviation of each channel
    :param rng: source of the noise
    """
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(sigma)
    return np.clip(np.hypot(image + real, imaginary), 0, 1)


def _window(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Widen the window: less contrast and a shifted mean."""
    if rng.random() < 0.35:
        level = float(image.mean()) * rng.uniform(0.7, 1.2) + rng.uniform(0, 0.1)
        return d.low_contrast(image, rng.uniform(0.4, 0.9), level)
    return image


def _soften(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return d.gaussian_blur(image, rng.uniform(0.5, 1.3)) if rng.random() < 0.15 else image


def _between(low: float, high: float, rng: np.random.Generator) -> float:
    """Draw log-uniformly."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
