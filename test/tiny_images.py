"""Small training images."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.data.labels import CAR, CLASSES, CODES, PERSON, LabeledImage
from textdifuse_ros.data.pairs import Item


def street(seed: int, height: int = 90, width: int = 120) -> Item:
    """Create a random pair with a sky in its upper third."""
    rng = np.random.default_rng(seed)
    visible = cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (width, height))
    infrared = cv2.resize(rng.integers(0, 256, (9, 12), dtype=np.uint8), (width, height))
    sky = np.zeros((height, width), np.uint8)
    sky[: height // 3] = 255
    return Item(f"street{seed}", visible, infrared, sky)


def labeled_street(seed: int, name: str = "camvid/street", infrared: bool = False) -> LabeledImage:
    """An image of sky and road with a person and a car of known extent, [96, 128]."""
    sky, road = CLASSES.index("sky"), CLASSES.index("road")
    rng = np.random.default_rng(seed)
    codes = np.full((96, 128), road, np.uint8)
    codes[:40] = sky
    instances = np.zeros_like(codes)
    left = int(rng.integers(10, 40))
    boxes = np.array([(left, 30, left + 12, 70), (70, 45, 110, 75)], np.float32)
    for number, code in ((1, PERSON), (2, CAR)):
        x0, y0, x1, y1 = boxes[number - 1].astype(int)
        codes[y0:y1, x0:x1], instances[y0:y1, x0:x1] = code, number
    colors = rng.integers(0, 256, (CODES, 3)).astype(np.uint8)
    visible = cv2.add(colors[codes], rng.integers(0, 20, (*codes.shape, 3), dtype=np.uint8))
    heat = np.where(codes == PERSON, 230, np.where(codes == sky, 10, 90)).astype(np.uint8)
    return LabeledImage(f"{name}{seed}", visible, heat if infrared else None, codes, instances, boxes)
