"""Pseudo-labels of real infrared and visible pairs, from a trained localizer.

No pairs with true masks are available. Confident predictions on real pairs teach the network real infrared images, to
which the synthetic ones are only roughly similar. Where boxes were drawn by hand, they decide about objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from textdifuse_ros.data.labels import (
    STUFF,
    THINGS,
    UNKNOWN,
    LabeledImage,
    label_from_boxes,
    read_boxes,
    read_road_pair,
    roadscene_names,
)
from textdifuse_ros.localize.builtin import BuiltinLocalizer

_SURE, _SURE_THING = 0.65, 0.75


def pseudo_labeled(localizer: BuiltinLocalizer, root: Path) -> Iterator[LabeledImage]:
    """Label the training pairs of RoadScene, without those near a test frame.

    :param localizer: predicts the labels
    :param root: data folder
    :raises FileError: RoadScene is not in the data folder
    """
    folder = root / "roadscene" / "train"
    for name in roadscene_names(root):
        visible, infrared = read_road_pair(folder, name)
        guess = sure_codes(_averaged_probability(localizer, visible, infrared))
        boxes = folder / "boxes" / f"{name}.txt"
        if boxes.is_file():
            item = label_from_boxes(f"roadscene/{name}", visible, infrared, read_boxes(boxes))
            replaced = (item.codes == STUFF) & ~np.isin(guess, (*THINGS, UNKNOWN))
            item.codes[replaced] = guess[replaced]
            yield item
        else:
            none = np.zeros_like(guess)
            yield LabeledImage(f"roadscene/{name}", visible, infrared, guess, none, np.zeros((0, 4), np.float32))


def sure_codes(probability: np.ndarray) -> np.ndarray:
    """Return the class of each pixel where it is confident, else UNKNOWN.

    :param probability: float32 [K, H, W] in [0, 1]
    :returns: uint8 [H, W]
    """
    best = probability.argmax(0).astype(np.uint8)
    least = np.where(np.isin(best, THINGS), _SURE_THING, _SURE)
    return np.where(probability.max(0) >= least, best, UNKNOWN).astype(np.uint8)


def _averaged_probability(localizer: BuiltinLocalizer, visible: np.ndarray, infrared: np.ndarray) -> np.ndarray:
    """Average the probabilities with both sensors and with the visible alone, each also mirrored."""
    blind = np.zeros_like(infrared)
    views = []
    for source in (infrared, blind):
        views.append(localizer.classes(visible, source).probability)
        mirrored = localizer.classes(np.ascontiguousarray(visible[:, ::-1]), np.ascontiguousarray(source[:, ::-1]))
        views.append(mirrored.probability[:, :, ::-1])
    return np.mean(views, axis=0)
