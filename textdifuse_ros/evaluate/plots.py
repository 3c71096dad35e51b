"""Plots of the report as inline SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from textdifuse_ros.evaluate.statistics import Interval

_LABEL = 104
_WIDTH = 340
_LINE = 19
_TOP = 30
_BOTTOM = 22


@dataclass(frozen=True)
class Mark:
    """One line of an interval plot.

    :ivar name: name of the row
    :ivar interval: mean and interval
    :ivar kind: CSS class that sets the color, ``method`` or ``control``
    """

    name: str
    interval: Interval
    kind: str


def interval_plot(title: str, hint: str, marks: Sequence[Mark], digits: int) -> str:
    """Draw means as points and intervals as bars, one line per row, on one axis.

    :param title: name of the metric
    :param hint: which direction is better, printed right of the title
    :param marks: the lines; one with a NaN mean gets its name only
    :param digits: decimals in the tooltips
    :returns: an ``svg`` element; its colors come from the CSS classes of the page
    """
    shown = [mark for mark in marks if not math.isnan(mark.interval.mean)]
    height = _TOP + _LINE * len(marks) + _BOTTOM
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f'<text class="plot-title" x="0" y="14">{escape(title)}</text>',
        f'<text class="plot-hint" x="{_WIDTH}" y="14" text-anchor="end">{escape(hint)}</text>',
    ]
    if shown:
        low, high, ticks = _axis([end for m in shown for end in (m.interval.low, m.interval.mean, m.interval.high)])
        for tick in ticks:
            x = _place(tick, low, high)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - _BOTTOM}"/>')
            parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 7}" text-anchor="middle">{_number(tick)}</text>')
    for index, mark in enumerate(marks):
        y = _TOP + _LINE * index + _LINE / 2 - 2
        parts.append(
            f'<text class="plot-label {mark.kind}" x="{_LABEL - 10}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(mark.name)}</text>"
        )
        if mark in shown:
            parts.append(_draw_mark(mark, y, low, high, digits))
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Point:
    """One row of a scatter plot.

    :ivar name: name of the row
    :ivar x: horizontal value
    :ivar y: vertical value
    :ivar kind: CSS class that sets the color, ``method`` or ``control``
    """

    name: str
    x: float
    y: float
    kind: str


def scatter_plot(title: str, x_label: str, y_label: str, points: Sequence[Point]) -> str:
    """Draw rows as named points over two metrics.

    :param title: heading
    :param x_label: name of the horizontal axis, and which direction is better
    :param y_label: likewise for the vertical axis
    :param points: the rows; those with NaN are left out
    :returns: an ``svg`` element
    """
    points = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    left, right, top, bottom = 34, _WIDTH - 78, 40, 236
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} 266" role="img" aria-label="{escape(title)}">',
        f'<text class="plot-title" x="0" y="14">{escape(title)}</text>',
        f'<text class="plot-hint" x="0" y="31">{escape(y_label)}</text>',
        f'<text class="plot-hint" x="{_WIDTH}" y="{bottom + 16}" text-anchor="end">{escape(x_label)}</text>',
    ]
    if not points:
        return "".join([*parts, "</svg>"])
    low_x, high_x, ticks_x = _axis([point.x for point in points])
    low_y, high_y, ticks_y = _axis([point.y for point in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - low_x) / (high_x - low_x), (y - low_y) / (high_y - low_y)
        return left + across * (right - left), bottom - up * (bottom - top)

    for tick in ticks_x:
        x, _ = place(tick, low_y)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(tick)}</text>')
    for tick in ticks_y:
        _, y = place(low_x, tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    parts += _draw_points([(point, *place(point.x, point.y)) for point in points])
    return "".join([*parts, "</svg>"])


def _draw_points(points: Sequence[tuple[Point, float, float]]) -> list[str]:
    """Draw the points of a scatter plot; names that would overlap are moved down."""
    parts = []
    taken: list[tuple[float, float]] = []
    for point, x, y in sorted(points, key=lambda item: item[2]):
        at = y
        for other_x, other_y in taken:
            if abs(other_x - x) < 70 and at < other_y + 11:
                at = other_y + 11
        taken.append((x, at))
        parts.append(f'<g class="mark {point.kind}"><circle cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>')
        parts.append(
            f'<text class="plot-label {point.kind}" x="{x + 7:.1f}" y="{at + 4:.1f}">{escape(point.name)}</text>'
        )
    return parts


def _draw_mark(mark: Mark, y: float, low: float, high: float, digits: int) -> str:
    middle = _place(mark.interval.mean, low, high)
    ends = (mark.interval.low, mark.interval.high)
    words = f"{mark.name}: {mark.interval.mean:.{digits}f}"
    bar = ""
    if not any(math.isnan(end) for end in ends):
        words += f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
        left, right = (_place(end, low, high) for end in ends)
        bar = f'<line class="bar" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    point = f'<circle cx="{middle:.1f}" cy="{y:.1f}" r="3.6"/>'
    return f'<g class="mark {mark.kind}"><title>{escape(words)}</title>{bar}{point}</g>'


def _place(value: float, low: float, high: float) -> float:
    return _LABEL + (value - low) / (high - low) * (_WIDTH - _LABEL - 12)


def _number(tick: float) -> str:
    return f"{round(tick, 6):g}"


def _axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends and round ticks of an axis that spans all finite values."""
    ends = [value for value in values if math.isfinite(value)]
    low, high = min(ends), max(ends)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    # The axis does not extend to the outermost ticks: that could leave half of the plot empty.
    margin = (high - low) * 0.04
    ticks = [step * n for n in range(first, last + 1) if low - margin <= step * n <= high + margin]
    return low - margin, high + margin, ticks
