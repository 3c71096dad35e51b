"""Target images of emphasized objects, for training the re-modulation.

Each object is split into base and detail (Durand & Dorsey 2002) from its own pixels alone, so that the surroundings do
not bleed in. A positive strength moves the base away from the surroundings, in the direction in which it already
differs, and amplifies the detail; near black or white it moves less, so that texture is not clipped. A negative
strength moves all pixels towards the mean of the surroundings, at most to it.
"""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.fusion.emphasis import brighter_share, surroundings

PUSH, SHARE = 0.22, 0.3
"""Contrast in [0, 1] that strength 1 adds: a constant, and a share of the present contrast."""
DETAIL = 0.4
"""Share by which strength 1 amplifies the detail, where there is headroom."""
FADE = 0.75
"""Share of contrast and detail that strength -1 removes."""
BLUR = 4.0


def emphasized(plain: np.ndarray, infrared: np.ndarray, masks: list[np.ndarray], strengths: list[float]) -> np.ndarray:
    """Emphasize the objects of an image.

    :param plain: float32 [H, W] in [0, 1], the fused luma without a text
    :param infrared: float32 [H, W] in [0, 1]
    :param masks: bool [H, W] each
    :param strengths: one per mask, in [-1, 2]
    :returns: like ``plain``; an object without surroundings is unchanged
    """
    target = plain.copy()
    named = np.logical_or.reduce(masks) if masks else np.zeros(plain.shape, bool)
    for mask, strength in zip(masks, strengths, strict=True):
        ring = surroundings(mask, named)
        if not ring.any():
            continue
        around = float(plain[ring].mean())
        if strength < 0:
            target[mask] = around + (plain[mask] - around) * (1 + FADE * strength)
        else:
            bright = brighter_share(plain, infrared, mask, named) >= 0.5
            target[mask] = _raise_contrast(plain, mask, around, strength, bright=bright)[mask]
    clipped: np.ndarray = np.clip(target, 0, 1)
    return clipped


def _raise_contrast(plain: np.ndarray, mask: np.ndarray, around: float, strength: float, *, bright: bool) -> np.ndarray:
    """Return an image [H, W] that is valid in the pixels of the object."""
    inside = mask.astype(np.float32)
    base = cv2.GaussianBlur(plain * inside, (0, 0), BLUR) / np.maximum(cv2.GaussianBlur(inside, (0, 0), BLUR), 1e-3)
    mean = float(plain[mask].mean())
    push = strength * (PUSH + SHARE * abs(mean - around))
    room = max(1 - mean if bright else mean, 0.05)
    kept = float(np.exp(-push / room))
    moved = 1 - (1 - base) * kept if bright else base * kept
    # The square root is a compromise: the whole factor would flatten the texture, none would clip it.
    result: np.ndarray = moved + (plain - base) * (1 + DETAIL * strength) * kept**0.5
    return result
