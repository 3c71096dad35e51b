"""Objects from per-cell class probabilities and distances to the edges of the object's box.

Each cell of a countable class votes for a box. Votes that agree form an object. Adjacent cells that vote for different
boxes belong to different objects, which a class map alone cannot separate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_PROBABILITY = 0.2
"""Minimum probability of a cell that votes; low, because the network is never certain of distant objects."""

_SAME = 0.5  # IoU above which two votes are for the same box
_WITHIN = 0.75  # share of a box inside another one above which it is part of that object
_FILLED = 0.25  # minimum share of an object's box that its own cells cover; votes of an outline alone are wrong
_SHARED = 0.5  # minimum share of such a wrong box inside an object for its cells to join that object


@dataclass(frozen=True)
class Votes:
    """One object and the cells that voted for it.

    :ivar box: (left, top, right, bottom), in the unit of the distances
    :ivar score: mean probability of its class over its cells, in [0, 1]
    :ivar cells: int64 [N], flat indices
    """

    box: tuple[float, float, float, float]
    score: float
    cells: np.ndarray


def group_votes(
    probability: np.ndarray, distances: np.ndarray, cell: float, min_probability: float = MIN_PROBABILITY
) -> list[Votes]:
    """Group the votes of one class into objects.

    The vote of highest weight starts an object. All cells that vote for nearly the same box join it, and their weighted
    mean is its box. A vote for a box inside an existing object joins that object. Boxes of a single vote, and boxes
    that their own cells do not fill, are dissolved.

    :param probability: float32 [h, w] in [0, 1], of the class
    :param distances: float32 [4, h, w], from the middle of a cell to the left, upper, right and lower edge
    :param cell: side of a cell, in the unit of the distances
    :param min_probability: cells of a lower probability do not vote
    :returns: by descending weight of the first vote
    """
    rows, columns = np.nonzero(probability >= min_probability)
    if not len(rows):
        return []
    score = probability[rows, columns].astype(np.float64)
    left, up, right, down = distances[:, rows, columns].astype(np.float64)
    x, y = (columns + 0.5) * cell, (rows + 0.5) * cell
    boxes = np.stack((x - left, y - up, x + right, y + down), 1)
    # Weighted by center-ness, as in FCOS (Tian et al., 2019): votes from the middle of an object are the most accurate.
    centerness = np.minimum(left, right) / np.maximum(left, right) * np.minimum(up, down) / np.maximum(up, down)
    weight = score * np.sqrt(np.clip(centerness, 1e-6, 1))
    owner: np.ndarray = np.full(len(rows), -1)
    objects: list[np.ndarray] = []
    for best in np.argsort(-weight, kind="stable"):
        if owner[best] >= 0:
            continue
        if objects and (covering := _covering(boxes[best], np.array(objects))) >= 0:
            owner[best] = covering
            continue
        agree = (owner < 0) & (_overlap(boxes, boxes[best])[0] > _SAME)
        agree[best] = True
        owner[agree] = len(objects)
        objects.append(np.average(boxes[agree], axis=0, weights=weight[agree]))
    owner = _dissolve_unfilled(owner, np.array(objects), cell)
    flat = rows * probability.shape[1] + columns
    return [
        Votes(tuple(objects[number].tolist()), float(score[owner == number].mean()), flat[owner == number])
        for number in np.unique(owner[owner >= 0])
    ]


def _dissolve_unfilled(owner: np.ndarray, objects: np.ndarray, cell: float) -> np.ndarray:
    """Reassign the cells of single votes and unfilled boxes to the object that covers most of their box, or to none.

    :param owner: integer [N], object of each cell
    :param objects: float64 [M, 4], boxes of the objects
    :returns: integer [N], -1 for none
    """
    areas = (objects[:, 2:] - objects[:, :2]).prod(1)
    votes = np.bincount(owner, minlength=len(objects))
    filled = (votes > 1) & (votes * cell**2 >= _FILLED * areas)
    kept = np.flatnonzero(filled)
    new_owner = np.arange(len(objects))
    for number in np.flatnonzero(~filled):
        within = _overlap(objects[kept], objects[number])[1]
        best = int(np.argmax(within)) if len(kept) else 0
        new_owner[number] = kept[best] if len(kept) and within[best] >= _SHARED else -1
    return new_owner[owner]


def _covering(box: np.ndarray, objects: np.ndarray) -> int:
    """Find the object that a box equals or lies within; -1 for none."""
    same, within = _overlap(objects, box)
    best = int(np.argmax(np.maximum(same / _SAME, within / _WITHIN)))
    return best if same[best] > _SAME or within[best] > _WITHIN else -1


def _overlap(boxes: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the intersection of boxes [N, 4] with one box, over their union and over that box's area."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.clip(high - low, 0, None).prod(1)
    own = float((box[2:] - box[:2]).prod())
    return common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + own - common), common / own
