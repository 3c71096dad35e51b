"""The report: a self-contained page, contact sheets, and plots that agree with the tables."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from textdifuse_ros.cli.main import main
from textdifuse_ros.evaluate.images import choose_examples, embed_detail, embed_image, zoom_window
from textdifuse_ros.evaluate.methods import Row
from textdifuse_ros.evaluate.plots import Mark, Point, interval_plot, scatter_plot
from textdifuse_ros.evaluate.report import to_html
from textdifuse_ros.evaluate.results import UNDEFINED, Evaluation, Record, summarize
from textdifuse_ros.evaluate.sets import PairSet
from textdifuse_ros.evaluate.statistics import Interval
from textdifuse_ros.image.files import Pair, read_visible, write_png
from textdifuse_ros.metrics.table import CLEAN_METRICS


class Page(HTMLParser):
    """Tags, URLs and text of a page; an unclosed tag fails."""

    VOID = ("meta", "img", "wbr", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.urls: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.urls += [value for name, value in attributes if name in ("src", "href", "srcset")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        self.words += data


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path, Path]:
    """Create two pairs of 64 x 96 pixels with a warm patch, and results of a method."""
    rng = np.random.default_rng(0)
    for stem in ("a", "b"):
        visible = rng.integers(40, 90, (64, 96, 3), dtype=np.uint8)
        infrared = rng.integers(40, 60, (64, 96), dtype=np.uint8)
        infrared[20:34, 60:72] = 230
        write_png(tmp_path / "vis" / f"{stem}.png", visible)
        write_png(tmp_path / "ir" / f"{stem}.png", infrared)
        write_png(tmp_path / "peer" / f"{stem}.png", cv2.GaussianBlur(visible, (0, 0), 2))
        for condition in ("clean", "haze"):
            write_png(tmp_path / "peer2" / condition / f"{stem}.png", cv2.GaussianBlur(visible, (0, 0), 2))
    return tmp_path / "vis", tmp_path / "ir", tmp_path / "peer"


def report(folders, *flags) -> Path:
    folder = folders[0].parent / "report"
    line = ["evaluate", "--visible", folders[0], "--infrared", folders[1], "--jobs", 1, "--report", folder, *flags]
    assert main([str(part) for part in line]) == 0
    return folder


class TestReport:
    def test_the_page_is_self_contained(self, folders, capsys) -> None:
        folder = report(folders, "--method", f"Peer={folders[2]}")
        assert f"report: {folder}/index.html" in capsys.readouterr().out
        text = (folder / "index.html").read_text(encoding="utf-8")
        page = Page(text)
        assert not {"link", "iframe"} & set(page.tags)
        assert "<script>" in text and "<script src" not in text and "fetch(" not in text
        assert page.urls and all(url.startswith("data:image/jpeg;base64,") for url in page.urls)
        assert "url(" not in text and "@import" not in text and "http" not in text

    def test_the_page_shows_tables_plots_and_images_of_every_method(self, folders) -> None:
        text = (report(folders, "--method", f"Peer={folders[2]}") / "index.html").read_text(encoding="utf-8")
        page = Page(text)
        for word in ("Peer", "clahe+sum", "VIF_", "Against max", "minus max+noise15", "proves nothing here", "Qabf"):
            assert word in page.words, word
        # Visible, infrared, the method and three controls, whole and in detail, for two pairs.
        assert page.tags.count("img") == 2 * 2 * 6
        assert page.tags.count("svg") == len(CLEAN_METRICS)
        image = base64.b64decode(page.urls[0].split(",")[1])
        assert cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR).shape == (64, 96, 3)

    def test_contact_sheets_and_all_tables_are_written_beside_it(self, folders) -> None:
        folder = report(folders)
        names = {path.name for path in folder.iterdir()}
        assert names == {"index.html", "pictures.png", "details.png", "summary.json", "summary.md", "pictures.csv"}
        sheet = read_visible(folder / "pictures.png")
        assert sheet.shape[1] > 5 * 260 and sheet.std() > 10
        assert json.loads((folder / "summary.json").read_text())["pairs"] == 2

    def test_a_page_of_somebody_else_is_refused_and_nothing_beside_it_removed(self, folders, capsys) -> None:
        folder = folders[0].parent / "report"
        folder.mkdir()
        for name in ("index.html", "pictures.png"):
            (folder / name).write_text("<title>Holidays</title>")
        line = ["--visible", folders[0], "--infrared", folders[1], "--jobs", 1, "--report", folder, "--examples", 0]
        assert main(["evaluate", *map(str, line)]) == 2
        assert "a page that was not written by textdifuse evaluate" in capsys.readouterr().err
        assert sorted(item.read_text() for item in folder.iterdir()) == ["<title>Holidays</title>"] * 2

    def test_contact_sheets_of_an_earlier_report_are_removed(self, folders) -> None:
        folder = folders[0].parent / "report"
        folder.mkdir()
        (folder / "pictures.png").write_bytes(b"not of a report")
        report(folders, "--examples", 0)
        assert (folder / "pictures.png").read_bytes() == b"not of a report"
        report(folders)
        report(folders, "--examples", 0)
        assert not list(folder.glob("*.png"))

    def test_a_degraded_report_shows_every_condition(self, folders) -> None:
        method = folders[2].parent / "peer2"
        flags = ["--panel", "degraded", "--condition", "haze", "--method", f"Peer={method}"]
        text = (report(folders, *flags) / "index.html").read_text(encoding="utf-8")
        page = Page(text)
        assert "Condition by condition" in page.words and "optical depth" in page.words
        assert "clean visible" in page.words and "max+pre" in page.words
        assert page.tags.count("details") == 1

    def test_the_number_of_scenes_is_configurable(self, folders) -> None:
        page = Page((report(folders, "--examples", 1) / "index.html").read_text(encoding="utf-8"))
        assert page.tags.count("img") == 2 * 5
        page = Page((report(folders, "--examples", 0) / "index.html").read_text(encoding="utf-8"))
        assert page.tags.count("img") == 0

    def test_names_are_escaped(self) -> None:
        row = Row("<b>&\"'", Path("x"))
        records = (Record("", row.name, "0", {"EN": 1.0}), Record("", "max", "0", {"EN": 2.0}))
        rows = (Row("max"), row)
        page = Page(to_html(Evaluation("clean", "<i>set", 1, rows, records, summarize(records, rows)), ()))
        assert "<b>&\"'" in page.words and "<i>set" in page.words
        assert "i" not in page.tags

    def test_the_best_cell_distinguishes_methods_from_controls(self) -> None:
        rows = (Row("max"), Row("Peer", Path("x")))
        records = tuple(
            Record("", row.name, "0", {"EN": en, "Qabf": qabf})
            for row, en, qabf in ((rows[0], 2.0, 0.1), (rows[1], 1.0, 0.7))
        )
        text = to_html(Evaluation("clean", "s", 1, rows, records, summarize(records, rows)), ())
        assert re.findall(r'<td class="best ?(\w*)">([\d.]+)', text) == [("", "0.700"), ("nothing", "2.00")]

    def test_figures_without_an_interval_or_a_value_are_accepted(self) -> None:
        rows = (Row("max"), Row("Peer", Path("x")))
        records = tuple(Record("", row.name, "0", {"EN": 2.0, "SCD": float("nan")}) for row in rows)
        page = Page(to_html(Evaluation("clean", "s", 1, rows, records, summarize(records, rows)), ()))
        assert "NaN" in page.words

    def test_a_figure_over_some_of_the_images_is_marked_and_never_best(self) -> None:
        rows = (Row("max"), Row("max+noise15"), Row("Peer", Path("x")), Row("Other", Path("y")))
        records = tuple(
            Record("", row.name, str(n), {"EN": float("nan") if row.name == "Other" and n else value})
            for row, value in zip(rows, (2.0, 0.0, 1.0, 3.0), strict=True)
            for n in range(3)
        )
        text = to_html(Evaluation("clean", "s", 3, rows, records, summarize(records, rows)), ())
        assert re.findall(r'<td class="best ?(\w*)">([\d.]+)', text) == [("nothing", "2.00")]
        assert "best method Peer 1.00" in text and "3.00 (1 of 3)" in text and "+1.00 (1 of 3)" in text
        assert UNDEFINED in Page(text).words

    def test_the_text_panel_states_what_a_mean_is_over(self) -> None:
        rows = (Row("max"), Row("max+noise15"), Row("Peer", Path("x")))
        records = tuple(Record("", row.name, "0", {"contrast": 2.0}, n) for row in rows for n in (1, 2))
        words = Page(to_html(Evaluation("text", "s", 1, rows, records, summarize(records, rows)), ())).words
        assert "Mean over the objects (what is outside them: over the images)" in words
        assert "difference on the same objects" in words and "interval over images" in words


class TestPlots:
    MARKS = (
        Mark("Peer", Interval(2.0, 1.5, 2.5, 9), "method"),
        Mark("max", Interval(1.0, 0.5, 1.5, 9), "control"),
        Mark("none", Interval(float("nan"), float("nan"), float("nan"), 0), "control"),
    )

    @staticmethod
    def parse(text: str) -> ElementTree.Element:
        return ElementTree.fromstring(text)

    def test_points_are_in_the_middle_of_their_bars_and_in_the_order_of_the_means(self) -> None:
        plot = self.parse(interval_plot("EN", "higher is better", self.MARKS, 2))
        marks = [group for group in plot.iter("g")]
        assert [group.get("class") for group in marks] == ["mark method", "mark control"]
        centers = [float(group.find("circle").get("cx")) for group in marks]
        bars = [(float(group.find("line").get("x1")), float(group.find("line").get("x2"))) for group in marks]
        assert centers == pytest.approx([sum(bar) / 2 for bar in bars], abs=0.2) and centers[0] > centers[1]
        assert bars[1][1] == pytest.approx(bars[0][0], abs=0.2), "equal values have equal positions"
        assert marks[0].find("title").text == "Peer: 2.00 [1.50, 2.50]"

    def test_all_rows_are_named_even_without_a_value(self) -> None:
        words = [text.text for text in self.parse(interval_plot("EN", "", self.MARKS, 2)).iter("text")]
        assert {"EN", "Peer", "max", "none"} <= set(words)

    def test_ticks_are_round_and_inside(self) -> None:
        plot = self.parse(interval_plot("EN", "", self.MARKS, 2))
        ticks = [text for text in plot.iter("text") if text.get("class") == "tick"]
        assert [float(tick.text) for tick in ticks] == [0.5, 1.0, 1.5, 2.0, 2.5]
        assert all(90 <= float(tick.get("x")) <= 340 for tick in ticks)

    @pytest.mark.parametrize("value", [0.0, 7.0, 1e-7])
    def test_equal_values_and_missing_intervals_are_drawn(self, value) -> None:
        nan = float("nan")
        marks = [Mark(name, Interval(value, nan, nan, 1), "control") for name in "ab"]
        assert len(list(self.parse(interval_plot("EN", "", marks, 2)).iter("circle"))) == 2
        self.parse(interval_plot("EN", "", [], 2))

    def test_names_of_a_scatter_plot_do_not_overlap(self) -> None:
        points = [Point(f"row {n}", 1 + n / 1000, 2.0, "control") for n in range(4)] + [Point("far", 9, 9, "method")]
        plot = self.parse(scatter_plot("t", "x", "y", points))
        labels = sorted(float(t.get("y")) for t in plot.iter("text") if "plot-label" in t.get("class"))
        assert len(labels) == 5 and min(np.diff(labels)) >= 10.9
        assert self.parse(scatter_plot("t", "x", "y", [Point("a", float("nan"), 1, "method")])) is not None


class TestImages:
    def test_the_detail_is_where_something_warm_is_not_in_the_visible_image(self) -> None:
        visible = np.full((100, 200, 3), 60, np.uint8)
        infrared = np.full((100, 200), 40, np.uint8)
        visible[:40] = 220  # a bright, cold sky
        visible[60:90, 10:30] = infrared[60:90, 10:30] = 200  # in both
        infrared[55:75, 150:160] = 220
        window = zoom_window(visible, infrared)
        assert (window.width, window.height) == (50, 25)
        assert window.left <= 150 and window.left + window.width >= 160
        assert window.top <= 60 and window.top + window.height >= 70

    @pytest.mark.parametrize("size", [(41, 41), (41, 300), (300, 41), (8, 9)])
    def test_the_detail_is_inside_an_image_of_any_shape(self, size) -> None:
        rng = np.random.default_rng(0)
        infrared = rng.integers(0, 256, size, dtype=np.uint8)
        window = zoom_window(rng.integers(0, 256, (*size, 3), dtype=np.uint8), infrared)
        assert window.left >= 0 and window.left + window.width <= size[1]
        assert window.top >= 0 and window.top + window.height <= size[0]
        assert window.cut(infrared).shape == (window.height, window.width)

    def test_embedded_images_keep_their_colors_and_mark_the_detail(self) -> None:
        image = np.full((300, 920, 3), (200, 40, 90), np.uint8)
        window = zoom_window(image, image[..., 0])
        small, plain, part = (
            cv2.imdecode(np.frombuffer(base64.b64decode(text.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            for text in (embed_image(image, window), embed_image(image), embed_detail(image, window))
        )
        assert small.shape == (150, 460, 3) and part.shape[1] == 460
        assert np.abs(plain.astype(int) - (200, 40, 90)).max() < 12
        assert np.abs(small.astype(int) - plain).max() > 100

    def test_examples_are_spread_over_the_names_or_one_per_condition(self) -> None:
        pairs = PairSet("s", tuple(Pair(str(n), Path("v"), Path("i")) for n in range(9)))
        assert [pair.stem for pair, _ in choose_examples(pairs, (), 3)] == ["0", "4", "8"]
        assert len(choose_examples(pairs, (), 20)) == 9
        chosen = choose_examples(pairs, ("blur", "haze", "rain"), 1)
        assert [name for _, name in chosen] == ["blur", "haze", "rain"]
        assert len({pair.stem for pair, _ in chosen}) == 3
        assert choose_examples(pairs, ("blur", "haze", "rain"), 0) == []
