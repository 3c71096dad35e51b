"""Objects out of cells that each say what they are and how far their object reaches.

Every cell of a thing votes for a box. Votes that agree make an object; cells that touch but vote for different boxes
belong to different objects, which a map of classes alone cannot tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST = 0.2
"""Least probability of a cell that votes: far objects are never seen with certainty."""

_SAME, _WITHIN = 0.5, 0.75
_FILLED = 0.25  # least share of its box that an object's own cells cover: votes that only a rim casts are mistaken
_SHARED = 0.5  # share of a mistaken box that must lie within an object for its cells to join that one


@dataclass(frozen=True)
class Votes:
    """One object that cells voted for.

    :ivar box: left, top, right, bottom, in the unit of the distances
    :ivar score: mean probability of its class over its cells, in [0, 1]
    :ivar cells: int64 [N], flat indices
    """

    box: tuple[float, float, float, float]
    score: float
    cells: np.ndarray


def group_votes(probability: np.ndarray, distances: np.ndarray, cell: float, least: float = LEAST) -> list[Votes]:
    """The objects of one class.

    The surest vote opens an object and draws all cells that vote for much the same box; their mean is its box. A vote
    that lies within an object already found opens none and joins it. A box of one vote, or
    one that its own cells do not fill, is none.

    :param probability: float32 [h, w], of the class
    :param distances: float32 [4, h, w], from the middle of a cell to the left, upper, right and lower edge
    :param cell: side of a cell, in the unit of the distances
    :param least: cells of a lower probability do not vote
    :returns: by falling weight of the opening vote
    """
    rows, columns = np.nonzero(probability >= least)
    if not len(rows):
        return []
    sure = probability[rows, columns].astype(np.float64)
    left, up, right, down = distances[:, rows, columns].astype(np.float64)
    x, y = (columns + 0.5) * cell, (rows + 0.5) * cell
    boxes = np.stack((x - left, y - up, x + right, y + down), 1)
    # Votes from the middle of an object are the best ones (the center-ness of FCOS, Tian 2019).
    middle = np.minimum(left, right) / np.maximum(left, right) * np.minimum(up, down) / np.maximum(up, down)
    weight = sure * np.sqrt(np.clip(middle, 1e-6, 1))
    owner: np.ndarray = np.full(len(rows), -1)
    found: list[np.ndarray] = []
    for best in np.argsort(-weight, kind="stable"):
        if owner[best] >= 0:
            continue
        if found and (covering := _covering(boxes[best], np.array(found))) >= 0:
            owner[best] = covering
            continue
        agree = (owner < 0) & (_overlap(boxes, boxes[best])[0] > _SAME)
        agree[best] = True
        owner[agree] = len(found)
        found.append(np.average(boxes[agree], axis=0, weights=weight[agree]))
    owner = _dissolve_unfilled(owner, np.array(found), cell)
    flat = rows * probability.shape[1] + columns
    return [
        Votes(tuple(found[number].tolist()), float(sure[owner == number].mean()), flat[owner == number])
        for number in np.unique(owner[owner >= 0])
    ]


def _dissolve_unfilled(owner: np.ndarray, found: np.ndarray, cell: float) -> np.ndarray:
    """Give cells alone, and cells of boxes that they do not fill, to the object that covers most of that box, or none.

    :param owner: integer [N], object of each cell
    :param found: float64 [M, 4], boxes of the objects
    :returns: integer [N], -1 for none
    """
    areas = (found[:, 2:] - found[:, :2]).prod(1)
    votes = np.bincount(owner, minlength=len(found))
    filled = (votes > 1) & (votes * cell**2 >= _FILLED * areas)
    kept = np.flatnonzero(filled)
    heir = np.arange(len(found))
    for number in np.flatnonzero(~filled):
        within = _overlap(found[kept], found[number])[1]
        best = int(np.argmax(within)) if len(kept) else 0
        heir[number] = kept[best] if len(kept) and within[best] >= _SHARED else -1
    return heir[owner]


def _covering(box: np.ndarray, found: np.ndarray) -> int:
    """The object that a box is the same as or lies within; -1 for none."""
    same, within = _overlap(found, box)
    best = int(np.argmax(np.maximum(same / _SAME, within / _WITHIN)))
    return best if same[best] > _SAME or within[best] > _WITHIN else -1


def _overlap(boxes: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union of boxes [N, 4] with one, and over that one's own area."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.clip(high - low, 0, None).prod(1)
    own = float((box[2:] - box[:2]).prod())
    return common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + own - common), common / own
