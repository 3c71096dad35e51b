"""Example images of the panel "detection", with found, false and missed boxes drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from textdifuse_ros.evaluate.detection import SHOWN_SCORE, DetectionJob, Judge, row_image, search_pair
from textdifuse_ros.evaluate.detector import Detected
from textdifuse_ros.evaluate.images import Cell, Example, zoom_window
from textdifuse_ros.evaluate.methods import InputPair, Row
from textdifuse_ros.evaluate.sets import read_pair
from textdifuse_ros.image.files import Pair
from textdifuse_ros.image.labels import LabelLayout
from textdifuse_ros.metrics.average_precision import match_detections

FOUND, FALSE, MISSED = (70, 170, 255), (255, 80, 40), (255, 224, 0)


def make_detection_example(pair: Pair, rows: Sequence[Row], judge: Judge, kinds: Sequence[str]) -> Example:
    """Draw the boxes found in every row of a pair; those of ``late`` are drawn on the visible image.

    :param pair: the files
    :param rows: the rows, in order
    :param judge: detector and labels
    :param kinds: the classes to draw
    """
    visible, infrared = read_pair(pair)
    inputs = InputPair(pair.stem, "", visible, infrared)
    truths = judge.truths(pair.stem)
    _, found = search_pair(DetectionJob(pair, tuple(row for row in rows if not row.baseline), judge.detector))
    cells = [
        Cell(
            row.name,
            draw_boxes(row_image(inputs, row), found[row.name], truths, kinds),
            "control" if row.is_control else "method",
            row.name,
        )
        for row in rows
    ]
    return Example(pair.stem, "", zoom_window(visible, infrared), tuple(cells))


def draw_boxes(
    image: np.ndarray, detected: Detected, truths: Mapping[str, np.ndarray], kinds: Sequence[str]
) -> np.ndarray:
    """Draw the boxes of an image, see :func:`legend`.

    :param image: uint8 [H, W, 3] RGB
    :param detected: what the detector found, by class
    :param truths: labeled boxes, float64 [N, 4], by class
    :param kinds: the classes to draw
    :returns: uint8 [H, W, 3] RGB, a new image
    """
    drawn = image.copy()
    texts: list[tuple[str, np.ndarray, tuple[int, int, int]]] = []
    for kind in kinds:
        labels, boxes = truths.get(kind, np.zeros((0, 4))), detected[kind].above(SHOWN_SCORE)
        matches = match_detections(boxes.edges, boxes.scores, labels)[0]
        for box in np.delete(labels, matches[matches >= 0], 0):
            first, last = _draw(drawn, box, MISSED)
            cv2.line(drawn, first, last, MISSED, 1, cv2.LINE_AA)
            texts.append((kind, box, MISSED))
        for box, score, match in zip(boxes.edges, boxes.scores, matches, strict=True):
            color = FOUND if match >= 0 else FALSE
            _draw(drawn, box, color)
            texts.append((f"{kind} {score:.2f}", box, color))
    layout = LabelLayout(drawn)  # the labels last: no box covers one
    for text, box, color in texts:
        layout.draw(text, box, color)
    return drawn


def legend() -> str:
    """What the colors mean, for readers."""
    return (
        f"Boxes with a score of at least {SHOWN_SCORE} are drawn: blue if they match a labeled object, orange if not. "
        "Yellow and crossed out: a labeled object that was not found."
    )


def count_caption(values: Mapping[str, float]) -> str:
    """Summarize the boxes of an image: ``person 3 of 4, 1 false``.

    :param values: of its record
    """
    parts = []
    for name, objects in values.items():
        base, _, kind = name.partition("_")
        if base == "objects" and (objects or values[f"false_{kind}"]):
            false = values[f"false_{kind}"]
            parts.append(
                f"{kind} {values[f'found_{kind}']:.0f} of {objects:.0f}" + (f", {false:.0f} false" if false else "")
            )
    return " · ".join(parts)


def _draw(image: np.ndarray, box: np.ndarray, color: tuple[int, int, int]) -> tuple[cv2.typing.Point, ...]:
    """Draw a box; returns its corners."""
    left, top, right, bottom = (round(float(edge)) for edge in box)
    corners = (left, top), (max(left, right - 1), max(top, bottom - 1))
    cv2.rectangle(image, *corners, color, 2 if color != MISSED else 1, cv2.LINE_AA)
    return corners
