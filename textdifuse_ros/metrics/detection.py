"""Detection and segmentation metrics: boxes against boxes, label images against label images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class MatchCounts(NamedTuple):
    """Detection counts of one or several images.

    :ivar truths: ground-truth objects
    :ivar detections: detected objects
    :ivar matches: detected objects that match a ground-truth object
    """

    truths: int = 0
    detections: int = 0
    matches: int = 0

    def plus(self, other: MatchCounts) -> MatchCounts:
        """Add the counts of ``other`` images."""
        return MatchCounts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def recall(self) -> float:
        """Share of the ground-truth objects that were detected; NaN without any."""
        return self.matches / self.truths if self.truths else float("nan")

    @property
    def precision(self) -> float:
        """Share of the detections that match; NaN without detections."""
        return self.matches / self.detections if self.detections else float("nan")


def box_ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of all pairs of boxes.

    :param boxes: float [N, 4], left, top, right, bottom; right and bottom exclusive
    :param others: float [M, 4], likewise
    :returns: float64 [N, M]
    """
    a, b = np.asarray(boxes, float).reshape(-1, 1, 4), np.asarray(others, float).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def match_boxes(
    boxes: np.ndarray, scores: np.ndarray, truths: np.ndarray, ignored: np.ndarray | None = None, min_iou: float = 0.5
) -> MatchCounts:
    """Match detections of one image and class to the ground truth, greedily in the order of their scores.

    :param boxes: float [N, 4], detected boxes: left, top, right, bottom
    :param scores: float [N]
    :param truths: float [M, 4], ground-truth boxes, each matched at most once
    :param ignored: bool [M], optional objects: not counted as ground truth, nor their matches as detections
    :param min_iou: minimum intersection over union of a match
    """
    optional = np.zeros(len(truths), bool) if ignored is None else ignored
    ious = box_ious(boxes, truths)
    free: np.ndarray = np.ones(len(truths), bool)
    matches = optional_matches = 0
    for detection in np.argsort(-np.asarray(scores), kind="stable"):
        candidates = np.where(free, ious[detection], -1.0)
        # Required objects are matched before optional ones.
        order = sorted(np.flatnonzero(candidates >= min_iou), key=lambda n: (optional[n], -candidates[n]))
        if order:
            free[order[0]] = False
            matches += not optional[order[0]]
            optional_matches += bool(optional[order[0]])
    return MatchCounts(int((~optional).sum()), len(boxes) - optional_matches, matches)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, truths: int, classes: int) -> np.ndarray:
    """Count the pixels of each true label by predicted class.

    :param truth: integer [H, W]; labels from ``truths`` on are ignored
    :param predicted: integer [H, W], 0 .. classes - 1
    :param truths: number of true labels
    :param classes: number of predicted classes
    :returns: int64 [truths, classes]
    """
    counted = truth < truths
    pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=truths * classes).reshape(truths, classes)


def class_ious(table: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of each class from a confusion matrix.

    :param table: int64 [truths, classes], truths >= classes; the additional rows are pixels of no class
    :returns: float64 [classes]; NaN for a class that never occurs
    """
    both = np.diagonal(table).astype(float)
    classes = table.shape[1]
    union = table[:classes].sum(1) + table.sum(0) - both
    return np.divide(both, union, out=np.full(classes, np.nan), where=union > 0)
