"""Synthetic thermal images from labels, for labeled frames without an infrared image.

They keep what holds in any weather: persons are mostly the warmest, the sky is the coldest, and cars are warm below and
differ from one another. Everything else is random, so that a network learns to rely on shape and on the other sensor:
the level of every class, strength and sign of the visible texture, gradients, blur, and the camera's contrast.
"""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.data.degradations import smooth_field
from textdifuse_ros.data.labels import CAR, CLASSES, CODES, PERSON, RIDER

_SKY, _ROAD, _PAVEMENT = (CLASSES.index(name) for name in ("sky", "road", "pavement"))


def synthesize_thermal(
    visible: np.ndarray, codes: np.ndarray, instances: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw a random thermal image of a labeled frame.

    :param visible: float32 [H, W, 3] in [0, 1], clean
    :param codes: uint8 [H, W], see :mod:`textdifuse_ros.data.labels`
    :param instances: uint8 [H, W], numbers of objects, 0 for none
    :param rng: source of all randomness
    :returns: float32 [H, W] in [0, 1]
    """
    grey = cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), 4)
    height, width = grey.shape
    # For each code: level, weight of the luma, weight of its fine texture.
    level = rng.uniform(0.2, 0.65, CODES)
    level[_SKY] = rng.uniform(0.0, 0.15) if rng.random() < 0.85 else rng.uniform(0.2, 0.5)
    level[_PAVEMENT] = level[_ROAD] + rng.normal(0, 0.06)
    level[CAR] = rng.uniform(0.15, 0.75)
    level[PERSON] = rng.uniform(0.6, 1.0) if rng.random() < 0.85 else rng.uniform(0.3, 0.7)
    level[RIDER] = level[PERSON] if rng.random() < 0.6 else rng.uniform(0.3, 0.6)
    luma = rng.normal(0, 0.2, CODES)
    texture = rng.normal(0, 0.7, CODES)
    luma[[_SKY, PERSON]] *= 0.3
    heat: np.ndarray = np.take(level, codes).astype(np.float32)
    heat += np.take(luma, codes).astype(np.float32) * (grey - grey.mean())
    heat += np.take(texture, codes).astype(np.float32) * detail
    heat += rng.uniform(0, 0.25) * (smooth_field(height, width, int(rng.integers(2, 5)), rng) - 0.5)
    _warm_objects(heat, codes, instances, rng)
    # The registration of the sensors is never exact.
    shift = np.array([[1, 0, rng.normal(0, 0.8)], [0, 1, rng.normal(0, 0.6)]], np.float32)
    heat = cv2.warpAffine(heat, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
    heat = cv2.GaussianBlur(heat, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.5:  # local contrast, as cameras stretch it, with its halos
        heat = heat + rng.uniform(0, 0.8) * (heat - cv2.GaussianBlur(heat, (0, 0), rng.uniform(5, 20)))
    heat = np.clip(heat, 0, None) ** np.float32(rng.uniform(0.7, 1.6))
    return np.clip(heat * np.float32(rng.uniform(0.35, 1.15)) + np.float32(rng.normal(0, 0.05)), 0, 1)


def _warm_objects(heat: np.ndarray, codes: np.ndarray, instances: np.ndarray, rng: np.random.Generator) -> None:
    """Vary the objects of a class: cars are warmer below, persons wear cooler clothes."""
    for number in np.unique(instances):
        if not number:
            continue
        mask = instances == number
        rows, columns = np.nonzero(mask)
        code = codes[rows[0], columns[0]]
        down = (rows - rows.min()) / max(1, np.ptp(rows))
        if code == CAR:
            heat[mask] += rng.normal(0, 0.15) + rng.uniform(0, 0.5) * np.maximum(0, down - 0.45)
            if rng.random() < 0.3:  # windows reflect the sky
                heat[mask] -= rng.uniform(0, 0.3) * (down < 0.45)
        elif code == PERSON:
            clothes = rng.uniform(0, 0.3) * (down > 0.16) * (rng.random() < 0.7)
            heat[mask] += rng.normal(0, 0.08) - clothes
        else:
            heat[mask] += rng.normal(0, 0.1)
