"""Labels that a trained localizer gives to real infrared and visible pairs, to be trained on in turn.

No pairs with true masks exist. What the network says of a real pair with confidence teaches it the real infrared:
the made-up one is only roughly alike. Where boxes were drawn by hand, these have the last word on objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from textdifuse_ros.data.labels import (
    STUFF,
    THINGS,
    UNKNOWN,
    Labelled,
    label_from_boxes,
    read_boxes,
    read_road_pair,
    roadscene_names,
)
from textdifuse_ros.localize.builtin import BuiltinLocalizer

_SURE, _SURE_THING = 0.65, 0.75


def pseudo_labelled(localizer: BuiltinLocalizer, root: Path) -> Iterator[Labelled]:
    """RoadScene's training pairs, without those near a test frame, labelled.

    :raises FileError: not in the data folder
    """
    folder = root / "roadscene" / "train"
    for name in roadscene_names(root):
        visible, infrared = read_road_pair(folder, name)
        guess = sure_codes(_seen_from_all_sides(localizer, visible, infrared))
        boxes = folder / "boxes" / f"{name}.txt"
        if boxes.is_file():
            item = label_from_boxes(f"roadscene/{name}", visible, infrared, read_boxes(boxes))
            replaced = (item.codes == STUFF) & ~np.isin(guess, (*THINGS, UNKNOWN))
            item.codes[replaced] = guess[replaced]
            yield item
        else:
            none = np.zeros_like(guess)
            yield Labelled(f"roadscene/{name}", visible, infrared, guess, none, np.zeros((0, 4), np.float32))


def sure_codes(probability: np.ndarray) -> np.ndarray:
    """The class of each pixel where it is sure, else UNKNOWN.

    :param probability: float32 [K, H, W]
    :returns: uint8 [H, W]
    """
    best = probability.argmax(0).astype(np.uint8)
    least = np.where(np.isin(best, THINGS), _SURE_THING, _SURE)
    return np.where(probability.max(0) >= least, best, UNKNOWN).astype(np.uint8)


def _seen_from_all_sides(localizer: BuiltinLocalizer, visible: np.ndarray, infrared: np.ndarray) -> np.ndarray:
    """Mean probability over both sensors and the visible alone, each as it is and mirrored."""
    blind = np.zeros_like(infrared)
    views = []
    for source in (infrared, blind):
        views.append(localizer.classes(visible, source).probability)
        mirrored = localizer.classes(np.ascontiguousarray(visible[:, ::-1]), np.ascontiguousarray(source[:, ::-1]))
        views.append(mirrored.probability[:, :, ::-1])
    return np.mean(views, axis=0)
