"""Degradations by light, weather, optics and sensors, for training and evaluation.

Every function takes an ``image``, float32 in [0, 1] (visible [H, W, 3] RGB, sRGB-coded; infrared [H, W]), and returns a
new one of the same shape, type and range. All randomness comes from the generator ``rng``: the same state gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Image = np.ndarray
GAMMA = 2.2


def to_linear(image: Image) -> Image:
    """Decode sRGB-coded values to linear light (power 2.2).

    :param image: float32 in [0, 1]
    """
    return np.power(image, GAMMA, dtype=np.float32)


def from_linear(light: Image) -> Image:
    """Encode linear light to sRGB-coded values, clipped to [0, 1].

    :param light: float32, linear
    """
    return np.power(np.clip(light, 0, 1), 1 / GAMMA, dtype=np.float32)


def low_light(image: Image, illumination: float | Image) -> Image:
    """Reduce the light, as in the dark or with a short exposure.

    :param image: sRGB-coded, see the module
    :param illumination: share of the linear light left, in (0, 1]: 0.2 is dusk, 0.01 an unlit street; a number, or a
        float32 [H, W] field for uneven light
    """
    if isinstance(illumination, np.ndarray) and image.ndim == 3:
        illumination = illumination[..., None]
    return from_linear(to_linear(image) * illumination)


def over_exposure(image: Image, stops: float) -> Image:
    """Overexpose: multiply the linear light by ``2 ** stops`` and clip at white.

    :param image: sRGB-coded, see the module
    :param stops: 0.5 is bright, 2 is glare
    """
    return from_linear(to_linear(image) * np.float32(2.0**stops))


def color_cast(image: Image, gains: Sequence[float]) -> Image:
    """Add a color cast, as of a colored illuminant or a wrong white balance.

    :param image: sRGB-coded, see the module
    :param gains: of red, green and blue in linear light, 0.3 to 2 each: (1.3, 1.0, 0.5) is sodium light; gains above 1
        clip bright parts
    """
    return from_linear(to_linear(image) * np.asarray(gains, np.float32))


def gaussian_noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add read noise, independent at every pixel and channel.

    :param image: see the module
    :param sigma: standard deviation in coded units; 0.004 is hardly visible, 0.1 strong
    :param rng: source of the noise
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + np.float32(sigma) * noise, 0, 1)


def poisson_noise(image: Image, photons: float, rng: np.random.Generator) -> Image:
    """Replace the light by Poisson-distributed electron counts (shot noise).

    :param image: sRGB-coded, see the module
    :param photons: electrons of a white pixel; 1000 is clean, 30 is night at high gain
    :param rng: source of the noise
    """
    counts = rng.poisson(to_linear(image) * photons).astype(np.float32)
    return from_linear(counts / np.float32(photons))


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Blur as by defocus, in coded values.

    :param image: see the module
    :param sigma: of the Gaussian [pixels]; 0.5 is soft, 1.5 blurred, 3 hides faces and signs
    """
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def motion_blur(image: Image, length: float, angle: float) -> Image:
    """Blur as by camera motion during the exposure, in linear light.

    :param image: sRGB-coded, see the module
    :param length: of the motion [pixels], 2 to 20
    :param angle: of the motion [rad] from the horizontal, clockwise
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
    """Add haze by Koschmieder's law, ``J t + A (1 - t)``, with a depth that grows towards the top of the image.

    :param image: sRGB-coded, see the module
    :param strength: optical depth at the horizon, 0.5 for thin haze to 2.5 for fog
    :param airlight: linear light of the haze, 0.5 to 0.95
    :param rng: source of the variation of depth
    """
    height, width = image.shape[:2]
    depth = np.linspace(1.0, 0.15, height, dtype=np.float32)[:, None] + 0.15 * smooth_field(height, width, 3, rng)
    transmission = np.exp(-np.float32(strength) * np.clip(depth, 0.05, 1.3))
    if image.ndim == 3:
        transmission = transmission[..., None]
    return from_linear(to_linear(image) * transmission + np.float32(airlight) * (1 - transmission))


def smoke(image: Image, density: float, airlight: float, rng: np.random.Generator) -> Image:
    """Add smoke by Koschmieder's law (see :func:`haze`), in patches: clear between them, opaque in their middle.

    :param image: sRGB-coded, see the module
    :param density: optical depth in the middle of a patch, 1 for thin smoke to 4 for an opaque wall
    :param airlight: linear light of the smoke, 0.2 (black) to 0.9 (white)
    :param rng: source of the patches
    """
    height, width = image.shape[:2]
    fields = [smooth_field(height, width, cells, rng) / cells for cells in (3, 6, 12, 24)]
    turbulence = np.sum(fields, axis=0, dtype=np.float32)
    low, high = np.quantile(turbulence, (0.2, 0.7))
    patches = np.clip((turbulence - np.float32(low)) / np.float32(max(high - low, 1e-6)), 0, 1)
    light = np.float32(airlight) * (0.85 + 0.15 * smooth_field(height, width, 8, rng))
    transmission = np.exp(-np.float32(density) * patches)
    if image.ndim == 3:
        transmission, light = transmission[..., None], light[..., None]
    return from_linear(to_linear(image) * transmission + light * (1 - transmission))


def glare(image: Image, lamps: np.ndarray, share: float, color: Sequence[float] = (1, 1, 1)) -> Image:
    """Add lamps that shine into the camera: saturated discs, bloom around them, and a veil over the image.

    :param image: sRGB-coded, see the module
    :param lamps: float [N, 3], center (x, y) [pixels] and relative radius of each lamp
    :param share: share of the pixels that the lamps saturate, in (0, 0.5); the radii are scaled until they do
    :param color: light of the lamps by channel, the largest one 1; not used for an infrared image
    """
    tint = np.asarray(color, np.float32) if image.ndim == 3 else np.ones(1, np.float32)

    def add(rows: slice, columns: slice, scale: float) -> Image:
        part = to_linear(image[rows, columns])
        y, x = np.mgrid[rows, columns].astype(np.float32)
        field = _lamp_field(y, x, lamps, scale)
        return part + (field[..., None] * tint).reshape(part.shape)

    # The size is found on every fourth pixel of every fourth row.
    coarse = slice(0, image.shape[0], 4), slice(0, image.shape[1], 4)
    before = _is_white(to_linear(image[coarse]))
    low, high = 0.0, float(max(image.shape[:2]))
    for _ in range(16):
        middle = (low + high) / 2
        if np.mean(_is_white(add(*coarse, middle)) & ~before) < share:
            low = middle
        else:
            high = middle
    return from_linear(add(slice(0, image.shape[0]), slice(0, image.shape[1]), high))


def _is_white(light: Image) -> np.ndarray:
    """Where linear light is white in all channels, at 250 of 255 levels or above; bool [H, W]."""
    return np.asarray((light >= (250 / 255) ** GAMMA).reshape(*light.shape[:2], -1).all(2))


def _lamp_field(y: np.ndarray, x: np.ndarray, lamps: np.ndarray, scale: float) -> Image:
    """Compute the linear light that lamps add at the pixels (x, y); white is 1.

    A lamp of radius r adds 8 within r. Lens and air scatter some of it: bloom, which falls to 1 at about 2 r, and a
    veil over the whole image.
    """
    field = np.zeros(x.shape, np.float32)
    for center_x, center_y, relative in lamps.astype(np.float32):
        distance = np.hypot(x - center_x, y - center_y) / max(relative * np.float32(scale), np.float32(1e-3))
        bloom = 3 * np.exp(-np.square(np.maximum(distance - 1, 0)) / 0.9) + 0.25 / (1 + np.square(distance / 5))
        field += np.where(distance <= 1, 8, bloom).astype(np.float32)
    return field


def rain_streaks(image: Image, amount: float, length: float, angle: float, rng: np.random.Generator) -> Image:
    """Add rain as bright motion-blurred streaks.

    :param image: see the module
    :param amount: share of pixels at which a streak starts, 0.002 for drizzle to 0.02 for a downpour
    :param length: of a streak [pixels]
    :param angle: of a streak [rad] from the horizontal; pi / 2 is vertical
    :param rng: source of the drops
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
    """Add the fixed-pattern noise of a microbolometer: an offset for each column (or row) amplifier.

    :param image: [H, W], see the module
    :param sigma: standard deviation of the offsets in coded units; 0.005 is hardly visible, 0.05 strong
    :param rng: source of the offsets
    :param rows: whether rows have the offsets instead of columns
    """
    height, width = image.shape
    offsets = rng.standard_normal((height, 1) if rows else (1, width), dtype=np.float32)
    return np.clip(image + np.float32(sigma) * offsets, 0, 1)


def low_contrast(image: Image, factor: float, level: float) -> Image:
    """Reduce contrast, as of a thermal scene in rain, at dusk or dawn, or of a camera with too wide a range.

    :param image: see the module
    :param factor: share of the contrast left, 0.2 to 1
    :param level: mean of the result, 0.2 to 0.6
    """
    return np.clip(np.float32(level) + np.float32(factor) * (image - image.mean()), 0, 1).astype(np.float32)


def smooth_field(height: int, width: int, cells: int, rng: np.random.Generator) -> Image:
    """Draw a smooth random field, float32 [height, width] in [0, 1].

    :param height: [pixels]
    :param width: [pixels]
    :param cells: random values along each axis, interpolated cubically
    :param rng: source of the values
    """
    coarse = rng.random((cells, cells), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def quantize(image: Image) -> Image:
    """Round to 8 bits, which dark images do not recover from.

    :param image: see the module
    """
    return (np.round(image * 255) / np.float32(255)).astype(np.float32)
