"""What an emphasized object should look like: the targets that re-modulation is trained for.

The image is split in base and detail (Durand & Dorsey 2002), each object within itself, so that nothing of its
surroundings bleeds in. Bringing out moves the base away from the surroundings, in the direction in which it differs
already, and strengthens the detail; where there is little room left it moves less, so that texture is not clipped away.
Playing down draws all of it towards the surroundings, which it never crosses.
"""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.fusion.emphasis import brighter_share, surroundings

PUSH, SHARE = 0.22, 0.3
"""The contrast in [0, 1] that strength 1 adds: a constant, and a share of what is there."""
DETAIL = 0.4
"""How much strength 1 adds to the detail, where there is room."""
FADE = 0.75
"""How much of contrast and detail strength -1 takes away."""
BLUR = 4.0


def emphasized(plain: np.ndarray, infrared: np.ndarray, masks: list[np.ndarray], strengths: list[float]) -> np.ndarray:
    """The image with its objects emphasized.

    :param plain: float32 [H, W] in [0, 1], the fused luma without a text
    :param infrared: float32 [H, W] in [0, 1]
    :param masks: bool [H, W] each
    :param strengths: in [-1, 2] each
    :returns: like ``plain``; an object without surroundings stays as it is
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
            target[mask] = _brought_out(plain, mask, around, strength, bright=bright)[mask]
    clipped: np.ndarray = np.clip(target, 0, 1)
    return clipped


def _brought_out(plain: np.ndarray, mask: np.ndarray, around: float, strength: float, *, bright: bool) -> np.ndarray:
    """[H, W], of which the object's pixels count."""
    inside = mask.astype(np.float32)
    base = cv2.GaussianBlur(plain * inside, (0, 0), BLUR) / np.maximum(cv2.GaussianBlur(inside, (0, 0), BLUR), 1e-3)
    mean = float(plain[mask].mean())
    push = strength * (PUSH + SHARE * abs(mean - around))
    room = max(1 - mean if bright else mean, 0.05)
    kept = float(np.exp(-push / room))
    moved = 1 - (1 - base) * kept if bright else base * kept
    # Between the base's factor, which would flatten the texture, and none, which would clip it.
    result: np.ndarray = moved + (plain - base) * (1 + DETAIL * strength) * kept**0.5
    return result
