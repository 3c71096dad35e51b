"""Example images of a report: one scene by every method, as a whole and as an enlarged detail."""

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
"""Controls whose images are shown; the tables contain all."""
ZOOM = 4
"""Ratio of the image's width to that of the detail."""
SHEETS = ("pictures", "details")
"""File names of the contact sheets, without suffix; "pictures" is published and stays."""
_CELL = 460
_FRAME = (255, 196, 0)


@dataclass(frozen=True)
class Cell:
    """One image of an example.

    :ivar name: caption
    :ivar image: uint8 [H, W, 3] RGB
    :ivar role: ``source``, ``control`` or ``method``
    :ivar row: name of the row in the tables, or "" for a source
    """

    name: str
    image: np.ndarray
    role: str
    row: str = ""


@dataclass(frozen=True)
class Window:
    """The rectangle that is shown in detail [pixels]."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return this part of an ``image`` [H, W, ...] as a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Example:
    """One scene under one condition.

    :ivar stem: name of the pair without suffix
    :ivar condition: name of the degradation, "" outside the degraded panel
    :ivar window: the detail
    :ivar cells: the images to show, in order
    """

    stem: str
    condition: str
    window: Window
    cells: tuple[Cell, ...]


def choose_examples(pairs: PairSet, conditions: Sequence[str], count: int) -> list[tuple[Pair, str]]:
    """Choose the pairs to show: evenly spread ones, or a different one per condition.

    :param pairs: the pairs measured
    :param conditions: names of the degradations; () outside the degraded panel
    :param count: maximum number if there are no conditions; 0 shows none in either case
    :returns: pairs with the name of their condition, or ""
    """
    if conditions and count:
        step = max(1, len(pairs.pairs) // len(conditions))
        return [(pairs.pairs[n * step % len(pairs.pairs)], name) for n, name in enumerate(conditions)]
    shown = min(count, len(pairs.pairs))
    return [(pairs.pairs[round(n)], "") for n in np.linspace(0, len(pairs.pairs) - 1, shown)]


def make_example(pair: Pair, condition: str, rows: Sequence[Row]) -> Example:
    """Collect the sources of a pair, degraded under a condition, and the fused images.

    :param pair: the files
    :param condition: name of the degradation, or ""
    :param rows: rows of the tables; of the controls only some are shown
    """
    visible, infrared = read_pair(pair)
    inputs = InputPair(pair.stem, condition, visible, infrared)
    cells = [Cell("visible", inputs.pair[0], "source"), Cell("infrared", _to_rgb(inputs.pair[1]), "source")]
    if condition:
        cells.insert(0, Cell("clean visible", visible, "source"))
    for row in rows:
        if not row.is_control:
            cells.append(Cell(row.name, inputs.fused_image(row), "method", row.name))
    for row in rows:
        if row.is_control and (row.preprocessed or row.name in SHOWN_CONTROLS):
            cells.append(Cell(row.name, inputs.fused_image(row), "control", row.name))
    return Example(pair.stem, condition, zoom_window(visible, infrared), tuple(cells))


def zoom_window(visible: np.ndarray, infrared: np.ndarray) -> Window:
    """Find the rectangle where the infrared image shows the most that is not in the visible one: warm, with edges.

    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    """
    height, width = infrared.shape
    grey = cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)
    smooth = [cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2) for image in (grey, infrared)]
    warmer = np.maximum(_standardize(smooth[1]) - _standardize(smooth[0]), 0)
    edges = cv2.magnitude(cv2.Sobel(smooth[1], cv2.CV_32F, 1, 0), cv2.Sobel(smooth[1], cv2.CV_32F, 0, 1))
    saliency = warmer * cv2.GaussianBlur(edges, (0, 0), max(2.0, width / 60))
    window_width, window_height = max(8, width // ZOOM), max(8, height // ZOOM)
    sums = cv2.boxFilter(saliency, -1, (window_width, window_height), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    sums = sums[: height - window_height + 1, : width - window_width + 1]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return Window(int(left), int(top), window_width, window_height)


def make_sheets(examples: Sequence[Example], title: str) -> dict[str, np.ndarray]:
    """Render the contact sheets, one row per example.

    :param examples: the scenes
    :param title: printed at the top
    :returns: uint8 [H, W, 3] RGB by name, see :data:`SHEETS`
    """
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


def embed_image(image: np.ndarray, window: Window | None = None) -> str:
    """Encode an image as a ``data:`` URL (JPEG), at most 460 pixels wide.

    :param image: uint8 [H, W, 3] RGB
    :param window: the detail, drawn as a frame; None draws none
    """
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
    return _data_url(small, 86)


def embed_detail(image: np.ndarray, window: Window) -> str:
    """Encode the detail ``window`` of an ``image``, uint8 [H, W, 3] RGB, as a ``data:`` URL (JPEG), bicubic."""
    part = window.cut(image)
    scale = _CELL / part.shape[1]
    return _data_url(cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), 88)


def _data_url(image: np.ndarray, quality: int) -> str:
    _, coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")


def _standardize(image: np.ndarray) -> np.ndarray:
    return (image - image.mean()) / max(float(image.std()), 1.0)


def _to_rgb(grey: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
