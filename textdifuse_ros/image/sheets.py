"""Images for display: 8-bit conversion, and labeled contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError
from textdifuse_ros.image.thermal import to_uint8

_PAPER = (24, 24, 24)
_INK = (235, 235, 235)
_FAINT = (150, 150, 150)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
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

    Every image is scaled to the column width; a row is as high as its highest image.

    :param rows: rows of uint8 or uint16 images, [H, W] or [H, W, 3] RGB, of any size; None leaves a cell empty
    :param columns: column names; OpenCV draws ASCII only, other characters are written as escapes
    :param labels: row names, drawn into the first cell of each row; empty for none
    :param title: line at the top; empty for none
    :param cell_width: column width [pixel]
    :returns: uint8 [H, W, 3] RGB
    :raises ImageError: no rows, a row that does not match ``columns``, or a cell that is not an image
    """
    if not rows or not columns:
        raise ImageError("a contact sheet", "of at least one row and one column", f"{len(rows)} rows")
    if labels and len(labels) != len(rows):
        raise ImageError("the labels of a contact sheet", f"as many as its rows ({len(rows)})", len(labels))
    title, columns, labels = _ascii(title), [_ascii(name) for name in columns], [_ascii(label) for label in labels]
    width = len(columns) * (cell_width + _GAP) + _GAP
    bands = [_band(width, title, _GAP, 0.6)] if title else []
    header = _band(width, "", 0, 0.5)
    for index, name in enumerate(columns):
        _write(header, name, _GAP + index * (cell_width + _GAP) + 2, 0.5, cell_width)
    bands.append(header)
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ImageError(f"row {number} of a contact sheet", f"{len(columns)} images long", len(row))
        bands.append(_row(row, labels[number] if labels else "", cell_width))
    return np.concatenate(bands)


def _ascii(text: str) -> str:
    """Escape text for OpenCV, which draws ASCII only and aborts the process on invalid UTF-8."""
    return text.encode("ascii", "backslashreplace").decode()


def _row(row: Sequence[np.ndarray | None], label: str, cell_width: int) -> np.ndarray:
    cells = [None if image is None else _fit(image, cell_width) for image in row]
    height = max([cell.shape[0] for cell in cells if cell is not None], default=24)
    band = np.full((height + _GAP, len(row) * (cell_width + _GAP) + _GAP, 3), _PAPER, np.uint8)
    for index, cell in enumerate(cells):
        left = _GAP + index * (cell_width + _GAP)
        if cell is None:
            _write(band[:24], "(none)", left + 4, 0.45, cell_width, _FAINT)
        else:
            band[: cell.shape[0], left : left + cell_width] = cell
    if label:
        size, _ = cv2.getTextSize(label, _FONT, 0.42, 1)
        band[: size[1] + 10, _GAP : _GAP + min(size[0] + 8, cell_width)] = _PAPER
        _write(band[: size[1] + 10], label, _GAP + 4, 0.42, cell_width)
    return band


def _fit(image: np.ndarray, width: int) -> np.ndarray:
    """Scale an image to uint8 [h, width, 3]."""
    image = to_display(image, "an image of a contact sheet")
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def _band(width: int, text: str, left: int, scale: float) -> np.ndarray:
    band = np.full((round(52 * scale), width, 3), _PAPER, np.uint8)
    if text:
        _write(band, text, left, scale, width - 2 * left)
    return band


def _write(band: np.ndarray, text: str, left: int, scale: float, room: int, color: tuple[int, int, int] = _INK) -> None:
    """Draw a vertically centered line of text, shrunk to fit into ``room`` [pixel]."""
    (length, height), _ = cv2.getTextSize(text, _FONT, scale, 1)
    if length > room:
        scale *= room / length
        (length, height), _ = cv2.getTextSize(text, _FONT, scale, 1)
    cv2.putText(band, text, (left, (band.shape[0] + height) // 2), _FONT, scale, color, 1, cv2.LINE_AA)
