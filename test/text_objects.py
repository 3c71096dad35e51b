"""Detections of one square, as a key frame gives them."""

from __future__ import annotations

import numpy as np

from textdifuse_ros.localize.base import Instance, Localization, mask_box
from textdifuse_ros.localize.prompt import parse_prompt
from textdifuse_ros.runtime.key_frames import MaskProvenance
from textdifuse_ros.runtime.text_target import Detections


def square_detections(shape: tuple[int, int], strength: float = 1.0) -> Detections:
    """Detections of "person, car" in an image of ``shape``: one car, rows 8 .. 29, columns 10 .. 39."""
    mask = np.zeros(shape, bool)
    mask[8:30, 10:40] = True
    phrases = parse_prompt("person, car").phrases
    objects = Localization((Instance(mask, mask_box(mask), 0.75, 2, track=7, stamp=12.5),), shape, phrases)
    return Detections(objects, MaskProvenance("person, car", "located", 12.5, "gate", 0.1), strength)
