"""Images for display: 8-bit conversion, and labeled contact sheets."""

from __future__ import annotations

import re
from collections.abc import Sequence

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError
from textdifuse_ros.image.labels import SMALLEST, draw_text, letter_height, plain_text, text_width, wrap_text
from textdifuse_ros.image.thermal import to_uint8

_PAPER = (24, 24, 24)
_INK = (235, 235, 235)
_FAINT = (150, 150, 150)
_GAP = 4


def to_display(image: np.ndarray, what: str = "an image to show") -> np.ndarray:
    """Convert an image for display; 16-bit infrared is stretched by :func:`.thermal.to_uint8`.

    :param image: uint8 or uint16, [H, W] or [H, W, 3] RGB, not empty
    :param what: name of the image in the error message
    :returns: uint8 [H, W, 3] RGB
    :raises ImageError: wrong type or shape
    """
    shape_ok = getattr(image, "ndim", 0) == 2 or (getattr(image, "ndim", 0) == 3 and image.shape[2] == 3)
    if not shape_ok or image.dtype.name not in ("uint8", "uint16") or 0 in image.shape:
        raise ImageError(what, "uint8 or uint16 [H, W] or [H, W, 3] (RGB)", describe(image))
    image = to_uint8(image, what)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    columns: Sequence[str],
    *,
    labels: Sequence[str] = (),
    title: str = "",
    cell_width: int = 420,
) -> np.ndarray:
    """Arrange images in a table with column names.

    Every image is scaled to the column width; a row is as high as its highest image. The letters stand beside the
    images and are at least 2.5 % of the sheet's height, as far as no word is wider than its column.

    :param rows: rows of uint8 or uint16 images, [H, W] or [H, W, 3] RGB, of any size; None leaves a cell empty
    :param columns: column names; OpenCV draws ASCII only, other characters are written as escapes
    :param labels: row names, drawn above each row; empty for none
    :param title: line at the top; empty for none
    :param cell_width: column width [pixel]
    :returns: uint8 [H, W, 3] RGB
    :raises ImageError: no rows, a row that does not match ``columns``, or a cell that is not an image
    """
    if not rows or not columns:
        raise ImageError("a contact sheet", "of at least one row and one column", f"{len(rows)} rows")
    if labels and len(labels) != len(rows):
        raise ImageError("the labels of a contact sheet", f"as many as its rows ({len(rows)})", len(labels))
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ImageError(f"row {number} of a contact sheet", f"{len(columns)} images long", len(row))
    title, columns, labels = plain_text(title), [plain_text(n) for n in columns], [plain_text(n) for n in labels]
    width = len(columns) * (cell_width + _GAP) + _GAP
    bands = [_row(row, cell_width) for row in rows]

    def with_text(letters: int) -> list[np.ndarray]:
        shown = [_lines([(_GAP, title)], width, width, letters)] if title else []
        lefts = (_GAP + index * (cell_width + _GAP) for index in range(len(columns)))
        shown.append(_lines(list(zip(lefts, columns, strict=True)), width, cell_width, letters))
        for number, row in enumerate(bands):
            shown += [_lines([(_GAP, labels[number])], width, width, letters), row] if labels else [row]
        return shown

    # The text adds to the height that its size depends on, so the size is found step by step.
    most = min(_largest(columns, cell_width), _largest([title, *labels], width))
    letters, parts = SMALLEST, with_text(SMALLEST)
    while letters < (needed := min(letter_height(sum(len(part) for part in parts)), most)):
        letters, parts = needed, with_text(needed)
    return np.concatenate(parts)


def _row(row: Sequence[np.ndarray | None], cell_width: int) -> np.ndarray:
    cells = [None if image is None else _fit(image, cell_width) for image in row]
    height = max([cell.shape[0] for cell in cells if cell is not None], default=24)
    band = np.full((height + _GAP, len(row) * (cell_width + _GAP) + _GAP, 3), _PAPER, np.uint8)
    for index, cell in enumerate(cells):
        left = _GAP + index * (cell_width + _GAP)
        if cell is None:
            draw_text(band, "-", left + 4, min(height, 16), SMALLEST, _FAINT)
        else:
            band[: cell.shape[0], left : left + cell_width] = cell
    return band


def _fit(image: np.ndarray, width: int) -> np.ndarray:
    """Scale an image to uint8 [h, width, 3]."""
    image = to_display(image, "an image of a contact sheet")
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def _largest(texts: Sequence[str], room: int) -> int:
    """The largest letters, at most a sixth of ``room``, at which no word is wider than that [pixel]."""
    words = [word for text in texts for word in re.split(r"(?<=[ +_-])", text) if word]
    largest = max(SMALLEST, room // 6)
    while largest > SMALLEST and any(text_width(word, largest) > room - 2 * _GAP for word in words):
        largest -= 1
    return largest


def _lines(texts: Sequence[tuple[int, str]], width: int, room: int, letters: int) -> np.ndarray:
    """Draw texts beside one another, each wrapped to ``room``.

    :param texts: left end [pixel] and text of each
    :param letters: height of the capital letters [pixel]
    """
    wrapped = [(left, wrap_text(text, letters, room - 2 * _GAP)) for left, text in texts]
    pitch = round(1.4 * letters)
    band = np.full((pitch * max(len(lines) for _, lines in wrapped) + letters // 4, width, 3), _PAPER, np.uint8)
    for left, lines in wrapped:
        for number, line in enumerate(lines):
            draw_text(band, line, left + 2, number * pitch + round(1.2 * letters), letters, _INK)
    return band
