"""The images of a report: the same place of the same scene by every method, whole and in detail."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.evaluate.methods import InputPair, Row
from textdifuse_ros.evaluate.sets import PairSet, read_pair
from textdifuse_ros.image.files import Pair
from textdifuse_ros.image.sheets import contact_sheet

SHOWN_CONTROLS = ("max", "clahe+max", "sum")
"""The controls whose images are shown; the tables hold all."""
ZOOM = 4
"""The detail's width is that of the image divided by this."""
SHEETS = ("images", "details")
"""Names of the contact sheets."""
_CELL = 460
_FRAME = (255, 196, 0)


@dataclass(frozen=True)
class Cell:
    """One image of an example.

    :ivar image: uint8 [H, W, 3] RGB
    :ivar role: ``source``, ``control`` or ``method``
    :ivar row: of the tables, or "" for a source
    """

    name: str
    image: np.ndarray
    role: str
    row: str = ""


@dataclass(frozen=True)
class Window:
    """The place that is shown in detail, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """That part of an image; a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Example:
    """One scene under one condition.

    :ivar condition: as in the records
    """

    stem: str
    condition: str
    window: Window
    cells: tuple[Cell, ...]


def choose_examples(pairs: PairSet, conditions: Sequence[str], count: int) -> list[tuple[Pair, str]]:
    """Which pairs are shown: some evenly spread ones, or for each condition one, another each time.

    :param count: how many at most where there are no conditions; 0 for none, also where there are
    """
    if conditions and count:
        step = max(1, len(pairs.pairs) // len(conditions))
        return [(pairs.pairs[n * step % len(pairs.pairs)], name) for n, name in enumerate(conditions)]
    many = min(count, len(pairs.pairs))
    return [(pairs.pairs[round(n)], "") for n in np.linspace(0, len(pairs.pairs) - 1, many)]


def make_example(pair: Pair, condition: str, rows: Sequence[Row]) -> Example:
    """The sources of a pair, what is given to the methods, and what the shown rows make of it."""
    visible, infrared = read_pair(pair)
    inputs = InputPair(pair.stem, condition, visible, infrared)
    given = inputs.pair
    cells = [Cell("visible", given[0], "source"), Cell("infrared", _colour(given[1]), "source")]
    if condition:
        cells.insert(0, Cell("clean visible", visible, "source"))
    for row in rows:
        if not row.is_control:
            cells.append(Cell(row.name, inputs.fused(row), "method", row.name))
    for row in rows:
        if row.is_control and (row.preprocessed or row.name in SHOWN_CONTROLS):
            cells.append(Cell(row.name, inputs.fused(row), "control", row.name))
    return Example(pair.stem, condition, zoom_window(visible, infrared), tuple(cells))


def zoom_window(visible: np.ndarray, infrared: np.ndarray) -> Window:
    """The place where the infrared image shows most that the visible one does not: something warm with edges.

    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    """
    height, width = infrared.shape
    grey = cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)
    smooth = [cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2) for image in (grey, infrared)]
    apart = np.maximum(_standardised(smooth[1]) - _standardised(smooth[0]), 0)
    edges = cv2.magnitude(cv2.Sobel(smooth[1], cv2.CV_32F, 1, 0), cv2.Sobel(smooth[1], cv2.CV_32F, 0, 1))
    telling = apart * cv2.GaussianBlur(edges, (0, 0), max(2.0, width / 60))
    across, down = max(8, width // ZOOM), max(8, height // ZOOM)
    sums = cv2.boxFilter(telling, -1, (across, down), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    sums = sums[: height - down + 1, : width - across + 1]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return Window(int(left), int(top), across, down)


def sheets(examples: Sequence[Example], title: str) -> dict[str, np.ndarray]:
    """Contact sheets by name (:data:`SHEETS`) of all examples, uint8 [H, W, 3] RGB; one row each example."""
    columns = list(dict.fromkeys(cell.name for example in examples for cell in example.cells))
    labels = [f"{example.condition}  {example.stem}".strip() for example in examples]
    whole, parts = [], []
    for example in examples:
        by_name = {cell.name: cell.image for cell in example.cells}
        whole.append([by_name.get(name) for name in columns])
        parts.append([None if name not in by_name else example.window.cut(by_name[name]) for name in columns])
    titles = (title, f"{title}, details")
    return {
        name: contact_sheet(rows, columns, labels=labels, title=line, cell_width=260)
        for name, rows, line in zip(SHEETS, (whole, parts), titles, strict=True)
    }


def embedded(image: np.ndarray, window: Window | None = None) -> str:
    """An image as a ``data:`` address (JPEG), at most 460 pixels wide, with the detail's frame drawn in it."""
    scale = min(1.0, _CELL / image.shape[1])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image.copy()
    if window:
        corners = [
            (round(x * scale), round(y * scale))
            for x, y in (
                (window.left, window.top),
                (window.left + window.width - 1, window.top + window.height - 1),
            )
        ]
        cv2.rectangle(small, corners[0], corners[1], _FRAME, 2, cv2.LINE_AA)
    return _data_address(small, 86)


def embedded_detail(image: np.ndarray, window: Window) -> str:
    """The detail as a ``data:`` address (JPEG), enlarged without smoothing beyond bicubic."""
    part = window.cut(image)
    scale = _CELL / part.shape[1]
    return _data_address(cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), 88)


def _data_address(image: np.ndarray, quality: int) -> str:
    _, coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")


def _standardised(image: np.ndarray) -> np.ndarray:
    return (image - image.mean()) / max(float(image.std()), 1.0)


def _colour(grey: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
