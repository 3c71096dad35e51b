"""Degradations by light, weather, optics and sensors, for training and evaluation.

Every function takes a clean ``image``, float32 in [0, 1] (visible [H, W, 3] RGB, sRGB-coded; infrared [H, W]), and
returns a new one of the same shape, dtype and range. Random ones take a ``numpy.random.Generator`` as ``rng``, the only
source of randomness: the same generator state gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Image = np.ndarray
GAMMA = 2.2


def to_linear(image: Image) -> Image:
    """Convert sRGB-coded values to linear light (power 2.2), both in [0, 1]."""
    return np.power(image, GAMMA, dtype=np.float32)


def from_linear(light: Image) -> Image:
    """Convert linear light to sRGB-coded values, clipped to [0, 1].

    :param light: float32, linear
    """
    return np.power(np.clip(light, 0, 1), 1 / GAMMA, dtype=np.float32)


def low_light(image: Image, illumination: float | Image) -> Image:
    """Less light on the scene or a shorter exposure.

    :param illumination: share of the light left, in linear light: 0.2 is dusk, 0.01 an unlit street; a number, or a
        float32 [H, W] field (pools of lamps); in (0, 1]
    """
    if isinstance(illumination, np.ndarray) and image.ndim == 3:
        illumination = illumination[..., None]
    return from_linear(to_linear(image) * illumination)


def over_exposure(image: Image, stops: float) -> Image:
    """Too long an exposure: linear light times ``2 ** stops``, clipped at white.

    :param stops: 0.5 is bright, 2 is glare
    """
    return from_linear(to_linear(image) * np.float32(2.0**stops))


def color_cast(image: Image, gains: Sequence[float]) -> Image:
    """Light of another color, or a wrong white balance.

    :param gains: of red, green and blue in linear light, 0.3 to 2 each: (1.3, 1.0, 0.5) is sodium light; above 1 what
        is bright clips
    """
    return from_linear(to_linear(image) * np.asarray(gains, np.float32))


def gaussian_noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Read noise of the sensor, independent at every pixel and channel.

    :param sigma: standard deviation in coded units, 0.004 hardly visible, 0.02 visible, 0.1 strong
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + np.float32(sigma) * noise, 0, 1)


def poisson_noise(image: Image, photons: float, rng: np.random.Generator) -> Image:
    """Photon noise: the count of electrons of a pixel is Poisson-distributed, so that its noise grows with the light.

    :param photons: electrons of a white pixel, in linear light; 1000 is clean, 30 is night at high gain
    """
    counts = rng.poisson(to_linear(image) * photons).astype(np.float32)
    return from_linear(counts / np.float32(photons))


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Defocus, in coded values.

    :param sigma: of a Gaussian, in pixels; 0.5 is soft, 1.5 blurred, 3 hides faces and signs
    """
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def motion_blur(image: Image, length: float, angle: float) -> Image:
    """The camera moves while the shutter is open; in linear light, since light is what adds up.

    :param length: of the way in pixels, 2 to 20
    :param angle: of the way in radians from the horizontal, clockwise
    """
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    middle, half = size // 2, length / 2
    ends = [
        (round((middle + s * half * np.cos(angle)) * 16), round((middle + s * half * np.sin(angle)) * 16))
        for s in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    kernel /= kernel.sum()
    return from_linear(cv2.filter2D(to_linear(image), -1, kernel, borderType=cv2.BORDER_REFLECT_101))


def haze(image: Image, strength: float, airlight: float, rng: np.random.Generator) -> Image:
    """Koschmieder's law, ``J t + A (1 - t)``, over a depth that grows towards the upper part of the image.

    :param strength: optical depth at the horizon, 0.5 thin to 2.5 fog
    :param airlight: color of the haze in linear light, 0.5 to 0.95
    """
    height, width = image.shape[:2]
    depth = np.linspace(1.0, 0.15, height, dtype=np.float32)[:, None] + 0.15 * smooth_field(height, width, 3, rng)
    transmission = np.exp(-np.float32(strength) * np.clip(depth, 0.05, 1.3))
    if image.ndim == 3:
        transmission = transmission[..., None]
    return from_linear(to_linear(image) * transmission + np.float32(airlight) * (1 - transmission))


def rain_streaks(image: Image, amount: float, length: float, angle: float, rng: np.random.Generator) -> Image:
    """Falling drops as bright motion-blurred streaks.

    :param amount: share of pixels from which a streak starts, 0.002 drizzle to 0.02 downpour
    :param length: of a streak in pixels
    :param angle: radians from the horizontal; pi / 2 falls straight
    """
    height, width = image.shape[:2]
    drops = (rng.random((height, width), dtype=np.float32) < amount).astype(np.float32)
    drops *= rng.uniform(0.5, 1.0, (height, width)).astype(np.float32)
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    dx, dy = round(np.cos(angle) * length / 2), round(np.sin(angle) * length / 2)
    cv2.line(kernel, (middle - dx, middle - dy), (middle + dx, middle + dy), 1.0, 1, cv2.LINE_AA)
    streaks = np.clip(cv2.filter2D(cv2.GaussianBlur(drops, (0, 0), 0.7), -1, kernel), 0, 0.6)
    if image.ndim == 3:
        streaks = streaks[..., None]
    return image + (1 - image) * streaks


def stripe_noise(image: Image, sigma: float, rng: np.random.Generator, *, rows: bool = False) -> Image:
    """Fixed-pattern noise of a microbolometer: the amplifier of each column (or row) has an offset of its own.

    :param sigma: standard deviation of the offsets in coded units, 0.005 hardly visible, 0.05 strong
    :param rows: one offset per row instead of per column
    """
    height, width = image.shape
    offsets = rng.standard_normal((height, 1) if rows else (1, width), dtype=np.float32)
    return np.clip(image + np.float32(sigma) * offsets, 0, 1)


def low_contrast(image: Image, factor: float, level: float) -> Image:
    """A thermal scene without differences (rain, dusk and dawn), or a camera of too wide a range.

    :param factor: share of the contrast left, 0.2 to 1
    :param level: what the image's mean becomes, 0.2 to 0.6
    """
    return np.clip(np.float32(level) + np.float32(factor) * (image - image.mean()), 0, 1).astype(np.float32)


def smooth_field(height: int, width: int, cells: int, rng: np.random.Generator) -> Image:
    """A random smooth field, float32 [height, width] in [0, 1]: ``cells`` x ``cells`` values, cubic in between.

    :param height: of the field [pixels]
    :param width: of the field [pixels]
    :param cells: along each side
    """
    coarse = rng.random((cells, cells), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def quantize(image: Image) -> Image:
    """Quantize to 8 bits and back: the loss of a dark image."""
    return (np.round(image * 255) / np.float32(255)).astype(np.float32)
