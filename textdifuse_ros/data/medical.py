"""Random degradations of medical slices: noise, a poor window and softness, all mild; there is no darkness.

The visible image is CT (grey), PET or SPECT (pseudo-color), the infrared one MRI. The black round the head is a part
of the image: it stays black unless noise or the window lifts it, and the target is always the clean slice.

Every ``rng`` is a ``numpy.random.Generator``, the only source of randomness.
"""

from __future__ import annotations

import numpy as np

from textdifuse_ros.data import degradations as d


def degrade_functional(
    clean: np.ndarray, sky: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One random degradation of a CT, PET or SPECT slice.

    :param clean: float32 [H, W, 3] in [0, 1]
    :param sky: not looked at
    :returns: the degraded image and the clean one, its target
    """
    if rng.random() < 0.4:
        return clean, clean
    image = _window(clean, rng)
    image = _soften(image, rng)
    if rng.random() < 0.6:
        sigma = _between(0.004, 0.05, rng)
        if rng.random() < 0.5:
            image = d.gaussian_noise(image, sigma, rng)
        else:  # noise of the measured number, before it was given a color: the same in all channels
            noise = rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None]
            image = np.clip(image + np.float32(sigma) * noise, 0, 1)
    return d.quantize(image), clean


def degrade_mri(clean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One random degradation of an MRI slice.

    :param clean: float32 [H, W] in [0, 1]
    :returns: the degraded image and the clean one, its target
    """
    if rng.random() < 0.4:
        return clean, clean
    image = _window(clean, rng)
    image = _soften(image, rng)
    if rng.random() < 0.6:
        image = rician_noise(image, _between(0.004, 0.06, rng), rng)
    return d.quantize(image), clean


def rician_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of a magnitude image: normal in both channels of the receiver (Gudbjartsson and Patz 1995).

    Where there is signal it is nearly normal; black becomes dark grey, for a magnitude is never negative.

    :param image: float32 [H, W] in [0, 1]
    :param sigma: standard deviation of each channel
    """
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(sigma)
    return np.clip(np.hypot(image + real, imaginary), 0, 1)


def _window(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window set too wide: less contrast, and the mean somewhat off."""
    if rng.random() < 0.35:
        level = float(image.mean()) * rng.uniform(0.7, 1.2) + rng.uniform(0, 0.1)
        return d.low_contrast(image, rng.uniform(0.4, 0.9), level)
    return image


def _soften(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return d.gaussian_blur(image, rng.uniform(0.5, 1.3)) if rng.random() < 0.15 else image


def _between(low: float, high: float, rng: np.random.Generator) -> float:
    """Evenly spread over the magnitudes."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
