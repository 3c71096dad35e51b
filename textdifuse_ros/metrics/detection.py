"""How well objects and classes are found: boxes against boxes, label images against label images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Hits(NamedTuple):
    """Counts of one or several images.

    :ivar truths: objects that are there
    :ivar found: objects that were reported
    :ivar hits: reported objects that are there
    """

    truths: int = 0
    found: int = 0
    hits: int = 0

    def plus(self, other: Hits) -> Hits:
        """Both together."""
        return Hits(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def recall(self) -> float:
        """Share of the objects that was found; NaN without any."""
        return self.hits / self.truths if self.truths else float("nan")

    @property
    def precision(self) -> float:
        """Share of what was found that is there; NaN if nothing was found."""
        return self.hits / self.found if self.found else float("nan")


def box_ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other one.

    :param boxes: float [N, 4], left, top, right, bottom; right and bottom excluded
    :param others: float [M, 4]
    :returns: float64 [N, M]
    """
    a, b = np.asarray(boxes, float).reshape(-1, 1, 4), np.asarray(others, float).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def match_boxes(
    found: np.ndarray, scores: np.ndarray, truths: np.ndarray, ignored: np.ndarray | None = None, least: float = 0.5
) -> Hits:
    """Reported boxes against true ones of one image and class; each true one is hit once, by the surest report.

    :param found: float [N, 4], left, top, right, bottom
    :param scores: float [N]
    :param truths: float [M, 4]
    :param ignored: bool [M], true objects that need not be found: they count neither as there nor, hit, as found
    :param least: intersection over union of a hit
    """
    skip = np.zeros(len(truths), bool) if ignored is None else ignored
    overlaps = box_ious(found, truths)
    free: np.ndarray = np.ones(len(truths), bool)
    hits = neither = 0
    for report in np.argsort(-np.asarray(scores), kind="stable"):
        open_ = np.where(free, overlaps[report], -1.0)
        # What must be found goes before what need not be.
        order = sorted(np.flatnonzero(open_ >= least), key=lambda n: (skip[n], -open_[n]))
        if order:
            free[order[0]] = False
            hits += not skip[order[0]]
            neither += bool(skip[order[0]])
    return Hits(int((~skip).sum()), len(found) - neither, hits)


def confusion_matrix(truth: np.ndarray, found: np.ndarray, truths: int, classes: int) -> np.ndarray:
    """How often each true label was taken for each class, int64 [truths, classes].

    :param truth: integer [H, W]; labels of ``truths`` and above do not count
    :param found: integer [H, W], 0 .. classes - 1
    """
    counted = truth < truths
    pairs = truth[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=truths * classes).reshape(truths, classes)


def class_ious(table: np.ndarray) -> np.ndarray:
    """Intersection over union of each class over all pixels of a confusion_matrix table, NaN for one that never occurs.

    :param table: int64 [truths, classes], truths >= classes; rows beyond are pixels of none of the classes
    :returns: float64 [classes]
    """
    both = np.diagonal(table).astype(float)
    classes = table.shape[1]
    union = table[:classes].sum(1) + table.sum(0) - both
    return np.divide(both, union, out=np.full(classes, np.nan), where=union > 0)
