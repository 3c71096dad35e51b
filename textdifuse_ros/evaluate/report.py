"""The report that people look at: verdict, tables, plots with intervals, images with details, definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from textdifuse_ros.data.conditions import CONDITIONS
from textdifuse_ros.evaluate import page
from textdifuse_ros.evaluate.images import SHEETS, Example, embedded, embedded_detail, sheets
from textdifuse_ros.evaluate.methods import Row
from textdifuse_ros.evaluate.plots import Mark, Point, interval_plot, scatter_plot
from textdifuse_ros.evaluate.results import METRICS, REFERENCES, UNDEFINED, Evaluation, Table, differences, first
from textdifuse_ros.evaluate.statistics import Interval
from textdifuse_ros.evaluate.tables import coverage, show, to_csv, to_json, to_markdown, write_text
from textdifuse_ros.image.files import write_png

PAGE = "index.html"
_HEATED = ("VIF_min", "Qabf", "SSIM", "PSNR_consistency", "dE00")
_CAPTIONED = ("VIF_min", "Qabf", "flicker")
_PLAIN, _HUE = (255, 255, 255), (120, 173, 232)


def write_report(folder: Path, evaluation: Evaluation, examples: Sequence[Example]) -> Path:
    """Write ``index.html``, the contact sheets and the tables into a folder; those of an earlier report are replaced.

    :returns: the page
    :raises FileError: a file cannot be written
    """
    if not examples and (folder / PAGE).is_file():  # the sheets of the report that was here show other images
        for name in SHEETS:
            (folder / f"{name}.png").unlink(missing_ok=True)
    if examples:
        for name, image in sheets(examples, f"{evaluation.set_name}, {evaluation.panel}").items():
            write_png(folder / f"{name}.png", image)
    write_text(folder / "summary.json", to_json(evaluation))
    write_text(folder / "summary.md", to_markdown(evaluation))
    write_text(folder / "images.csv", to_csv(evaluation))
    write_text(folder / PAGE, to_html(evaluation, examples))
    return folder / PAGE


def to_html(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    """The page as text."""
    sections = [_verdict(evaluation), _main_table(evaluation)]
    if evaluation.conditions:
        sections.append(_heat_tables(evaluation))
    if examples:
        sections.append(_images(evaluation, examples))
    sections += [_against(evaluation), _plots(evaluation)]
    if evaluation.conditions:
        sections.append(_condition_tables(evaluation))
    sections.append(_definitions(evaluation))
    many = f" under {len(evaluation.conditions)} known degradations" if evaluation.conditions else ""
    unit = {"video": "frames", "text": "images"}.get(evaluation.panel, "pairs")
    subtitle = f"Panel {evaluation.panel} over {evaluation.pairs} {unit}{many}"
    return page.page(f"Fusion on {evaluation.set_name}", subtitle, evaluation.about, filter(None, sections))


def _verdict(evaluation: Evaluation) -> str:
    table = evaluation.table
    methods = [row for row in evaluation.rows if not row.is_control]
    tiles = []
    for name in table.metrics:
        best = first(table.rows, methods, name)
        if not METRICS[name].better or not (best or name in table.leaders):
            continue
        leader = table.leaders.get(name, best)
        if name not in table.leaders:
            kind, what = "alone", "no other row has it"
        elif name not in table.proves_nothing:
            kind, what = "telling", "a method comes first"
        else:
            kind, what = "nothing", "a control comes first: proves nothing here"
            if best:
                what += f"; best method {escape(best)} {show(table.rows[best][name], name)}"
        tiles.append(
            f'<div class="tile {kind}"><b>{escape(name)}</b><span class="who">{escape(leader)}</span> '
            f'{show(table.rows[leader].get(name), name)}<div class="what">{what}</div></div>'
        )
    lead = (
        "Which row leads each metric. Where a control, which is a few lines without any learning, comes first, the "
        "metric says nothing about who fuses better on this set; look at the others, and at the images."
    )
    return page.section("What the figures can tell", lead, f'<div class="verdict">{"".join(tiles)}</div>')


def _main_table(evaluation: Evaluation) -> str:
    over = " and all conditions" if evaluation.conditions else ""
    lead = (
        f"Mean over the {evaluation.mean_over}{over}, below it the bootstrap 95 % interval over images. The best "
        "of each column is marked: blue for a method, yellow where a control reaches it. An arrow says which way is "
        "better."
    )
    if evaluation.partly_undefined:
        lead += f" {UNDEFINED}"
    return page.section("Results", lead, _table(evaluation.table, evaluation.rows, intervals=True))


def _table(table: Table, rows: Sequence[Row], *, intervals: bool) -> str:
    lines = []
    for row, kind in _ordered(rows):
        cells = [f"<td>{escape(row.name)}</td>"]
        for name in table.metrics:
            interval = table.rows[row.name].get(name)
            best = table.leaders.get(name) == row.name
            marks = f"best {'nothing' if name in table.proves_nothing else ''}" if best else ""
            cells.append(f'<td class="{marks}">{_figure(interval, name, intervals)}</td>')
        lines.append((kind, cells))
    return page.table(_head(table.metrics, table.proves_nothing), lines)


def _head(metrics: Sequence[str], nothing: Sequence[str] = ()) -> list[str]:
    cells = ["<th>row</th>"]
    for name in metrics:
        metric = METRICS[name]
        kind = "nothing" if name in nothing else ""
        cells.append(
            f'<th class="{kind}" title="{escape(metric.meaning)}">{escape(name).replace("_", "_<wbr>")}'
            f" {_arrow(name)}</th>"
        )
    return cells


def _figure(interval: Interval | None, name: str, intervals: bool) -> str:
    text = show(interval, name)
    if not intervals or interval is None or math.isnan(interval.mean) or math.isnan(interval.low):
        return text
    digits = METRICS[name].digits
    return f"{text}<small>{interval.low:.{digits}f} to {interval.high:.{digits}f}</small>"


def _arrow(name: str) -> str:
    return {1: "&uarr;", -1: "&darr;", 0: ""}[METRICS[name].better]


def _ordered(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Methods before controls, each with the class of its line."""
    methods = [(row, "method") for row in rows if not row.is_control]
    controls = [(row, "control") for row in rows if row.is_control]
    if controls and methods:
        controls[0] = (controls[0][0], "control first-control")
    return methods + controls


def _plots(evaluation: Evaluation) -> str:
    table = evaluation.table
    plots = []
    for name in table.metrics:
        marks = [
            Mark(row.name, table.rows[row.name][name], "control" if row.is_control else "method")
            for row, _ in _ordered(evaluation.rows)
            if name in table.rows[row.name]
        ]
        hint = {1: "more is better \u2192", -1: "\u2190 less is better", 0: ""}[METRICS[name].better]
        plots.append(interval_plot(name, hint, marks, METRICS[name].digits))
    if evaluation.panel == "video":
        points = [
            Point(row.name, table.rows[row.name]["AG"].mean, table.rows[row.name]["flicker"].mean, kind.split()[0])
            for row, kind in _ordered(evaluation.rows)
        ]
        plots.append(scatter_plot("flicker beside sharpness", "AG \u2192", "flicker, less is better \u2193", points))
    lead = (
        "Points are means, bars their bootstrap 95 % intervals over the images: methods blue, controls grey. Two "
        "rows meet the same images, so that their difference is surer than the overlap of their bars suggests."
    )
    return page.section("Intervals", lead, f'<div class="plots">{"".join(plots)}</div>')


def _against(evaluation: Evaluation) -> str:
    """Every method minus a plain control, or nothing where the panel has no such rows."""
    lines = []
    methods = [row for row in evaluation.rows if not row.is_control]
    metrics = evaluation.table.metrics
    for row in methods:
        for reference in REFERENCES:
            apart = differences(evaluation.records, row.name, reference)
            metrics = tuple(name for name in metrics if name in apart)
            name = f"<td>{escape(row.name)}<small>minus {escape(reference)}</small></td>"
            lines.append(("method", [name, *(_difference(apart[metric], metric) for metric in metrics)]))
    if not methods or not metrics:
        return ""
    lead = (
        f"Mean difference on the same {'objects' if evaluation.panel == 'text' else 'images'} and its bootstrap 95 % "
        "interval over images: green where the method is surely ahead, red where it is surely behind, grey where the "
        "interval holds zero. A figure in which noise is ahead of max rewards noise."
    )
    return page.section("Against max, image by image", lead, page.table(_head(metrics), lines))


def _difference(interval: Interval, name: str) -> str:
    better = METRICS[name].better
    ends = sorted((interval.low * better, interval.high * better))
    kind = "ahead" if ends[0] > 0 else "behind" if ends[1] < 0 else "even"
    digits = METRICS[name].digits
    text = f"{interval.mean:+.{digits}f}{coverage(interval)}" if not math.isnan(interval.mean) else "NaN"
    if not math.isnan(interval.low):
        text += f"<small>{interval.low:+.{digits}f} to {interval.high:+.{digits}f}</small>"
    return f'<td class="{kind}">{text}</td>'


def _heat_tables(evaluation: Evaluation) -> str:
    parts = []
    for name in _HEATED:
        if name not in evaluation.table.metrics:
            continue
        head = ["<th>condition</th>", *(f"<th>{escape(row.name)}</th>" for row, _ in _ordered(evaluation.rows))]
        lines = [
            ("", [f"<td>{escape(condition)}</td>", *_heat_cells(table, evaluation.rows, name)])
            for condition, table in evaluation.conditions.items()
        ]
        lines.append(("first-control", ["<td><b>all</b></td>", *_heat_cells(evaluation.table, evaluation.rows, name)]))
        parts.append(f"<h3>{escape(name)} {_arrow(name)}</h3>" + page.table(head, lines, "heat"))
    lead = (
        "One line a condition; the deeper the blue, the better within the line, and the best is bold. VIF_min asks for "
        "both clean sources at once, so that copying the undamaged one gains nothing."
    )
    return page.section("Condition by condition", lead, "".join(parts))


def _heat_cells(table: Table, rows: Sequence[Row], name: str) -> list[str]:
    better = METRICS[name].better
    means = {row.name: table.rows[row.name][name].mean * better for row, _ in _ordered(rows)}
    defined = [value for value in means.values() if not math.isnan(value)]
    cells = []
    for row, value in means.items():
        share = 0.0
        if defined and max(defined) > min(defined) and not math.isnan(value):
            share = (value - min(defined)) / (max(defined) - min(defined))
        color = ",".join(str(round(a + (b - a) * share)) for a, b in zip(_PLAIN, _HUE, strict=True))
        text = show(table.rows[row][name], name)
        text = f"<b>{text}</b>" if table.leaders.get(name) == row else text
        cells.append(f'<td style="background:rgb({color})">{text}</td>')
    return cells


def _condition_tables(evaluation: Evaluation) -> str:
    parts = [
        f"<details><summary>{escape(name)} <span>{escape(CONDITIONS[name].meaning)}</span></summary>"
        f"{_table(table, evaluation.rows, intervals=True)}</details>"
        for name, table in evaluation.conditions.items()
    ]
    lead = "Every figure under each condition; open one to see it. Compared is with the clean sources."
    return page.section("All figures by condition", lead, "".join(parts))


def _images(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    values = {(record.condition, record.row, record.stem): record.values for record in evaluation.records}

    def caption(example: Example, row: str) -> str:
        found = values.get((example.condition, row, example.stem), {})
        return " · ".join(f"{name} {found[name]:.{METRICS[name].digits}f}" for name in _CAPTIONED if name in found)

    parts = [_example(example, caption) for example in examples]
    lead = (
        "The same pair by every method; below each image the detail in the yellow frame, placed where the infrared "
        "image shows most that the visible one does not. All controls stand in the tables, some of them here."
    )
    return page.section("Images", lead, "".join(parts))


def _example(example: Example, caption: Callable[[Example, str], str]) -> str:
    cells, tall = [], False
    for cell in example.cells:
        figures = caption(example, cell.row) if cell.row else ""
        name = escape(cell.name)
        tall |= bool(figures)
        cells.append(
            f'<figure class="{cell.role}"><figcaption>{name}<small>{escape(figures)}</small></figcaption>'
            f'<img alt="{name}" src="{embedded(cell.image, example.window)}">'
            f'<img alt="{name}, detail" src="{embedded_detail(cell.image, example.window)}"></figure>'
        )
    # Two lines of images as large as fit.
    columns = f"by{min(5, max(3, math.ceil(len(cells) / 2)))}{' tall' if tall else ''}"
    title = example.condition or example.stem
    meaning = CONDITIONS[example.condition].meaning + " " if example.condition else ""
    under = f"<p>{escape(meaning)}Image {escape(example.stem)}.</p>" if example.condition else ""
    images = f'<div class="cells {columns}">{"".join(cells)}</div>'
    return f'<div class="example"><h3>{escape(title)}</h3>{under}{images}</div>'


def _definitions(evaluation: Evaluation) -> str:
    lines = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(METRICS[name].meaning)}</dd>" for name in evaluation.table.metrics
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in evaluation.notes)
    lead = (
        "Grey is the 8-bit BT.601 luma of the saved color image. Figures of the same method differ between papers, "
        "which crop, quantise and define differently: compare only what was measured in one run."
    )
    return page.section("Definitions", lead, f'{notes}<dl class="about">{lines}</dl>')
