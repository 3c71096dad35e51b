"""Average precision of a detector over a set of images, as COCO defines it, also over resampled sets of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textdifuse_ros.metrics.detection import box_ious

IOU_THRESHOLDS = np.arange(10) * 0.05 + 0.5
"""Intersections over union of a match, .50 to .95; the first one is that of AP50."""

RECALLS = 101
"""Recalls at which the precision is read: 0, 0.01, ..., 1."""


@dataclass(frozen=True, eq=False)
class ScoredDetections:
    """The detections of one class in a set of images, in descending order of their scores.

    :ivar image: int64 [D], index of the image
    :ivar matched: bool [10, D], whether the detection matches an object, by :data:`IOU_THRESHOLDS`
    :ivar truths: int64 [N], number of objects in each image
    """

    image: np.ndarray
    matched: np.ndarray
    truths: np.ndarray


def match_detections(boxes: np.ndarray, scores: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Match the detections of one image and class to its objects, greedily in the order of their scores.

    Each detection takes the object it overlaps most among those that are left (Lin et al., "Microsoft COCO: common
    objects in context", ECCV 2014, and its released evaluation code).

    :param boxes: float [N, 4], detected boxes: left, top, right, bottom [pixels]
    :param scores: float [N]
    :param truths: float [M, 4], boxes of the objects, each matched at most once
    :returns: int64 [10, N], the index of the matched object or -1, by :data:`IOU_THRESHOLDS`
    """
    matches = np.full((len(IOU_THRESHOLDS), len(boxes)), -1)
    if not len(truths):
        return matches
    ious = box_ious(boxes, truths)
    order = np.argsort(-np.asarray(scores), kind="stable")
    for match, threshold in zip(matches, IOU_THRESHOLDS, strict=True):
        left: np.ndarray = np.ones(len(truths), bool)
        for detection in order:
            overlaps = np.where(left, ious[detection], -1.0)
            best = int(overlaps.argmax())
            if overlaps[best] >= threshold:
                left[best] = False
                match[detection] = best
    return matches


def score_detections(
    boxes: Sequence[np.ndarray], scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]
) -> ScoredDetections:
    """Match the detections of one class in all images and sort them by score.

    :param boxes: float [n, 4] for each image, at least one, see :func:`match_detections`
    :param scores: float [n] for each image
    :param truths: float [m, 4] for each image
    """
    matched = [match_detections(*of_image) >= 0 for of_image in zip(boxes, scores, truths, strict=True)]
    image = np.repeat(np.arange(len(truths)), [len(item) for item in scores])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    counts = np.array([len(item) for item in truths], np.int64)
    return ScoredDetections(image[order], np.hstack(matched)[:, order], counts)


def average_precision(detections: ScoredDetections, drawn: np.ndarray | None = None) -> np.ndarray:
    """Compute the average precision: the mean over 101 recalls of the best precision at that recall or a higher one.

    Exact in integers: no recall is missed or gained by rounding.

    :param detections: of one class
    :param drawn: int [R, N], how often each image occurs in each of R resampled sets; None for the set itself
    :returns: float64 [R, 10], by resampled set and :data:`IOU_THRESHOLDS` (R = 1 for None); NaN where a set has no
        object
    """
    if drawn is None:
        drawn = np.ones((1, len(detections.truths)), np.int64)
    total = (drawn @ detections.truths)[:, None]  # [R, 1]
    counts = drawn[:, detections.image]  # [R, D]
    reported = counts.cumsum(1)
    precisions = np.empty((len(drawn), len(IOU_THRESHOLDS)))
    for n, matched in enumerate(detections.matched):
        places = np.flatnonzero(matched)  # precision peaks at matches only
        found = counts[:, places].cumsum(1)
        precision = found / np.maximum(reported[:, places], 1)
        best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        # The number of recalls 0, 0.01, ... that each match is the first to reach.
        reached = found * (RECALLS - 1) // np.maximum(total, 1) + 1
        precisions[:, n] = (best * np.diff(reached, axis=1, prepend=0)).sum(1) / RECALLS
    precisions[total[:, 0] == 0] = np.nan
    return precisions
