"""Pixels of an infrared image without a value: finding them, and filling them from the visible image.

A rectified or turned image has no values outside the lens's view, a sensor has dead pixels, a file may declare a value
as no data. :func:`find_valid` finds such pixels; the mask goes with the image through gain and registration
(:mod:`.gain`, :mod:`.intake`), where it is joined with what lies outside the infrared camera's view.

Then :func:`fill_from_visible` fills them with the visible image's luma, shifted to the level of the infrared image at
the border of the gap (a membrane, as in Perez et al., "Poisson image editing", SIGGRAPH 2003). There the fusion sees
the detail of the visible image only, and no edge that is not in the scene.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import ImageError
from textdifuse_ros.image.thermal import percentile_values

FEATHER = SensorConfig().registration_feather
HIGHEST = 65535
FILLS = {"u": (0, HIGHEST), "f": (0.0, HIGHEST, -273.15, -9999.0, -32768.0)}
"""Fill values of common programs, by kind of number. Where the scene reaches them, they are values."""
LEAST_GAP = 0.25
"""Minimum distance of such a value from the scene's values, as a share of their span (0.5 to 99.5 %)."""
WIDE_GAP = 0.5
"""The same for pixels inside the image, where such a value is more often a real one."""
FEW = 0.001
"""Share of an image up to which single pixels of 0 or more inside it count as values: sparks, for example."""
LARGE = 0.005
"""Share of an image above which areas of 0 inside it count as missing."""
LONG = 0.25
"""Minimum share of a side along which a region of the highest count runs; a hot object is shorter."""
LEAST_RUN, LEAST_AREA = 8, 32
"""Minimum pixels along the border, and in all, of a constant region of floats that lies within the scene's values."""
BLENDED = 3
"""Width in which interpolation mixes a region's value with the scene's [pixel]."""
LOCAL = 32
"""Inverse of the weight above which one scale alone sets the level; larger values favor nearer pixels."""
DARK = 1 / 16
"""Share of white up to which the scene beside a black frame may be clipped to black itself."""


def find_valid(image: np.ndarray, nodata: float | None = None, what: str = "the infrared image") -> np.ndarray | None:
    """Find the pixels that have a value.

    Without a value are always

    - NaN, infinite floats and the largest floats of 32 bits,
    - the value that the file declares as no data.

    The values in :data:`FILLS` (0 and the highest count, for example) are none where they differ by much from the rest
    of the image, and

    - form a region at the image's border; one of the highest count must have a corner or a long part of a side,
    - or are many single pixels and lines inside it (dead ones), or 0 in more of it than a few objects.

    Pixels beside such a region, which interpolation has mixed with it, are left out as well. Where the scene reaches 0,
    as it does in 8 bits, 0 is a value, but for a frame around the image.

    :param image: uint8, uint16 or float [H, W]
    :param nodata: value declared as no data
    :param what: name of the image in error messages
    :returns: bool [H, W]; None if every pixel has a value
    :raises ImageError: no pixel has a value
    """
    missing = np.zeros(image.shape, bool)
    if image.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            missing |= ~(np.abs(image) < np.finfo(np.float32).max)
    if nodata is not None:
        missing |= image == nodata
    if image.dtype == np.uint8:
        missing |= _black_frame(image, DARK * 255)
    else:
        for value in FILLS[image.dtype.kind]:
            equal = (image == value) & ~missing
            if equal.any():
                missing |= _filled(image, equal, missing, value)
    if not missing.any():
        return None
    if missing.all():
        found = f"none in all {image.shape[1]} x {image.shape[0]} pixels"
        raise ImageError(what, "one that has values", found, "see what the camera, or the rectification, sends")
    return ~missing


def _filled(image: np.ndarray, equal: np.ndarray, missing: np.ndarray, value: float) -> np.ndarray:
    """Which of the pixels that are ``equal`` to a fill value have none, and which are mixed with them; bool [H, W]."""
    rest = ~(equal | missing)
    if not rest.any():
        return equal
    apart = rest & ~_dilated(equal, BLENDED)
    low, high = map(float, percentile_values(image[apart if apart.any() else rest], (0.5, 99.5)))
    gap, span = max(low - value, value - high), high - low
    labels, areas = _regions(equal)
    runs = np.bincount(labels[_frame(labels.shape) & equal], minlength=len(areas))
    dead = np.zeros_like(equal)
    if gap > 0 and gap >= LEAST_GAP * span:
        chosen = runs > 0
        if value == HIGHEST:
            chosen &= _has_corner_or_long_side(labels, len(areas))
        if gap >= WIDE_GAP * span:
            inside = equal & ~chosen[labels]
            objects = _without_lines(inside)
            dead = inside & ~objects
            dead &= value < 0 or np.count_nonzero(dead) > FEW * image.size
            if value == 0 and np.count_nonzero(objects) > LARGE * image.size:
                chosen[labels[objects]] = True
    elif image.dtype.kind == "f":  # 0 degrees may be among the scene's temperatures, but not in one piece at the border
        chosen = (runs >= LEAST_RUN) & (areas >= LEAST_AREA)
    else:
        return _black_frame(image, DARK * high) if value == 0 else dead
    chosen[0] = False
    region = chosen[labels]
    if not region.any():
        return dead
    unlike = rest & ((image < low - span / 2) | (image > high + span / 2))
    # Where the region's edge meets that of the image at a small angle, pixels are mixed further along the image's.
    joined, _ = _regions(region | (unlike & (_dilated(region, BLENDED) | _frame(region.shape))))
    mixed = np.isin(joined, np.unique(joined[region]))
    return dead | mixed | (rest & _dilated(region, 1))


def _black_frame(image: np.ndarray, dark: float) -> np.ndarray:
    """The zeros that surround a rectified or turned image in which 0 is a value too; bool [H, W].

    They have three corners of the image, or the middles of three sides, and half of what is beside them is above
    ``dark``.
    """
    (bottom, right), found = (n - 1 for n in image.shape), np.zeros(image.shape, bool)
    corners = np.array([0, 0, bottom, bottom]), np.array([0, right, 0, right])
    middles = np.array([0, bottom, bottom // 2, bottom // 2]), np.array([right // 2, right // 2, 0, right])
    for places in (corners, middles):
        black = image[places] == 0
        if np.count_nonzero(black) < 3:
            continue
        labels, areas = _regions(image == 0)
        chosen = np.zeros(len(areas), bool)
        chosen[labels[places][black]] = True
        region = chosen[labels]
        beside = _dilated(region, BLENDED) & ~_dilated(region, 1)
        if beside.any() and np.median(image[beside]) > dark:
            found |= _dilated(region, 1)
    return found


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the connected regions of a mask from 1; int32 [H, W], and the areas by number [pixel]."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels, stats[:count, cv2.CC_STAT_AREA]


def _frame(shape: tuple[int, ...]) -> np.ndarray:
    """The pixels at the border of an image; bool [H, W]."""
    frame = np.ones(shape, bool)
    frame[1:-1, 1:-1] = False
    return frame


def _has_corner_or_long_side(labels: np.ndarray, count: int) -> np.ndarray:
    """Which regions have a corner of the image, or a long part of one of its sides; bool [count]."""
    found = np.zeros(count, bool)
    found[labels[[0, 0, -1, -1], [0, -1, 0, -1]]] = True
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        found |= np.bincount(side, minlength=count) >= LONG * side.size
    return found


def _without_lines(mask: np.ndarray) -> np.ndarray:
    """The parts of a mask that are at least 2 x 2 pixels; bool [H, W]."""
    square = np.ones((2, 2), np.uint8)
    whole = cv2.erode(mask.astype(np.uint8), square, anchor=(0, 0), borderValue=0)
    return cv2.dilate(whole, square, anchor=(1, 1)) > 0


def _dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    size = 2 * radius + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0


def extend(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Fill pixels without a value smoothly from the nearest ones that have one.

    :param image: uint8 [H, W]
    :param valid: bool [H, W], at least one pixel
    :returns: uint8 [H, W]; unchanged where valid
    """
    filled = np.rint(_membrane(image.astype(np.float32), valid)).clip(0, 255).astype(np.uint8)
    return np.where(valid, image, filled)


def fill_from_visible(
    infrared: np.ndarray, valid: np.ndarray, visible: np.ndarray, feather: float = FEATHER
) -> np.ndarray:
    """Fill infrared pixels without a value with the visible image's luma, shifted to the infrared's level.

    :param infrared: uint8 [H, W]
    :param valid: bool [H, W]; if none is valid, the luma is returned unchanged
    :param visible: uint8 or uint16 [H, W, 3] RGB
    :param feather: distance over which the shift fades to 0 [pixels]; 0 for no shift
    :returns: uint8 [H, W]; unchanged where valid
    """
    luma = luma_of(visible)
    if not valid.any() or feather == 0:
        return np.where(valid, infrared, luma)
    level = _membrane(infrared.astype(np.float32) - luma, valid)
    distance = cv2.distanceTransform((~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    level *= 0.5 + 0.5 * np.cos(math.pi * np.clip(distance / (feather + 1), 0, 1))
    return np.where(valid, infrared, np.rint(luma + level).clip(0, 255).astype(np.uint8))


def luma_of(visible: np.ndarray) -> np.ndarray:
    """Compute BT.601 luma.

    :param visible: uint8 or uint16 [H, W, 3] RGB
    :returns: uint8 [H, W]
    """
    luma = cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)
    return luma if luma.dtype == np.uint8 else ((luma.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _membrane(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Interpolate smoothly into the pixels that are not valid.

    Pull-push over an image pyramid (Gortler et al., "The lumigraph", SIGGRAPH 1996), which takes time proportional to
    the number of pixels.

    :param values: float32 [H, W]
    :param valid: bool [H, W], at least one pixel
    :returns: float32 [H, W]; about ``values`` where valid
    """
    weight = valid.astype(np.float32)
    return _pull_push(np.where(valid, values, np.float32(0)), weight)


def _pull_push(weighted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted means of [H, W], completed from those of half the size."""
    own = weighted / np.maximum(weight, 1e-6)
    if weight.min() > 0.5 or max(weight.shape) <= 2:
        total = max(float(weight.sum()), 1e-12)
        return np.where(weight > 1e-6, own, np.float32(weighted.sum() / total))
    coarse = _pull_push(cv2.pyrDown(weighted), cv2.pyrDown(weight))
    coarse = cv2.pyrUp(coarse, dstsize=weight.shape[::-1])
    trust = np.minimum(LOCAL * weight, 1)
    return coarse + trust * (own - coarse)
