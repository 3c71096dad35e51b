"""The HTML report: verdict, tables, plots with intervals, images with details, definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate import page
from textdifuse_ros.evaluate.detection_images import count_caption, legend
from textdifuse_ros.evaluate.images import SHEETS, Example, embed_detail, embed_image, make_sheets
from textdifuse_ros.evaluate.methods import Row, condition_meaning
from textdifuse_ros.evaluate.plots import Mark, Point, interval_plot, scatter_plot
from textdifuse_ros.evaluate.results import UNDEFINED, Differences, Evaluation, Table, best_row, metric_of
from textdifuse_ros.evaluate.statistics import Interval
from textdifuse_ros.evaluate.tables import format_coverage, format_figure, to_csv, to_json, to_markdown, write_text
from textdifuse_ros.image.files import write_png

PAGE = "index.html"
_TITLE = "Fusion on "
_HEATED = ("VIF_min", "Qabf", "SSIM", "PSNR_consistency", "dE00", "PSNR_draw", "PSNR_mean", "SSIM_draw")
_CAPTIONED = ("VIF_min", "Qabf", "flicker", "PSNR_draw")
_PLAIN, _HUE = (255, 255, 255), (120, 173, 232)


def check_report_folder(folder: Path) -> None:
    """Check that a page in the folder is an earlier report, whose files a new one replaces.

    :param folder: the folder of the report; may be missing
    :raises FileError: it holds another page
    """
    path = folder / PAGE
    if path.is_file():
        with path.open("rb") as content:
            if f"<title>{_TITLE}".encode() not in content.read(4096):
                found = "a page that was not written by textdifuse evaluate"
                remedy = "give another folder, or move it away"
                raise FileError(str(path), "missing, or an earlier report", found, remedy)


def write_report(folder: Path, evaluation: Evaluation, examples: Sequence[Example]) -> Path:
    """Write ``index.html``, the contact sheets and the tables into a folder, replacing those of an earlier report.

    :param folder: the folder of the report
    :param evaluation: the results
    :param examples: the scenes to show
    :returns: path of the page
    :raises FileError: a file cannot be written
    """
    if not examples and (folder / PAGE).is_file():  # contact sheets of the earlier report
        for name in SHEETS:
            (folder / f"{name}.png").unlink(missing_ok=True)
    if examples:
        for name, image in make_sheets(examples, f"{evaluation.set_name}, {evaluation.panel}").items():
            write_png(folder / f"{name}.png", image)
    write_text(folder / "summary.json", to_json(evaluation))
    write_text(folder / "summary.md", to_markdown(evaluation))
    write_text(folder / "pictures.csv", to_csv(evaluation))  # a published name
    write_text(folder / PAGE, to_html(evaluation, examples))
    return folder / PAGE


def to_html(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    """Render the page.

    :param evaluation: the results
    :param examples: the scenes to show
    """
    sections = [_verdict(evaluation), _main_table(evaluation)]
    if evaluation.conditions:
        sections.append(_heat_tables(evaluation))
    sections += [_part_tables(evaluation)] if evaluation.parts else []
    if examples:
        sections.append(_images(evaluation, examples))
    sections += [_against(evaluation), _plots(evaluation)]
    if evaluation.conditions:
        sections.append(_condition_tables(evaluation))
    sections.append(_definitions(evaluation))
    conditions = f" under {len(evaluation.conditions)} known degradations" if evaluation.conditions else ""
    unit = {"video": "frames", "text": "images"}.get(evaluation.panel, "pairs")
    subtitle = f"Panel {evaluation.panel} over {evaluation.pairs} {unit}{conditions}"
    return page.page(f"{_TITLE}{evaluation.set_name}", subtitle, evaluation.about, filter(None, sections))


def _verdict(evaluation: Evaluation) -> str:
    table, detection = evaluation.table, evaluation.panel == "detection"
    methods = [row for row in evaluation.rows if not row.is_control]
    tiles = []
    for name in table.metrics:
        best = best_row(table.rows, methods, name)
        if not metric_of(name).better or not (best or name in table.leaders):
            continue
        leader = table.leaders.get(name, best)
        if name not in table.leaders:
            kind, what = "alone", "no other row has this metric"
        elif name not in table.proves_nothing:
            kind, what = "telling", "a method ranks first"
        else:
            kind, what = "nothing", f"a control ranks first{'' if evaluation.paired else ': proves nothing here'}"
            if best:
                what += f"; best method {escape(best)} {format_figure(table.rows[best][name], name)}"
        tiles.append(
            f'<div class="tile {kind}"><b>{escape(name)}</b><span class="who">{escape(leader)}</span> '
            f'{format_figure(table.rows[leader].get(name), name)}<div class="what">{what}</div></div>'
        )
    lead = (
        "The best row of each metric. Where a control, a few lines of code without learning, ranks first, the metric "
        "does not show which method fuses better on this set; use the other metrics, and look at the images."
    )
    if detection:
        lead = (
            "The best row of each figure. Where a control ranks first, this detector finds more objects on one sensor, "
            "on their maximum, or in both sensors' joined boxes (late) than on any fused image."
        )
    if evaluation.panel == "steps":
        lead = "The best row of each figure, means over the conditions."
    return page.section("What the metrics show", lead, f'<div class="verdict">{"".join(tiles)}</div>')


def _main_table(evaluation: Evaluation) -> str:
    over = f" and {len(evaluation.averaged)} conditions" if evaluation.conditions else ""
    lead = (
        f"{evaluation.figures}{over}; below it the bootstrap 95 % interval over images. The best row "
        "of each column is marked: blue for a method, yellow if a control reaches the same value. Arrows show which "
        "direction is better."
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
        metric = metric_of(name)
        kind = "nothing" if name in nothing else ""
        cells.append(
            f'<th class="{kind}" title="{escape(metric.meaning)}">{escape(name).replace("_", "_<wbr>")}'
            f" {_arrow(name)}</th>"
        )
    return cells


def _figure(interval: Interval | None, name: str, intervals: bool) -> str:
    text = format_figure(interval, name)
    if not intervals or interval is None or math.isnan(interval.mean) or math.isnan(interval.low):
        return text
    digits = metric_of(name).digits
    return f"{text}<small>{interval.low:.{digits}f} to {interval.high:.{digits}f}</small>"


def _arrow(name: str) -> str:
    return {1: "&uarr;", -1: "&darr;", 0: ""}[metric_of(name).better]


def _ordered(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Sort methods before controls, each with the CSS class of its line."""
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
        hint = {1: "higher is better \u2192", -1: "\u2190 lower is better", 0: ""}[metric_of(name).better]
        plots.append(interval_plot(name, hint, marks, metric_of(name).digits))
    if evaluation.panel == "video":
        points = [
            Point(row.name, table.rows[row.name]["AG"].mean, table.rows[row.name]["flicker"].mean, kind.split()[0])
            for row, kind in _ordered(evaluation.rows)
        ]
        plots.append(scatter_plot("flicker and sharpness", "AG \u2192", "flicker, lower is better \u2193", points))
    lead = (
        "Points are means, bars are bootstrap 95 % intervals over the images: methods blue, controls grey. All rows "
        "use the same images, so a difference is more certain than the overlap of the bars suggests."
    )
    return page.section("Intervals", lead, f'<div class="plots">{"".join(plots)}</div>')


def _against(evaluation: Evaluation) -> str:
    """Render the paired differences of the methods to other rows; "" if the panel has none."""
    table = _difference_table(evaluation.against, evaluation.table.metrics)
    if not table:
        return ""
    lead = (
        f"Mean difference on the same {'objects' if evaluation.panel == 'text' else 'images'} and its bootstrap 95 % "
        "interval over images: green if the method is significantly better, red if significantly worse, grey if the "
        "interval contains zero; p is that of Wilcoxon's signed-rank test over the images."
    )
    if evaluation.panel == "detection":
        lead += " better_sensor is the visible or the infrared image, whichever is better in that figure."
        return page.section("Against the sensors", lead, table)
    if evaluation.panel == "steps":
        lead += " fewest_steps is the same sampler with the fewest steps."
        return page.section("Against the untouched image and fewer steps", lead, table)
    lead += " A metric in which max+noise15 beats max rewards noise."
    return page.section("Against max, image by image", lead, table)


def _difference_table(against: Differences, metrics: Sequence[str]) -> str:
    """Render differences; "" if no row has one in any of the ``metrics``."""
    by_row: dict[str, dict[str, dict[str, Interval]]] = {}
    for other, rows in against.items():
        for row, paired in rows.items():
            by_row.setdefault(row, {})[other] = paired
    every = [paired for others in by_row.values() for paired in others.values()]
    shown = tuple(name for name in metrics if all(name in paired for paired in every))
    if not by_row or not shown:
        return ""
    lines = []
    for row, others in by_row.items():
        for other, paired in others.items():
            name = f"<td>{escape(row)}<small>minus {escape(other)}</small></td>"
            lines.append(("method", [name, *(_difference(paired[metric], metric) for metric in shown)]))
    return page.table(_head(shown), lines)


def _part_tables(evaluation: Evaluation) -> str:
    parts = [
        f"<h3>{escape(name)}, {part.pairs} pairs</h3>"
        f"{_table(part.table, evaluation.rows, intervals=True)}{_difference_table(part.against, part.table.metrics)}"
        for name, part in evaluation.parts.items()
    ]
    return page.section("Part by part", "The same figures over a part of the images.", "".join(parts))


def _difference(interval: Interval, name: str) -> str:
    better = metric_of(name).better
    ends = sorted((interval.low * better, interval.high * better))
    kind = "ahead" if ends[0] > 0 else "behind" if ends[1] < 0 else "even"
    digits = metric_of(name).digits
    text = f"{interval.mean:+.{digits}f}{format_coverage(interval)}" if not math.isnan(interval.mean) else "NaN"
    if not math.isnan(interval.low):
        text += f"<small>{interval.low:+.{digits}f} to {interval.high:+.{digits}f}</small>"
    if not math.isnan(interval.p):
        text += f"<small>p {'&lt; 0.0001' if interval.p < 1e-4 else f'{interval.p:.2g}'}</small>"
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
        mean = f"<td><b>mean of {len(evaluation.averaged)}</b></td>"
        lines.append(("first-control", [mean, *_heat_cells(evaluation.table, evaluation.rows, name)]))
        parts.append(f"<h3>{escape(name)} {_arrow(name)}</h3>" + page.table(head, lines, "heat"))
    lead = (
        "One line per condition; darker blue is better within the line, and the best row is bold. VIF_min requires "
        "both clean sources, so copying the one that is not degraded gains nothing."
    )
    if evaluation.panel == "steps":
        lead = "One line per condition; darker blue is better within the line, and the best row is bold."
    return page.section("Condition by condition", lead, "".join(parts))


def _heat_cells(table: Table, rows: Sequence[Row], name: str) -> list[str]:
    better = metric_of(name).better
    means = {row.name: table.rows[row.name][name].mean * better for row, _ in _ordered(rows)}
    defined = [value for value in means.values() if not math.isnan(value)]
    cells = []
    for row, value in means.items():
        share = 0.0
        if defined and max(defined) > min(defined) and not math.isnan(value):
            share = (value - min(defined)) / (max(defined) - min(defined))
        color = ",".join(str(round(a + (b - a) * share)) for a, b in zip(_PLAIN, _HUE, strict=True))
        text = format_figure(table.rows[row][name], name)
        text = f"<b>{text}</b>" if table.leaders.get(name) == row else text
        cells.append(f'<td style="background:rgb({color})">{text}</td>')
    return cells


def _condition_tables(evaluation: Evaluation) -> str:
    parts = [
        f"<details><summary>{escape(name)} <span>{escape(condition_meaning(name))}</span></summary>"
        f"{_table(table, evaluation.rows, intervals=True)}</details>"
        for name, table in evaluation.conditions.items()
    ]
    lead = "All metrics under each condition, against the clean sources; click to open."
    return page.section("All figures by condition", lead, "".join(parts))


def _images(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    values = {(record.condition, record.row, record.stem): record.values for record in evaluation.records}

    def caption(example: Example, row: str) -> str:
        of_row = values.get((example.condition, row, example.stem), {})
        if evaluation.panel == "detection":
            return count_caption(of_row)
        return " · ".join(f"{name} {of_row[name]:.{metric_of(name).digits}f}" for name in _CAPTIONED if name in of_row)

    parts = [_example(example, caption) for example in examples]
    lead = (
        "The same pair by every method; below each image the detail in the yellow frame, where the infrared image "
        "shows the most that is not in the visible one. "
    )
    lead += legend() if evaluation.panel == "detection" else "All controls are in the tables, some are shown here."
    return page.section("Images", lead, "".join(parts))


def _example(example: Example, caption: Callable[[Example, str], str]) -> str:
    cells, tall = [], False
    for cell in example.cells:
        figures = caption(example, cell.row) if cell.row else ""
        name = escape(cell.name)
        tall |= bool(figures)
        cells.append(
            f'<figure class="{cell.role}"><figcaption>{name}<small>{escape(figures)}</small></figcaption>'
            f'<img alt="{name}" src="{embed_image(cell.image, example.window)}">'
            f'<img alt="{name}, detail" src="{embed_detail(cell.image, example.window)}"></figure>'
        )
    # Two lines of images.
    columns = f"by{min(5, max(3, math.ceil(len(cells) / 2)))}{' tall' if tall else ''}"
    title = example.condition or example.stem
    meaning = condition_meaning(example.condition) + " " if example.condition else ""
    description = f"<p>{escape(meaning)}Image {escape(example.stem)}.</p>" if example.condition else ""
    images = f'<div class="cells {columns}">{"".join(cells)}</div>'
    return f'<div class="example"><h3>{escape(title)}</h3>{description}{images}</div>'


def _definitions(evaluation: Evaluation) -> str:
    lines = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(metric_of(name).meaning)}</dd>" for name in evaluation.table.metrics
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in evaluation.notes)
    lead = (
        "Grey is the 8-bit BT.601 luma of the saved color image. Papers crop, quantize and define metrics differently, "
        "so their figures of the same method differ: compare only figures of one run."
    )
    return page.section("Definitions", lead, f'{notes}<dl class="about">{lines}</dl>')
