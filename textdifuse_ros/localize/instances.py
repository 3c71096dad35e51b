"""Instances from maps of class probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from textdifuse_ros.localize.base import Instance, mask_box

MIN_DEPTH, DEPTH_SADDLE = 1.5, 0.7  # distance of an object's middle from its border [pixels], relative width of a neck
MIN_CENTER, CENTER_SADDLE = 0.1, 0.5
MAX_PEAKS = 64  # of one region, the highest ones; ragged regions have very many


def class_instances(
    probability: np.ndarray,
    phrases: Mapping[int, int],
    *,
    threshold: float = 0.5,
    min_area: int = 12,
    countable: frozenset[int] | None = None,
    centers: np.ndarray | None = None,
) -> list[Instance]:
    """Extract objects from a map of class probabilities.

    A pixel belongs to the class of highest probability. Connected pixels (8 neighbors) of the classes of one phrase
    form a region. A region of countable classes is divided if it has several middles; otherwise it is one object. All
    regions of uncountable classes (road, sky) together are one object.

    :param probability: float32 [K, H, W], the probabilities of all K classes, sum 1 at each pixel
    :param phrases: class (0 .. K - 1) to the index of its phrase (from 1)
    :param threshold: minimum score in [0, 1]: the mean probability of the phrase's classes over the object's pixels
    :param min_area: smaller objects are dropped [pixels]
    :param countable: classes with separate objects; None for all
    :param centers: float32 [H, W] in [0, 1], likelihood of an object's middle; without it the middles are the peaks of
        the distance from the region's border
    :returns: by descending score; masks do not overlap
    """
    instances: list[Instance] = []
    best = probability.argmax(0)
    for phrase in sorted(set(phrases.values())):
        classes = [item for item, index in phrases.items() if index == phrase]
        things = [item for item in classes if countable is None or item in countable]
        stuff = [item for item in classes if item not in things]
        share = probability[classes].sum(0)
        masks = split_regions(np.isin(best, things), min_area, centers) if things else []
        if stuff:
            masks.append(np.isin(best, stuff))
        for mask in masks:
            if np.count_nonzero(mask) >= max(1, min_area):
                score = min(float(share[mask].mean()), 1.0)
                if score >= threshold:
                    instances.append(Instance(mask, mask_box(mask), score, phrase))
    return sorted(instances, key=lambda item: -item.score)


def split_regions(
    mask: np.ndarray, min_area: int = 1, centers: np.ndarray | None = None, *, divide: bool = True
) -> list[np.ndarray]:
    """Split a mask into its connected regions (8 neighbors), and those into objects.

    :param mask: bool [H, W]
    :param min_area: smaller regions are dropped [pixels]
    :param centers: float32 [H, W], see :func:`class_instances`
    :param divide: False leaves each region whole
    :returns: bool [H, W] each
    """
    count, regions, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    pieces = []
    for region in range(1, count):
        left, top, width, height, area = statistics[region]
        if area < min_area:
            continue
        window = slice(top, top + height), slice(left, left + width)
        inside = regions[window] == region
        hints = centers[window] if centers is not None else None
        for piece in _divide(inside, hints) if divide else [inside]:
            whole = np.zeros(mask.shape, bool)
            whole[window] = piece
            pieces.append(whole)
    return pieces


def _divide(region: np.ndarray, centers: np.ndarray | None) -> list[np.ndarray]:
    """Divide one connected region among its middles; bool [h, w] each, of the region's size.

    Each middle is the center of the largest circle that fits into the region. A pixel belongs to the nearest circle (an
    additively weighted Voronoi diagram), so that a near car keeps its front beside a small, distant one.
    """
    padded = np.pad(region.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    if centers is None:
        middles = _peaks(depth, minimum=MIN_DEPTH, saddle=DEPTH_SADDLE)
    else:
        middles = _peaks(np.where(region, centers, 0).astype(np.float32), minimum=MIN_CENTER, saddle=CENTER_SADDLE)
    if len(middles) < 2:
        return [region]
    rows, columns = np.mgrid[: region.shape[0], : region.shape[1]]
    nearest: np.ndarray = np.full(region.shape, -1, np.int32)
    best: np.ndarray = np.full(region.shape, np.inf)
    for number, (row, column) in enumerate(middles):
        away = np.hypot(rows - row, columns - column) - depth[row, column]
        nearer = away < best
        best[nearer], nearest[nearer] = away[nearer], number
    return [piece for number in range(len(middles)) if (piece := (nearest == number) & region).any()]


def _peaks(height: np.ndarray, minimum: float, saddle: float) -> list[tuple[int, int]]:
    """Find the row and column of the peaks of a relief, float32 [H, W], from the highest down.

    A peak counts if every path to a higher one descends below ``saddle`` times its own height.
    """
    level = cv2.dilate(height, np.ones((3, 3), np.uint8))
    _, plateaus, _, _ = cv2.connectedComponentsWithStats(((height >= level) & (height >= minimum)).astype(np.uint8))
    numbers, first = np.unique(plateaus, return_index=True)
    rows, columns = np.unravel_index(first[numbers > 0], height.shape)
    order = np.argsort(-height[rows, columns], kind="stable")[:MAX_PEAKS]
    middles: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        _, hills = cv2.connectedComponents((height >= saddle * height[row, column]).astype(np.uint8), connectivity=8)
        if all(hills[row, column] != hills[other] for other in middles):
            middles.append((row, column))
    return middles
