"""An evaluation as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textdifuse_ros.data.conditions import CONDITIONS
from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.results import METRICS, REFERENCES, UNDEFINED, Evaluation, Table, differences
from textdifuse_ros.evaluate.statistics import Interval
from textdifuse_ros.image.files import write_atomic


def to_json(evaluation: Evaluation) -> str:
    """Means and intervals by row and metric; what is not defined is null.

    ``{"rows": {ROW: {METRIC: {"mean", "low", "high"}}}, "pairs": N, ...}``; a metric that was not defined for some
    images says for how many (``"undefined"``). ``against`` holds for each of two controls the mean differences of
    the methods to it, image by image. The degraded panel adds
    ``"conditions": {NAME: {"rows": ...}}``, and its ``rows`` are over all conditions.
    """
    content: dict[str, Any] = {
        "panel": evaluation.panel,
        "set": evaluation.set_name,
        "pairs": evaluation.pairs,
        "about": evaluation.about,
        **_plain(evaluation.table),
    }
    content["against"] = {
        reference: {
            row.name: _row(differences(evaluation.records, row.name, reference))
            for row in evaluation.rows
            if not row.is_control
        }
        for reference in REFERENCES
    }
    if evaluation.conditions:
        content["conditions"] = {name: _plain(table) for name, table in evaluation.conditions.items()}
    return json_text(content)


def to_csv(evaluation: Evaluation) -> str:
    """One line for each image (or object, ``STEM#NUMBER``), row and condition; what is not defined is ``nan``."""
    metrics = [name for name in METRICS if any(name in record.values for record in evaluation.records)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # "picture" holds the image: the name is published, and users' scripts read it.
    writer.writerow(["set", "condition", "row", "picture", *metrics])
    for record in evaluation.records:
        figures = [f"{record.values[name]:.6g}" if name in record.values else "" for name in metrics]
        writer.writerow([evaluation.set_name, record.condition, record.row, record.name, *figures])
    return text.getvalue()


def to_markdown(evaluation: Evaluation) -> str:
    """The summary table, in the degraded panel one for each condition too."""
    many = f", mean over {len(evaluation.conditions)} conditions" if evaluation.conditions else ""
    title = f"# {evaluation.set_name}, panel {evaluation.panel}: {evaluation.pairs} pairs{many}"
    parts = [title, *(f"- {name}: {text}" for name, text in evaluation.about.items())]
    over = f"Mean over the {evaluation.mean_over} [bootstrap 95 % interval over images]"
    parts += ["", f"{over}; the best of a column is bold.", *([UNDEFINED] if evaluation.partly_undefined else [])]
    parts += ["", markdown_table(evaluation.table, intervals=True), "", verdict(evaluation.table)]
    for name, table in evaluation.conditions.items():
        parts += ["", f"## {name}", "", CONDITIONS[name].meaning, "", markdown_table(table), "", verdict(table)]
    if evaluation.notes:
        parts += ["", *(f"- {note}" for note in evaluation.notes)]
    return "\n".join(parts) + "\n"


def markdown_table(table: Table, *, intervals: bool = False) -> str:
    """Rows by metrics, aligned so that it can be read as it stands."""
    lines = [["row", *table.metrics]]
    for row, metrics in table.rows.items():
        cells = [row.replace("|", "\\|")]
        for name in table.metrics:
            cell = show(metrics.get(name), name, intervals=intervals)
            cells.append(f"**{cell}**" if table.leaders.get(name) == row else cell)
        lines.append(cells)
    if table.proves_nothing:
        lines.append(["a control leads", *("yes" if name in table.proves_nothing else "" for name in table.metrics)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join("| " + " | ".join(_pad(line, widths)) + " |" for line in lines)


def verdict(table: Table) -> str:
    """What the table proves, in one or two sentences."""
    nothing = ", ".join(table.proves_nothing)
    telling = [f"{name} ({table.leaders[name]})" for name in table.leaders if name not in table.proves_nothing]
    sentences = []
    if nothing:
        sentences.append(f"A control comes first, so these prove nothing for this set: {nothing}.")
    if telling:
        sentences.append(f"A method comes first in: {', '.join(telling)}.")
    return " ".join(sentences)


def show(interval: Interval | None, metric: str, *, intervals: bool = False) -> str:
    """A figure as the tables show it: ``7.03 [6.95, 7.12]``, ``7.03 (3 of 4)`` where it is defined for so many only.

    A dash stands where there is none, NaN where it is defined for none.
    """
    if interval is None:
        return "-"
    digits = METRICS[metric].digits
    if math.isnan(interval.mean):
        return "NaN"
    text = f"{interval.mean:.{digits}f}"
    if intervals and not math.isnan(interval.low):
        text += f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    return text + coverage(interval)


def coverage(interval: Interval) -> str:
    """`` (3 of 4)``, for how many a figure is defined; nothing where for all."""
    total = interval.defined + interval.undefined
    return f" ({interval.defined} of {total})" if interval.undefined else ""


def write_text(path: Path, text: str) -> None:
    """Write a file, its folder too; an existing one is replaced as a whole or not at all.

    What is written to and not replaced: where a link points to, a pipe, a terminal (``/dev/stdout`` may be any of
    them). A name of an image that is no UTF-8 is written with escapes (``caf\\udce9``), so that the file is UTF-8.

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
    """JSON that every reader takes: a figure that is not finite is null."""
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


def _row(metrics: dict[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: _figures(interval) for name, interval in metrics.items()}


def _figures(interval: Interval) -> dict[str, float]:
    figures = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {**figures, "undefined": interval.undefined} if interval.undefined else figures


def _pad(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(widths[0]) if not n else cell.rjust(widths[n]) for n, cell in enumerate(line)]
