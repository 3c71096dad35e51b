"""Color metrics: CIEDE2000, and the chroma error at equal luma."""

from __future__ import annotations

import numpy as np

from textdifuse_ros.metrics.images import check_color, check_same_shape

LUMA = np.array([0.299, 0.587, 0.114])  # BT.601
# IEC 61966-2-1, linear sRGB to XYZ with Y = 1 for white; each row is divided by its sum, the white D65 (2 degrees).
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_RGB_TO_RELATIVE = _RGB_TO_XYZ / _RGB_TO_XYZ.sum(1, keepdims=True)
_POWER7_25 = 25.0**7
_HALF_TURN = np.pi * (1 + 1e-12)  # tolerates rounding of opposite hues
_CHUNK = 1 << 13  # pixels; the thirty or so intermediate arrays then stay in the CPU cache


def delta_e_2000(rgb: np.ndarray, reference_rgb: np.ndarray) -> float:
    """Mean CIEDE2000 chroma error: 0 for equal chroma, about 1 just noticeable.

    The image first gets the reference's BT.601 full-range luma: Y of YCbCr is replaced, Cb and Cr are kept, and the
    result is converted back to RGB, unrounded and clipped to 0 .. 255. A change of brightness is therefore no error,
    except where colors leave the range.

    :param rgb: uint8 [H, W, 3], the image to evaluate
    :param reference_rgb: uint8 [H, W, 3], the clean visible image
    :returns: mean over the pixels; always defined
    :raises ImageError: wrong type or shape, or different shapes
    """
    check_color(rgb, "the image")
    check_color(reference_rgb, "the reference")
    check_same_shape("the image", rgb, reference_rgb)
    pixels, reference = rgb.reshape(-1, 3), reference_rgb.reshape(-1, 3)
    total = 0.0
    for start in range(0, len(pixels), _CHUNK):
        chunk, target = pixels[start : start + _CHUNK], reference[start : start + _CHUNK]
        total += float(ciede2000(srgb_to_lab(replace_luma(chunk, target)), srgb_to_lab(target)).sum())
    return total / len(pixels)


def replace_luma(rgb: np.ndarray, reference_rgb: np.ndarray) -> np.ndarray:
    """Combine the chroma of one image with the BT.601 full-range luma of another.

    :param rgb: [..., 3] in 0 .. 255
    :param reference_rgb: likewise, of the same shape
    :returns: float64 [..., 3] in 0 .. 255
    """
    rgb = rgb.astype(np.float64)
    return np.clip(rgb + ((reference_rgb - rgb) @ LUMA)[..., None], 0, 255)


def srgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB (IEC 61966-2-1) to CIE L*a*b* (white D65, 2 degrees).

    :param rgb: uint8 or float64 [..., 3] in 0 .. 255
    :returns: float64 [..., 3]: L* in 0 .. 100, a* and b* about -110 .. 110
    """
    linear = _linear(np.arange(256.0))[rgb] if rgb.dtype == np.uint8 else _linear(rgb)
    relative = linear @ _RGB_TO_RELATIVE.T
    edge = 6 / 29
    f = np.where(relative > edge**3, np.cbrt(relative), relative / (3 * edge * edge) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), -1)


def _linear(encoded: np.ndarray) -> np.ndarray:
    """Convert sRGB values, 0 .. 255, to linear light, 0 .. 1."""
    encoded = encoded / 255
    return np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)


def ciede2000(lab: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compute the CIEDE2000 color difference with unit weights.

    Sharma, Wu, Dalal, "The CIEDE2000 color-difference formula", Color Research and Application 30, 2005, equations
    2 to 22.

    :param lab: float64 [..., 3], L* in 0 .. 100, a*, b*
    :param reference: likewise
    :returns: float64 [...], at least 0
    """
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(lab, -1, 0), np.moveaxis(reference, -1, 0)
    # Equations 2 to 7: a' stretches a* near grey.
    c7 = _power7((np.sqrt(a1 * a1 + b1 * b1) + np.sqrt(a2 * a2 + b2 * b2)) / 2)
    stretch = 1.5 - 0.5 * np.sqrt(c7 / (c7 + _POWER7_25))
    a1, a2 = stretch * a1, stretch * a2
    chroma1, chroma2 = np.sqrt(a1 * a1 + b1 * b1), np.sqrt(a2 * a2 + b2 * b2)
    hue1, hue2 = _hue(a1, b1), _hue(a2, b2)
    # Equations 8 to 14.
    difference, total = hue2 - hue1, hue1 + hue2
    wrapped = np.abs(difference) > _HALF_TURN
    grey = chroma1 * chroma2 == 0
    difference = np.where(grey, 0, np.where(wrapped, difference - np.copysign(2 * np.pi, difference), difference))
    turn = np.where(wrapped, np.where(total < 2 * np.pi, np.pi, -np.pi), 0)
    mean_hue = np.where(grey, total, total / 2 + turn)
    difference_hue = 2 * np.sqrt(chroma1 * chroma2) * np.sin(difference / 2)
    lightness, chroma = (l1 + l2) / 2, (chroma1 + chroma2) / 2
    # Equations 15 to 21.
    t = (
        1
        - 0.17 * np.cos(mean_hue - np.deg2rad(30))
        + 0.24 * np.cos(2 * mean_hue)
        + 0.32 * np.cos(3 * mean_hue + np.deg2rad(6))
        - 0.20 * np.cos(4 * mean_hue - np.deg2rad(63))
    )
    from_blue = (np.rad2deg(mean_hue) - 275) / 25
    c7 = _power7(chroma)
    rotation = -np.sin(np.deg2rad(60) * np.exp(-from_blue * from_blue)) * 2 * np.sqrt(c7 / (c7 + _POWER7_25))
    from_middle = (lightness - 50) ** 2
    by_lightness = (l2 - l1) / (1 + 0.015 * from_middle / np.sqrt(20 + from_middle))
    by_chroma = (chroma2 - chroma1) / (1 + 0.045 * chroma)
    by_hue = difference_hue / (1 + 0.015 * chroma * t)
    squared = by_lightness * by_lightness + by_chroma * by_chroma + by_hue * by_hue + rotation * by_chroma * by_hue
    return np.sqrt(np.maximum(squared, 0))


def _hue(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hue angle in [0, 2 pi); for opposite hues the published values depend on this range."""
    hue = np.arctan2(b, a)
    return np.where(hue < 0, hue + 2 * np.pi, hue)


def _power7(x: np.ndarray) -> np.ndarray:
    cube = x * x * x
    return cube * cube * x
