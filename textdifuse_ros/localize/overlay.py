"""Draw located objects into an image."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.image.labels import LabelLayout
from textdifuse_ros.localize.base import Instance, Localization

# Okabe and Ito's palette, distinguishable with color blindness; RGB.
COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (255, 255, 255),
)
TINT = 0.4


def phrase_color(index: int) -> tuple[int, int, int]:
    """Return the color of a phrase, RGB; colors repeat after eight phrases.

    :param index: of the phrase, from 1
    """
    return COLORS[(index - 1) % len(COLORS)]


def draw_overlay(image: np.ndarray, objects: Localization) -> np.ndarray:
    """Tint and outline the masks, and write phrase, track and score next to them, one beside the other.

    The letters are at least 2.5 % of the image's height. Labels for which there is no room are left out, those of the
    lowest scores first.

    :param image: uint8 [H, W, 3] RGB, of the localization's size; not modified
    :param objects: of the image
    :returns: uint8 [H, W, 3] RGB
    """
    drawn = image.copy()
    labels = objects.label_map()
    for phrase in objects.phrases:
        inside = labels == phrase.index
        if inside.any():
            tint = np.array(phrase_color(phrase.index), np.float32) * np.float32(TINT)
            drawn[inside] = (drawn[inside] * np.float32(1 - TINT) + tint).round().astype(np.uint8)
    for item in objects.instances:
        outlines, _ = cv2.findContours(item.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, phrase_color(item.phrase), 1)
    layout = LabelLayout(drawn)
    texts = {phrase.index: phrase.text for phrase in objects.phrases}
    for item in sorted(objects.instances, key=lambda item: -item.score):  # if there is no room for all, the surest
        layout.draw(_caption(item, texts[item.phrase]), item.box, phrase_color(item.phrase))
    return drawn


def _caption(item: Instance, text: str) -> str:
    track = f" #{item.track}" if item.track else ""
    return f"{text}{track} {item.score:.2f}"
