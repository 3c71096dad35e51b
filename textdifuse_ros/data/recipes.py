"""Random degradations of road scenes for training, single and combined.

Darkness is a field of illumination, not a factor: lamps light their surroundings, the sky is dark, and light sources
stay bright. Details lost in the dark cannot be restored, so the target is not the scene by day: it is the clean scene
with at most ``GAIN`` times the light that is left. So a network does not learn to brighten black areas to fog.
"""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.data import degradations as d

GAIN = 20.0
"""Largest gain of the target in linear light (about 4 in coded values)."""


def degrade_visible(
    clean: np.ndarray, sky: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Degrade a visible image at random.

    :param clean: float32 [H, W, 3] in [0, 1]
    :param sky: uint8 [H, W], 255 in the sky; None if unknown
    :param rng: source of all randomness
    :returns: the degraded image and its target, like ``clean``
    """
    if rng.random() < 0.25:
        return clean, clean
    image = target = clean
    light = rng.random()
    dark = light < 0.6
    if dark:
        image, target = _night(clean, sky, rng)
    elif light < 0.72:
        image = d.over_exposure(image, rng.uniform(0.3, 1.8))
    if rng.random() < 0.45:
        gains = _cast(rng)
        image = d.color_cast(image, gains / gains.max() if dark else gains / gains.mean())
    if rng.random() < 0.09:
        image = d.haze(image, rng.uniform(0.4, 2.0), rng.uniform(0.5, 0.9), rng)
    if rng.random() < 0.09:
        image = d.rain_streaks(image, rng.uniform(0.002, 0.01), rng.uniform(7, 21), rng.uniform(1.2, 1.9), rng)
    if rng.random() < 0.08:
        image = d.smoke(image, rng.uniform(1, 4), rng.uniform(0.2, 0.9), rng)
    if rng.random() < 0.1:
        image = _glare(image, rng)
    image = _blur(image, rng)
    if rng.random() < (0.85 if dark else 0.65):
        image = d.poisson_noise(image, float(np.exp(rng.uniform(np.log(150), np.log(6000)))), rng)
        image = d.gaussian_noise(image, float(np.exp(rng.uniform(np.log(0.004), np.log(0.09)))), rng)
    return d.quantize(image), target


def degrade_infrared(clean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Degrade an infrared image at random.

    :param clean: float32 [H, W] in [0, 1]
    :param rng: source of all randomness
    :returns: the degraded image and its target, the clean one
    """
    if rng.random() < 0.4:
        return clean, clean
    image = clean
    if rng.random() < 0.35:
        image = d.low_contrast(image, rng.uniform(0.35, 0.9), rng.uniform(0.2, 0.6))
    image = _blur(image, rng)
    if rng.random() < 0.35:
        image = d.stripe_noise(image, rng.uniform(0.004, 0.04), rng, rows=bool(rng.random() < 0.25))
    if rng.random() < 0.5:
        image = d.gaussian_noise(image, float(np.exp(rng.uniform(np.log(0.004), np.log(0.07)))), rng)
    return d.quantize(image), clean


def _cast(rng: np.random.Generator) -> np.ndarray:
    """Draw gains of red, green and blue in linear light, of a white balance or a lamp, from blue to sodium."""
    gains = rng.normal(0, 0.2, 3)
    if rng.random() < 0.6:
        gains -= rng.uniform(-0.5, 1.2) * np.array([0.0, 0.33, 1.0])
    return np.exp(gains)


def _glare(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Let one to three lamps or the sun shine into the camera, from bluish to yellow."""
    height, width = image.shape[:2]
    count = int(rng.integers(1, 4))
    lamps = np.stack((rng.uniform(0, width, count), rng.uniform(0, height, count), rng.uniform(0.5, 1, count)), 1)
    color = rng.uniform((0.9, 0.8, 0.5), 1.0)
    return d.glare(image, lamps, rng.uniform(0.01, 0.12), color / color.max())


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    chance = rng.random()
    if chance < 0.07:
        return d.gaussian_blur(image, rng.uniform(0.5, 1.4))
    if chance < 0.12:
        return d.motion_blur(image, rng.uniform(3, 9), rng.uniform(0, np.pi))
    return image


def _night(clean: np.ndarray, sky: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Darken a scene; returns it and the target, the scene as bright as it can be restored."""
    height, width = clean.shape[:2]
    base = float(np.exp(rng.uniform(np.log(0.006), np.log(0.4))))
    # The illumination varies over the image by a factor of up to e^1.5 in both directions.
    unevenness = rng.uniform(0, 1.5)
    field = base * np.exp(unevenness * 2 * (d.smooth_field(height, width, int(rng.integers(2, 6)), rng) - 0.5))
    for _ in range(int(rng.integers(0, 4))):
        field += _pool(height, width, rng.uniform(0.1, 0.45) * max(height, width), rng) * rng.uniform(0.05, 0.8)
    if sky is not None and rng.random() < 0.8:
        dim = float(np.exp(rng.uniform(np.log(0.003), np.log(0.4))))
        soft = cv2.GaussianBlur(sky.astype(np.float32) / 255, (0, 0), 1)
        field *= 1 - (1 - dim) * soft
    field = np.minimum(field, 1).astype(np.float32)
    light = d.to_linear(clean)
    lamps = _lamps(height, width, rng) if rng.random() < 0.5 else np.float32(0)
    dark = d.from_linear(light * field[..., None] + lamps)
    target = d.from_linear(light * np.minimum(1, GAIN * field)[..., None] + lamps)
    return dark, target


def _pool(height: int, width: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the elliptic light of a lamp on its surroundings, float32 [H, W] in (0, 1]."""
    y, x = np.ogrid[:height, :width]
    cy, cx = rng.uniform(0, height), rng.uniform(0, width)
    flat = rng.uniform(0.4, 1.0)
    distance = ((x - cx) ** 2 + ((y - cy) / flat) ** 2) / radius**2
    return np.exp(-2 * distance).astype(np.float32)


def _lamps(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw visible light sources with their glare, linear float32 [H, W, 3]."""
    y, x = np.ogrid[:height, :width]
    light = np.zeros((height, width, 3), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1, 6)
        distance = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / radius
        spot = np.exp(-(distance**4)) * 2 + rng.uniform(0.02, 0.3) * np.exp(-distance / rng.uniform(1.5, 5))
        light += spot[..., None].astype(np.float32) * rng.uniform((0.8, 0.5, 0.2), 1.0).astype(np.float32)
    return light
