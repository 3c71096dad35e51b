"""Notice that the visible and the infrared images of a command were exchanged."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from textdifuse_ros.errors import TextDifuseError
from textdifuse_ros.image.files import PairListing, read_visible
from textdifuse_ros.image.headers import MAX_PIXELS

_VISIBLE_NAMES = {"vis", "visible", "vi", "rgb", "color", "colour"}
_INFRARED_NAMES = {"ir", "infrared", "thermal", "lwir", "mwir", "tir"}
_PAIRS = 2  # images that are read at most
_COLORED = 3.0  # mean difference between the channels [levels of 8 bits]


def swap_warning(visible: Path, infrared: Path, listing: PairListing, max_pixels: int = MAX_PIXELS) -> str:
    """Say that visible and infrared images seem to be exchanged, by their colors or by their folders' names.

    :param visible: file or folder given as visible
    :param infrared: file or folder given as infrared
    :param listing: their pairs
    :param max_pixels: largest accepted image [pixel]
    :returns: a line; empty if nothing points to an exchange, or if only the visible images have color
    """
    some = listing.pairs[:_PAIRS]
    colors = {tuple(_colored(path, max_pixels) for path in (pair.visible, pair.infrared)) for pair in some}
    named = [_sensor_named(path) for path in (visible, infrared)]
    reason = ""
    if colors == {(False, True)}:
        reason = "the infrared images have color and the visible ones have none"
    elif named == ["infrared", "visible"] and colors != {(True, False)}:
        reason = "their names say that infrared images were given as visible ones, and visible as infrared"
    return f"{visible} and {infrared}: are visible and infrared exchanged? {reason}" if reason else ""


def _sensor_named(path: Path) -> str:
    """The sensor that a path's own name or, without one, its folder's name contains; empty if none or both."""
    for name in (path.stem if path.is_file() else path.name, path.absolute().parent.name):
        words = set(re.findall(r"[a-z]+", name.lower()))
        visible, infrared = bool(words & _VISIBLE_NAMES), bool(words & _INFRARED_NAMES)
        if visible != infrared:
            return "visible" if visible else "infrared"
    return ""


def _colored(path: Path, max_pixels: int) -> bool | None:
    """Whether an image has color; None if it cannot be read as visible, which its own error says later."""
    try:
        image = read_visible(path, max_pixels=max_pixels)
    except TextDifuseError:
        return None
    spread = np.ptp(image[::4, ::4].astype(np.float32), axis=2).mean()
    return bool(spread > _COLORED * (257 if image.dtype == np.uint16 else 1))
