"""``textdifuse evaluate --latex``: tables that LaTeX can read, with the figures of the evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path

from evaluation_rig import scene

from textdifuse_ros.cli.main import main
from textdifuse_ros.evaluate.latex import escape
from textdifuse_ros.image.files import write_png


def test_the_tables_have_the_figures_of_the_evaluation(tmp_path: Path) -> None:
    for number in range(3):
        visible, infrared = scene(number)
        write_png(tmp_path / "vis" / f"{number}.png", visible)
        write_png(tmp_path / "ir" / f"{number}.png", infrared)
        write_png(tmp_path / "peer" / f"{number}.png", visible)
    files = ["--json", tmp_path / "a.json", "--latex", tmp_path / "a.tex", "--jobs", 1]
    line = ["--visible", tmp_path / "vis", "--infrared", tmp_path / "ir", "--method", f"my_peer={tmp_path / 'peer'}"]
    assert main(["evaluate", *map(str, (*line, *files))]) == 0
    content = json.loads((tmp_path / "a.json").read_text())
    text = (tmp_path / "a.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    lines = {
        line.split(" & ")[0]: line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line
    }
    head = lines.pop("")
    assert set(lines) == {escape(row) for row in content["rows"]} and r"my\_peer" in lines
    assert all(len(cells) == len(head) for cells in lines.values())
    metrics = [re.sub(r" \$.*", "", name).replace("\\", "") for name in head]
    assert "Qcv $\\downarrow$" in head and "MI $\\uparrow$" in head
    column = metrics.index("EN")
    for row, figures in content["rows"].items():
        plain = re.sub(r"\\(textbf|underline)|[{}]", "", lines[escape(row)][column])
        assert float(plain) == round(figures["EN"]["mean"], 2)
    leader = lines[escape(content["leaders"]["EN"])][column]
    assert leader.startswith(r"\textbf{")
    assert sum("underline" in cells[column] for cells in lines.values()) == 1, "the second"
    assert content["against"]["max"]["my_peer"]["EN"]["p"] == 0.25, "three differences of one sign"


def test_every_mark_with_a_meaning_is_escaped() -> None:
    assert escape(r"50 %_a&b#{}$^~\x") == r"50 \%\_a\&b\#\{\}\$\textasciicircum{}\textasciitilde{}\textbackslash{}x"
