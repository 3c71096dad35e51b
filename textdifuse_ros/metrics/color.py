"""Color: CIEDE2000, and the error of chroma alone."""

from __future__ import annotations

import numpy as np

from textdifuse_ros.metrics.images import check_color, check_same_shape

LUMA = np.array([0.299, 0.587, 0.114])  # BT.601
# IEC 61966-2-1, linear sRGB to XYZ with white of Y = 1; each row divided by the white D65 (2 degrees), its own sum.
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_RGB_TO_RELATIVE = _RGB_TO_XYZ / _RGB_TO_XYZ.sum(1, keepdims=True)
_FAR = 25.0**7
_HALF_TURN = np.pi * (1 + 1e-12)  # so that rounding does not part hues that lie opposite
_BAND = 1 << 13  # pixels worked on at once: some thirty intermediate arrays stay in the processor's cache


def delta_e_2000(rgb: np.ndarray, reference_rgb: np.ndarray) -> float:
    """The mean CIEDE2000 between an image and a clean one, of chroma alone; 0 for equal chroma, about 1 just visible.

    Both images get the reference's BT.601 full-range luma: the Y of YCbCr is replaced, Cb and Cr are kept, and the
    result goes back to RGB (which adds the difference of luma to each channel), not rounded, clipped to 0 .. 255; the
    reference stays as it is. What a fusion does to brightness is no error, apart from colors that leave the range.

    :param rgb: uint8 [H, W, 3], the image judged
    :param reference_rgb: uint8 [H, W, 3], the clean visible image
    :returns: mean over the pixels, defined for any two images
    :raises ImageError: another type or shape, or different shapes
    """
    check_color(rgb, "the image")
    check_color(reference_rgb, "the reference")
    check_same_shape("the image", rgb, reference_rgb)
    pixels, reference = rgb.reshape(-1, 3), reference_rgb.reshape(-1, 3)
    total = 0.0
    for start in range(0, len(pixels), _BAND):
        band, due = pixels[start : start + _BAND], reference[start : start + _BAND]
        total += float(ciede2000(srgb_to_lab(replace_luma(band, due)), srgb_to_lab(due)).sum())
    return total / len(pixels)


def replace_luma(rgb: np.ndarray, reference_rgb: np.ndarray) -> np.ndarray:
    """The chroma of one image with the BT.601 full-range luma of another.

    :param rgb: [..., 3] in 0 .. 255
    :param reference_rgb: likewise, of the same shape
    :returns: float64 [..., 3] in 0 .. 255
    """
    rgb = rgb.astype(np.float64)
    return np.clip(rgb + ((reference_rgb - rgb) @ LUMA)[..., None], 0, 255)


def srgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (white D65, 2 degrees) of sRGB, IEC 61966-2-1.

    :param rgb: uint8 or float64 [..., 3] in 0 .. 255
    :returns: float64 [..., 3]: L* in 0 .. 100, a* and b* about -110 .. 110
    """
    linear = _linear(np.arange(256.0))[rgb] if rgb.dtype == np.uint8 else _linear(rgb)
    relative = linear @ _RGB_TO_RELATIVE.T
    edge = 6 / 29
    f = np.where(relative > edge**3, np.cbrt(relative), relative / (3 * edge * edge) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), -1)


def _linear(coded: np.ndarray) -> np.ndarray:
    """Coded values of sRGB, 0 .. 255, to linear light, 0 .. 1."""
    coded = coded / 255
    return np.where(coded > 0.04045, ((coded + 0.055) / 1.055) ** 2.4, coded / 12.92)


def ciede2000(lab: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The color difference CIEDE2000 with all weights 1.

    Sharma, Wu, Dalal, "The CIEDE2000 color-difference formula", Color Research and Application 30, 2005, equations
    2 to 22.

    :param lab: float64 [..., 3], L* in 0 .. 100, a*, b*
    :param reference: likewise
    :returns: float64 [...], at least 0
    """
    (light1, a1, b1), (light2, a2, b2) = np.moveaxis(lab, -1, 0), np.moveaxis(reference, -1, 0)
    # Equations 2 to 7: a' stretches a* near grey.
    far = _power7((np.sqrt(a1 * a1 + b1 * b1) + np.sqrt(a2 * a2 + b2 * b2)) / 2)
    stretch = 1.5 - 0.5 * np.sqrt(far / (far + _FAR))
    a1, a2 = stretch * a1, stretch * a2
    chroma1, chroma2 = np.sqrt(a1 * a1 + b1 * b1), np.sqrt(a2 * a2 + b2 * b2)
    hue1, hue2 = _hue(a1, b1), _hue(a2, b2)
    # Equations 8 to 14.
    apart, together = hue2 - hue1, hue1 + hue2
    around = np.abs(apart) > _HALF_TURN
    grey = chroma1 * chroma2 == 0
    apart = np.where(grey, 0, np.where(around, apart - np.copysign(2 * np.pi, apart), apart))
    turn = np.where(around, np.where(together < 2 * np.pi, np.pi, -np.pi), 0)
    mean_hue = np.where(grey, together, together / 2 + turn)
    difference_hue = 2 * np.sqrt(chroma1 * chroma2) * np.sin(apart / 2)
    light, chroma = (light1 + light2) / 2, (chroma1 + chroma2) / 2
    # Equations 15 to 21.
    t = (
        1
        - 0.17 * np.cos(mean_hue - np.deg2rad(30))
        + 0.24 * np.cos(2 * mean_hue)
        + 0.32 * np.cos(3 * mean_hue + np.deg2rad(6))
        - 0.20 * np.cos(4 * mean_hue - np.deg2rad(63))
    )
    from_blue = (np.rad2deg(mean_hue) - 275) / 25
    far = _power7(chroma)
    rotation = -np.sin(np.deg2rad(60) * np.exp(-from_blue * from_blue)) * 2 * np.sqrt(far / (far + _FAR))
    from_middle = (light - 50) ** 2
    by_light = (light2 - light1) / (1 + 0.015 * from_middle / np.sqrt(20 + from_middle))
    by_chroma = (chroma2 - chroma1) / (1 + 0.045 * chroma)
    by_hue = difference_hue / (1 + 0.015 * chroma * t)
    squared = by_light * by_light + by_chroma * by_chroma + by_hue * by_hue + rotation * by_chroma * by_hue
    return np.sqrt(np.maximum(squared, 0))


def _hue(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The angle in [0, 2 pi): where two hues lie opposite, the published values depend on this range."""
    hue = np.arctan2(b, a)
    return np.where(hue < 0, hue + 2 * np.pi, hue)


def _power7(x: np.ndarray) -> np.ndarray:
    cube = x * x * x
    return cube * cube * x
