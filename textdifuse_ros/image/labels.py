"""Text on images: large enough for the shown height, legible on any ground, never over other text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

SHARE = 0.027
"""Height of capital letters as a share of the shown height: at least 2.5 %, also after rounding and scaling."""
SMALLEST = 8
"""Height of the smallest legible capital letters [pixel]."""
PLATE = (16, 16, 16)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_UNITS = 21  # height of a capital letter of the font at scale 1 [pixel]
_Box = tuple[int, int, int, int]


def letter_height(shown_height: float) -> int:
    """Height of the capital letters of labels [pixel].

    :param shown_height: height of what is shown at once, above 0 [pixel]
    """
    return max(SMALLEST, math.ceil(SHARE * shown_height))


def plain_text(text: str) -> str:
    """Escape what OpenCV's font has not: it draws ASCII only, and aborts the process on invalid UTF-8.

    :param text: any text
    """
    return text.encode("ascii", "backslashreplace").decode()


def text_width(text: str, height: int) -> int:
    """Width of a line of text [pixel].

    :param text: ASCII
    :param height: of the capital letters [pixel]
    """
    (width, _), _ = cv2.getTextSize(text, _FONT, height / _UNITS, _stroke(height))
    return int(width)


def draw_text(image: np.ndarray, text: str, left: int, baseline: int, height: int, color: tuple[int, ...]) -> None:
    """Draw a line of text.

    :param image: uint8 [H, W, 3] RGB, drawn into
    :param text: ASCII
    :param left: of the text [pixel]
    :param baseline: the row that the letters stand on [pixel]
    :param height: of the capital letters [pixel]
    :param color: RGB
    """
    cv2.putText(image, text, (left, baseline), _FONT, height / _UNITS, color, _stroke(height), cv2.LINE_AA)


def wrap_text(text: str, height: int, room: int) -> list[str]:
    """Break text into lines of at most ``room``, after a blank, ``+``, ``_`` or ``-`` where there is one.

    :param text: ASCII
    :param height: of the capital letters [pixel]
    :param room: width of the lines [pixel]
    :returns: at least one line; a single letter may be wider than ``room``
    """
    lines = []
    while len(text) > 1 and text_width(text, height) > room:
        fitting = next((n for n in range(len(text) - 1, 1, -1) if text_width(text[:n], height) <= room), 1)
        after = max(text.rfind(mark, 0, fitting + (mark == " ")) for mark in " +_-") + 1
        lines.append(text[: after or fitting].rstrip())
        text = text[after or fitting :].lstrip()
    return [*lines, text]


class LabelLayout:
    """Draws labels on plates into one image, so that none covers another.

    :param image: uint8 [H, W, 3] RGB, drawn into
    """

    def __init__(self, image: np.ndarray) -> None:
        self._image = image
        self._taken: list[_Box] = []
        self.height = letter_height(image.shape[0])
        """Height of the capital letters [pixel]."""

    def draw(self, text: str, box: Sequence[float] | np.ndarray, color: tuple[int, ...]) -> bool:
        """Draw a label at the nearest free place: above the box, below its upper edge, below it, or further away.

        :param text: any; what is wider than the image is cut
        :param box: left, top, right and bottom of what the label belongs to [pixel]
        :param color: of the letters, RGB
        :returns: False where no free place is left and nothing was drawn
        """
        rows, columns = self._image.shape[:2]
        margin = max(2, self.height // 3)
        text = _cut(plain_text(text), self.height, columns - 2 * margin)
        width, height = text_width(text, self.height) + 2 * margin, self.height + 2 * margin + self.height // 3
        if not text or height > rows:
            return False
        left = min(max(0, round(box[0])), max(0, columns - width))
        top, bottom = round(box[1]), round(box[3])
        first = [top - height - 1, top, bottom + 1]
        others = sorted(range(0, rows - height + 1, max(1, height // 2)), key=lambda row: abs(row - first[0]))
        for row in (*first, *others):
            place = (left, row, left + width, row + height)
            if 0 <= row <= rows - height and not any(_overlap(place, other) for other in self._taken):
                self._taken.append(place)
                self._image[row : row + height, left : left + width] = PLATE
                draw_text(self._image, text, left + margin, row + margin + self.height, self.height, color)
                return True
        return False


def _stroke(height: int) -> int:
    return max(1, round(height / 9))


def _cut(text: str, height: int, room: int) -> str:
    if text_width(text, height) <= room:
        return text
    while text and text_width(text + "...", height) > room:
        text = text[:-1]
    return text + "..." if text else ""


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
