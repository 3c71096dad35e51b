"""An evaluation as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.methods import condition_meaning
from textdifuse_ros.evaluate.results import UNDEFINED, Differences, Evaluation, Table, in_order, metric_of
from textdifuse_ros.evaluate.statistics import Interval
from textdifuse_ros.image.files import write_atomic


def to_json(evaluation: Evaluation) -> str:
    """Format means and intervals of an ``evaluation`` by row and metric; an undefined figure is null.

    ``{"rows": {ROW: {METRIC: {"mean", "low", "high"}}}, "pairs": N, ...}``; ``"undefined"`` is the number of images
    for which a metric is undefined, if any. ``"against"`` contains the mean paired differences of the methods to
    other rows, with the ``"p"`` of :func:`.signed_rank_p`. The degraded panel adds ``"conditions": {NAME: {"rows":
    ...}}``; its ``rows`` are over those in ``"averaged"``. Parts of the images are in ``"parts": {NAME: {"pairs":
    N, "rows": ..., "against": ...}}``.
    """
    content: dict[str, Any] = {
        "panel": evaluation.panel,
        "set": evaluation.set_name,
        "pairs": evaluation.pairs,
        "about": evaluation.about,
        **_plain(evaluation.table),
    }
    content["against"] = _differences(evaluation.against)
    if evaluation.conditions:
        content["averaged"] = list(evaluation.averaged)
        content["conditions"] = {name: _plain(table) for name, table in evaluation.conditions.items()}
    if evaluation.parts:
        content["parts"] = {
            name: {"pairs": part.pairs, **_plain(part.table), "against": _differences(part.against)}
            for name, part in evaluation.parts.items()
        }
    return json_text(content)


def to_csv(evaluation: Evaluation) -> str:
    """Format an ``evaluation``, one line per image or object (``STEM#NUMBER``), row and condition; NaN is ``nan``."""
    metrics = in_order(name for record in evaluation.records for name in record.values)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # The column "picture" keeps its published name: users' scripts read it.
    writer.writerow(["set", "condition", "row", "picture", *metrics])
    for record in evaluation.records:
        figures = [f"{record.values[name]:.6g}" if name in record.values else "" for name in metrics]
        writer.writerow([evaluation.set_name, record.condition, record.row, record.name, *figures])
    return text.getvalue()


def to_markdown(evaluation: Evaluation) -> str:
    """Format the summary table of an ``evaluation``, in the degraded panel also one table per condition."""
    conditions = f", mean over {len(evaluation.averaged)} conditions" if evaluation.conditions else ""
    title = f"# {evaluation.set_name}, panel {evaluation.panel}: {evaluation.pairs} pairs{conditions}"
    parts = [title, *(f"- {name}: {text}" for name, text in evaluation.about.items())]
    over = f"{evaluation.figures} [bootstrap 95 % interval over images]"
    parts += ["", f"{over}; the best of a column is bold.", *([UNDEFINED] if evaluation.partly_undefined else [])]
    parts += ["", markdown_table(evaluation.table, intervals=True), "", verdict(evaluation)]
    if evaluation.paired:
        parts += ["", "Differences:", "", *_difference_lines(evaluation.paired)]
    for name, table in evaluation.conditions.items():
        meaning = condition_meaning(name)
        parts += ["", f"## {name}", "", meaning, "", markdown_table(table), "", verdict(evaluation, table)]
    for name, part in evaluation.parts.items():
        parts += ["", f"## {name}: {part.pairs} pairs", "", markdown_table(part.table, intervals=True)]
        parts += ["", verdict(evaluation, part.table), "", "Differences:", "", *_difference_lines(part.against)]
    if evaluation.notes:
        parts += ["", *(f"- {note}" for note in evaluation.notes)]
    return "\n".join(parts) + "\n"


def markdown_table(table: Table, *, intervals: bool = False) -> str:
    """Format a table, aligned so that the source is readable.

    :param table: rows and metrics
    :param intervals: whether to print the intervals
    """
    lines = [["row", *table.metrics]]
    for row, metrics in table.rows.items():
        cells = [row.replace("|", "\\|")]
        for name in table.metrics:
            cell = format_figure(metrics.get(name), name, intervals=intervals)
            cells.append(f"**{cell}**" if table.leaders.get(name) == row else cell)
        lines.append(cells)
    if table.proves_nothing:
        lines.append(["a control leads", *("yes" if name in table.proves_nothing else "" for name in table.metrics)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join("| " + " | ".join(_pad(line, widths)) + " |" for line in lines)


def verdict(evaluation: Evaluation, table: Table | None = None) -> str:
    """Summarize what a table proves, in one or two sentences.

    :param evaluation: the results
    :param table: one of its tables; None for the main one
    """
    table = table or evaluation.table
    led_by_control = ", ".join(table.proves_nothing)
    led_by_method = [f"{name} ({table.leaders[name]})" for name in table.leaders if name not in table.proves_nothing]
    sentences = []
    if led_by_control:
        sentences.append(f"A control ranks first{evaluation.led_by_control} {led_by_control}.")
    if led_by_method:
        sentences.append(f"A method ranks first in: {', '.join(led_by_method)}.")
    return " ".join(sentences)


def format_figure(interval: Interval | None, metric: str, *, intervals: bool = False) -> str:
    """Format a figure: ``7.03 [6.95, 7.12]``, or ``7.03 (3 of 4)`` if it is defined for 3 of 4 images.

    :param interval: the figure; None gives a dash
    :param metric: name of the metric, for the number of digits
    :param intervals: whether to print the interval
    :returns: the text; NaN if the figure is defined for no image
    """
    if interval is None:
        return "-"
    digits = metric_of(metric).digits
    if math.isnan(interval.mean):
        return "NaN"
    text = f"{interval.mean:.{digits}f}"
    if intervals and not math.isnan(interval.low):
        text += f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    return text + format_coverage(interval)


def format_coverage(interval: Interval) -> str:
    """Format for how many images the ``interval`` is defined: `` (3 of 4)``, or nothing if for all."""
    total = interval.defined + interval.undefined
    return f" ({interval.defined} of {total})" if interval.undefined else ""


def write_text(path: Path, text: str) -> None:
    """Write a file and create its folder; an existing file is replaced atomically.

    Links, pipes and terminals (``/dev/stdout`` may be any of them) are written to, not replaced. Image names that are
    not UTF-8 are written with escapes (``caf\\udce9``), so that the file is UTF-8.

    :param path: the file
    :param text: its new content
    :raises FileError: the file cannot be written
    """
    data = text.encode("utf-8", "backslashreplace")
    if not path.is_symlink() and (not path.exists() or path.is_file()):
        write_atomic(path, data)
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise FileError(str(path), "a file that can be written", error.strerror or error) from error


def json_text(content: Any) -> str:
    """Format ``content`` as strictly valid JSON: a number that is not finite becomes null."""
    return json.dumps(_strict(content), indent=1, allow_nan=False) + "\n"


def _strict(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _strict(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _plain(table: Table) -> dict[str, Any]:
    return {
        "rows": {row: _row(metrics) for row, metrics in table.rows.items()},
        "leaders": table.leaders,
        "proves_nothing": list(table.proves_nothing),
    }


def _differences(against: Differences) -> dict[str, Any]:
    return {other: {row: _row(metrics) for row, metrics in rows.items()} for other, rows in against.items()}


def _difference_lines(against: Differences) -> list[str]:
    """Format differences as a list, a line for each pair of rows."""
    return [
        f"- {row} minus {other}: "
        + ", ".join(f"{name} {format_figure(figure, name, intervals=True)}" for name, figure in metrics.items())
        for other, rows in against.items()
        for row, metrics in rows.items()
    ]


def _row(metrics: dict[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: _figures(interval) for name, interval in metrics.items()}


def _figures(interval: Interval) -> dict[str, float]:
    figures = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    if not math.isnan(interval.p):
        figures["p"] = interval.p
    return {**figures, "undefined": interval.undefined} if interval.undefined else figures


def _pad(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(widths[0]) if not n else cell.rjust(widths[n]) for n, cell in enumerate(line)]
