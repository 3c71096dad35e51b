"""Conclusions from the results of an evaluation: leaders, undefined values, differences."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from textdifuse_ros.evaluate.methods import Row
from textdifuse_ros.evaluate.results import METRICS, UNDEFINED, Evaluation, Record, differences, summarize
from textdifuse_ros.evaluate.tables import format_figure, markdown_table, to_markdown
from textdifuse_ros.metrics.table import CLEAN_METRICS


class TestConclusions:
    ROWS = (Row("max"), Row("sum"), Row("peer", Path("p")), Row("other", Path("o")))

    @staticmethod
    def table(**means):
        """Build a table with one metric per keyword and one value per row."""
        records = [
            Record("", row.name, "0", {metric: float(values[n]) for metric, values in means.items()})
            for n, row in enumerate(TestConclusions.ROWS)
        ]
        return summarize(records, TestConclusions.ROWS)

    def test_a_metric_that_a_control_leads_proves_nothing(self) -> None:
        table = self.table(EN=(7, 6, 5, 4), Qabf=(0.1, 0.2, 0.3, 0.25))
        assert table.leaders == {"EN": "max", "Qabf": "peer"}
        assert table.proves_nothing == ("EN",)

    def test_a_lower_color_error_is_better(self) -> None:
        table = self.table(dE00=(3, 4, 1, 2))
        assert table.leaders["dE00"] == "peer" and table.proves_nothing == ()

    def test_a_metric_on_which_a_control_ties_proves_nothing(self) -> None:
        assert self.table(SCD=(1.5, 1, 1.5, 1)).proves_nothing == ("SCD",)

    def test_a_preprocessed_control_is_a_control(self) -> None:
        rows = (Row("max+pre"), Row("peer+pre", Path("p")))
        records = [Record("", row.name, "0", {"SSIM": value}) for row, value in zip(rows, (0.9, 0.8), strict=True)]
        assert summarize(records, rows).proves_nothing == ("SSIM",)

    def test_a_nan_does_not_lead(self) -> None:
        assert self.table(VIF=(math.nan, 0.4, 0.5, math.nan)).leaders == {"VIF": "peer"}

    def test_a_mean_over_some_of_the_images_does_not_lead(self) -> None:
        rows = (Row("max"), Row("peer", Path("p")))
        records = [Record("", "max", str(n), {"EN": 9.0 if n else math.nan}) for n in range(4)]
        records += [Record("", "peer", str(n), {"EN": 7.0}) for n in range(4)]
        table = summarize(records, rows)
        assert (table.leaders, table.proves_nothing) == ({"EN": "peer"}, ())
        assert format_figure(table.rows["max"]["EN"], "EN") == "9.00 (3 of 4)"
        assert format_figure(table.rows["max"]["EN"], "EN", intervals=True) == "9.00 [9.00, 9.00] (3 of 4)"
        evaluation = Evaluation("clean", "s", 4, rows, tuple(records), table)
        assert "| 9.00 [9.00, 9.00] (3 of 4) |" in to_markdown(evaluation) and UNDEFINED in to_markdown(evaluation)
        assert UNDEFINED not in to_markdown(replace(evaluation, table=summarize(records[4:], rows)))

    def test_a_mean_over_conditions_is_undefined_if_one_of_them_is(self) -> None:
        records = [Record(c, "max", "0", {"EN": v}) for c, v in (("a", 1.0), ("b", math.nan))]
        interval = summarize([*records, Record("a", "max", "1", {"EN": 5.0})], (Row("max"),)).rows["max"]["EN"]
        assert (interval.mean, interval.defined, interval.undefined) == (5, 1, 1)

    def test_a_name_with_a_vertical_bar_is_one_cell(self) -> None:
        row = Row("a|b", Path("p"))
        table = summarize([Record("", row.name, "0", {"EN": 1.0})], (row,))
        assert "| a\\|b |" in markdown_table(table)

    def test_an_image_counts_once_for_any_number_of_conditions(self) -> None:
        records = [Record(c, "max", "0", {"EN": v}) for c, v in (("a", 1.0), ("b", 3.0))]
        interval = summarize([*records, Record("a", "max", "1", {"EN": 5.0})], (Row("max"),)).rows["max"]["EN"]
        assert (interval.mean, interval.defined) == (3.5, 2)

    def test_differences_are_paired_by_image(self) -> None:
        records = [Record("", "max", str(n), {"EN": float(10 * n)}) for n in range(20)]
        records += [Record("", "peer", str(n), {"EN": 10 * n + 0.5 + 0.01 * (n % 3)}) for n in range(20)]
        apart = differences(records, "peer", "max")["EN"]
        assert apart.mean == pytest.approx(0.51, abs=0.01) and 0.49 < apart.low < apart.high < 0.53

    def test_differences_of_objects_are_resampled_by_image(self) -> None:
        records = [Record("", "max", str(n % 2), {"contrast": 0.0}, n) for n in range(1, 9)]
        records += [Record("", "peer", str(n % 2), {"contrast": float(n % 2)}, n) for n in range(1, 9)]
        apart = differences(records, "peer", "max")["contrast"]
        assert (apart.mean, apart.low, apart.high, apart.defined) == (0.5, 0, 1, 8)

    def test_every_metric_of_the_panels_has_a_description_and_a_direction(self) -> None:
        assert set(CLEAN_METRICS) <= set(METRICS)
        assert {name for name in CLEAN_METRICS if METRICS[name].better < 0} == {"dE00", "Qcv"}
