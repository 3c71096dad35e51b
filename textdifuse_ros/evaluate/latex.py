"""An evaluation as tables of LaTeX, with booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from textdifuse_ros.evaluate.results import Evaluation, Table, metric_of
from textdifuse_ros.evaluate.tables import format_figure

_ESCAPES = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}  # fmt: skip
_ARROWS = {1: r"$\uparrow$", -1: r"$\downarrow$", 0: ""}


def to_latex(evaluation: Evaluation) -> str:
    """Format the summary table of an ``evaluation``, then a table for each condition and part.

    The best row of a column is bold, the second underlined; methods stand below the controls. Needs the packages
    ``booktabs`` and, for wide tables, ``graphicx``.
    """
    title = f"{evaluation.set_name}, panel {evaluation.panel}, {evaluation.pairs} pairs"
    parts = [_table(evaluation, evaluation.table, f"{evaluation.figures}. {title}.")]
    parts += [_table(evaluation, table, f"{title}: {name}.") for name, table in evaluation.conditions.items()]
    parts += [_table(evaluation, part.table, f"{title}: {name}.") for name, part in evaluation.parts.items()]
    return "% \\usepackage{booktabs,graphicx}\n" + "\n".join(parts)


def escape(text: str) -> str:
    """Escape what has a meaning in LaTeX.

    :param text: any text
    """
    return "".join(_ESCAPES.get(mark, mark) for mark in text)


def _table(evaluation: Evaluation, table: Table, caption: str) -> str:
    names = [row.name for row in evaluation.rows if row.is_control and row.name in table.rows]
    methods = [row.name for row in evaluation.rows if not row.is_control and row.name in table.rows]
    head = ["", *(f"{escape(name)} {_ARROWS[metric_of(name).better]}".rstrip() for name in table.metrics)]
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}", r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}", r"\toprule", _line(head), r"\midrule",
        *(_row(table, name) for name in names), *([r"\midrule"] if names and methods else []),
        *(_row(table, name) for name in methods), r"\bottomrule", r"\end{tabular}}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(table: Table, row: str) -> str:
    cells = [escape(row)]
    for name in table.metrics:
        figure = table.rows[row].get(name)
        text = escape(format_figure(figure, name)).replace("-", "$-$", 1) if figure else "--"
        if table.leaders.get(name) == row:
            text = rf"\textbf{{{text}}}"
        elif name in table.leaders and row == _second(table, name):
            text = rf"\underline{{{text}}}"
        cells.append(text)
    return _line(cells)


def _second(table: Table, metric: str) -> str:
    """The best row but the leader, of those that are defined for as many images."""
    leader = table.rows[table.leaders[metric]][metric]
    others = {
        row: figures[metric].mean * metric_of(metric).better
        for row, figures in table.rows.items()
        if row != table.leaders[metric] and metric in figures and figures[metric].undefined == leader.undefined
    }
    return max((row for row, mean in others.items() if mean == mean), key=lambda row: others[row], default="")


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
