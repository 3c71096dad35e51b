"""``textdifuse evaluate``: rows, panels, figures, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from textdifuse_ros.cli.main import main
from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.data.conditions import CONDITIONS, degrade_pair
from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.controls import CONTROLS
from textdifuse_ros.evaluate.methods import Row
from textdifuse_ros.evaluate.preprocess import preprocess
from textdifuse_ros.evaluate.results import METRICS, UNDEFINED, Evaluation, Record, differences, summarise
from textdifuse_ros.evaluate.tables import markdown_table, show, to_markdown
from textdifuse_ros.image.files import read_infrared, read_png_metadata, read_visible, write_png
from textdifuse_ros.image.gain import ThermalGain
from textdifuse_ros.metrics.regions import box_masks
from textdifuse_ros.metrics.table import CLEAN_METRICS, clean_metrics

CLEAN_KEYS = ["EN", "AG", "SD", "SCD", "VIF", "VIF_visible", "VIF_infrared", "VIF_min", "Qabf", "SSIM", "dE00"]


def scene(number: int, height: int = 60, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """A visible and an infrared image with structure, another for every number."""
    y, x = np.mgrid[:height, :width]
    ground = 70 + 50 * np.sin(x / 11 + number) * np.cos(y / 9) + 30 * ((x // 20 + y // 15 + number) % 2)
    visible = np.stack((ground, 0.9 * ground, 0.7 * ground + 15), 2)
    person = np.abs(x - 20 - 4 * number) + np.abs(y - 30) < 9
    infrared = 60 + 40 * np.cos(y / 13 + number) + 110 * person
    rough = np.random.default_rng(number).normal(0, 2, (height, width))
    visible, infrared = visible + rough[..., None], infrared + rough
    return np.clip(visible, 0, 255).astype(np.uint8), np.clip(infrared, 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    for number in range(3):
        visible, infrared = scene(number)
        write_png(tmp_path / "vis" / f"{number}.png", visible)
        write_png(tmp_path / "ir" / f"{number}.png", infrared)
    return tmp_path / "vis", tmp_path / "ir"


@pytest.fixture
def evaluate(folders, tmp_path, capfd):
    """Run the verb over the folders in this process; its JSON."""

    def run(*flags, visible=folders[0], infrared=folders[1], jobs=1) -> dict:
        file = tmp_path / "out.json"
        line = ["evaluate", "--visible", visible, "--infrared", infrared, "--jobs", jobs, "--json", file, *flags]
        status = main([str(argument) for argument in line])
        assert status == 0, capfd.readouterr().err
        return json.loads(file.read_text())

    return run


@pytest.fixture
def refused(folders, capfd):
    """Run the verb where it must refuse; its one line on stderr (below the progress bar)."""

    def run(*flags, visible=folders[0], infrared=folders[1]) -> str:
        inputs = ["--visible", visible, "--infrared", infrared] if visible else []
        assert main([str(part) for part in ("evaluate", *inputs, "--jobs", 1, *flags)]) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        lines = [line for line in captured.err.splitlines() if line.startswith("textdifuse: ")]
        assert len(lines) == 1
        return lines[0]

    return run


def save_row(folder: Path, control: str, folders: tuple[Path, Path]) -> Path:
    """The images of a control as if a method had made them."""
    for path in folders[0].iterdir():
        fused = CONTROLS[control](read_visible(path), read_infrared(folders[1] / path.name))
        write_png(folder / path.name, fused)
    return folder


class TestCleanPanel:
    def test_without_methods_the_controls_are_measured_and_no_checkpoint_is_needed(self, evaluate, monkeypatch) -> None:
        monkeypatch.setenv("TEXTDIFUSE_MODELS", "/nowhere")
        content = evaluate()
        assert list(content["rows"]) == [
            "visible", "infrared", "mean", "max", "max+noise15", "clahe+max", "sum", "clahe+sum",
        ]  # fmt: skip
        assert content["pairs"] == 3 and content["panel"] == "clean"
        assert all(list(row) == CLEAN_KEYS for row in content["rows"].values())

    def test_a_mean_is_that_of_the_metrics_of_the_images_and_lies_in_its_interval(self, evaluate) -> None:
        figures = evaluate()["rows"]["max"]
        single = [clean_metrics(CONTROLS["max"](*scene(n)), *scene(n)) for n in range(3)]
        for name in CLEAN_KEYS:
            assert figures[name]["mean"] == pytest.approx(np.mean([values[name] for values in single]), rel=1e-9)
            assert figures[name]["low"] <= figures[name]["mean"] <= figures[name]["high"]

    def test_an_existing_json_file_is_overwritten(self, evaluate, tmp_path) -> None:
        (tmp_path / "out.json").write_text("old")
        assert evaluate()["pairs"] == 3

    def test_several_processes_give_the_same_bytes_as_one(self, evaluate) -> None:
        assert evaluate(jobs=2) == evaluate(jobs=1)

    def test_a_folder_of_results_is_a_row_of_its_own_judged_as_any_other(self, evaluate, folders, tmp_path) -> None:
        method = save_row(tmp_path / "peer", "sum", folders)
        rows = evaluate("--method", f"Peer={method}")["rows"]
        assert rows["Peer"] == rows["sum"] and list(rows)[-1] == "Peer"

    def test_the_model_has_the_row_textdifuse_made_of_what_fuse_would_save(
        self, evaluate, folders, tiny_checkpoint, tmp_path
    ) -> None:
        model = ["--model", tiny_checkpoint, "--threads", 1, "--steps", 2]
        content = evaluate(*model, "--save-fused", tmp_path / "kept")
        fuse = ["fuse", folders[0], folders[1], "-o", tmp_path / "fused", *model]
        assert main([str(part) for part in fuse]) == 0
        values = []
        for number in range(3):
            fused = read_visible(tmp_path / "fused" / f"{number}.png")
            assert np.array_equal(fused, read_visible(tmp_path / "kept" / "textdifuse" / f"{number}.png"))
            texts = [read_png_metadata(tmp_path / part / f"{number}.png") for part in ("fused", "kept/textdifuse")]
            assert texts[0] == texts[1] and '"visible": ' in texts[0]["textdifuse"]
            values.append(clean_metrics(fused, *scene(number))["SCD"])
        assert content["rows"]["textdifuse"]["SCD"]["mean"] == pytest.approx(np.mean(values), rel=1e-9)
        assert "2 steps" in content["about"]["model"]

    def test_the_model_named_default_is_drive(self, evaluate, tiny_checkpoint, tmp_path, monkeypatch) -> None:
        (tmp_path / "drive.safetensors").write_bytes(tiny_checkpoint.read_bytes())
        monkeypatch.setenv("TEXTDIFUSE_MODELS", str(tmp_path))
        content = evaluate("--model", "default", "--threads", 1, "--steps", 1, "--limit", 1)
        assert content["about"]["model"].startswith("drive, 1 steps")

    def test_csv_and_markdown_hold_every_image_and_the_verdict(self, evaluate, tmp_path) -> None:
        evaluate("--csv", tmp_path / "t.csv", "--markdown", tmp_path / "t.md")
        with (tmp_path / "t.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == 3 * len(CONTROLS)
        assert {line["picture"] for line in lines} == {"0", "1", "2"}
        mine = next(line for line in lines if line["row"] == "mean" and line["picture"] == "1")
        expected = clean_metrics(CONTROLS["mean"](*scene(1)), *scene(1))["Qabf"]
        assert float(mine["Qabf"]) == pytest.approx(expected, rel=1e-4)
        text = (tmp_path / "t.md").read_text()
        assert "| clahe+sum " in text and "[" in text and "prove nothing for this set: EN, AG" in text

    def test_a_limit_takes_pairs_spread_over_the_names(self, evaluate, tmp_path) -> None:
        assert evaluate("--limit", 2, "--csv", tmp_path / "t.csv")["pairs"] == 2
        assert {line.split(",")[3] for line in (tmp_path / "t.csv").read_text().splitlines()[1:]} == {"0", "2"}

    def test_where_a_metric_is_not_defined_the_figure_is_null_and_counted(self, evaluate, folders, tmp_path) -> None:
        for path in folders[1].iterdir():
            write_png(path, np.full((60, 80), 90, np.uint8))
        content = evaluate("--csv", tmp_path / "t.csv")
        assert content["rows"]["max"]["VIF_infrared"] == {"mean": None, "low": None, "high": None, "undefined": 3}
        assert ",nan," in (tmp_path / "t.csv").read_text()

    def test_a_name_that_is_no_utf8_does_no_harm(self, evaluate, folders, tmp_path, capfd) -> None:
        name = os.fsdecode(b"caf\xe9.png")
        for folder in folders:
            (folder / "1.png").rename(folder / name)
        flags = ["--csv", tmp_path / "t.csv", "--markdown", tmp_path / "t.md", "--report", tmp_path / "report"]
        assert evaluate(*flags)["pairs"] == 3
        assert "caf\\udce9" in (tmp_path / "t.csv").read_text(encoding="utf-8")
        (tmp_path / "masks").mkdir()
        write_png(tmp_path / "masks" / "0.png", np.eye(60, 80, dtype=np.uint8))
        for part in ("plain", "lit"):
            save_row(tmp_path / part, "mean", folders)
        methods = ["--method", f"T={tmp_path / 'lit'}", "--method", f"T_plain={tmp_path / 'plain'}"]
        evaluate("--panel", "text", *methods, "--masks", tmp_path / "masks")
        assert "caf\\udce9" in capfd.readouterr().out

    def test_the_summary_is_told_before_anything_is_written(self, folders, tmp_path, monkeypatch, capfd) -> None:
        def full(*_: object) -> None:
            raise FileError("the disk", "one with room", "none")

        monkeypatch.setattr("textdifuse_ros.evaluate.run.write_report", full)
        line = ["--visible", folders[0], "--infrared", folders[1], "--jobs", 1, "--report", tmp_path / "report"]
        assert main(["evaluate", *map(str, line)]) == 2
        captured = capfd.readouterr()
        assert "| clahe+sum " in captured.out and "the disk must be one with room" in captured.err

    def test_inputs_are_saved_below_clean_and_leave_the_sources_alone(self, evaluate, folders, tmp_path) -> None:
        visible, infrared = folders[0].rename(tmp_path / "visible"), folders[1].rename(tmp_path / "infrared")
        before = {path: path.read_bytes() for folder in (visible, infrared) for path in folder.iterdir()}
        evaluate("--save-inputs", tmp_path, "--limit", 1, visible=visible, infrared=infrared)
        assert all(path.read_bytes() == data for path, data in before.items())
        saved = {str(path.parent.relative_to(tmp_path / "clean")) for path in (tmp_path / "clean").rglob("0.png")}
        assert saved == {"visible", "infrared", "visible+pre", "infrared+pre"}

    def test_it_refuses_constants_of_json_that_are_no_json(self, evaluate, tmp_path) -> None:
        evaluate()
        assert not any(word in (tmp_path / "out.json").read_text() for word in ("NaN", "Infinity"))


class TestConclusions:
    ROWS = (Row("max"), Row("sum"), Row("peer", Path("p")), Row("other", Path("o")))

    @staticmethod
    def table(**means):
        """A table of one metric a keyword, each with a figure for every row."""
        records = [
            Record("", row.name, "0", {metric: float(values[n]) for metric, values in means.items()})
            for n, row in enumerate(TestConclusions.ROWS)
        ]
        return summarise(records, TestConclusions.ROWS)

    def test_a_metric_that_a_control_leads_proves_nothing(self) -> None:
        table = self.table(EN=(7, 6, 5, 4), Qabf=(0.1, 0.2, 0.3, 0.25))
        assert table.leaders == {"EN": "max", "Qabf": "peer"}
        assert table.proves_nothing == ("EN",)

    def test_less_is_better_for_colour_error(self) -> None:
        table = self.table(dE00=(3, 4, 1, 2))
        assert table.leaders["dE00"] == "peer" and table.proves_nothing == ()

    def test_a_control_that_draws_level_takes_the_proof_away(self) -> None:
        assert self.table(SCD=(1.5, 1, 1.5, 1)).proves_nothing == ("SCD",)

    def test_a_preprocessed_control_is_a_control(self) -> None:
        rows = (Row("max+pre"), Row("peer+pre", Path("p")))
        records = [Record("", row.name, "0", {"SSIM": value}) for row, value in zip(rows, (0.9, 0.8), strict=True)]
        assert summarise(records, rows).proves_nothing == ("SSIM",)

    def test_a_nan_does_not_lead(self) -> None:
        assert self.table(VIF=(math.nan, 0.4, 0.5, math.nan)).leaders == {"VIF": "peer"}

    def test_a_mean_over_some_of_the_images_does_not_lead(self) -> None:
        rows = (Row("max"), Row("peer", Path("p")))
        records = [Record("", "max", str(n), {"EN": 9.0 if n else math.nan}) for n in range(4)]
        records += [Record("", "peer", str(n), {"EN": 7.0}) for n in range(4)]
        table = summarise(records, rows)
        assert (table.leaders, table.proves_nothing) == ({"EN": "peer"}, ())
        assert show(table.rows["max"]["EN"], "EN") == "9.00 (3 of 4)"
        assert show(table.rows["max"]["EN"], "EN", intervals=True) == "9.00 [9.00, 9.00] (3 of 4)"
        evaluation = Evaluation("clean", "s", 4, rows, tuple(records), table)
        assert "| 9.00 [9.00, 9.00] (3 of 4) |" in to_markdown(evaluation) and UNDEFINED in to_markdown(evaluation)
        assert UNDEFINED not in to_markdown(replace(evaluation, table=summarise(records[4:], rows)))

    def test_a_mean_over_conditions_is_not_one_over_those_that_are_defined(self) -> None:
        records = [Record(c, "max", "0", {"EN": v}) for c, v in (("a", 1.0), ("b", math.nan))]
        interval = summarise([*records, Record("a", "max", "1", {"EN": 5.0})], (Row("max"),)).rows["max"]["EN"]
        assert (interval.mean, interval.defined, interval.undefined) == (5, 1, 1)

    def test_a_name_with_a_bar_is_one_cell(self) -> None:
        row = Row("a|b", Path("p"))
        table = summarise([Record("", row.name, "0", {"EN": 1.0})], (row,))
        assert "| a\\|b |" in markdown_table(table)

    def test_an_image_counts_once_however_many_conditions_it_has(self) -> None:
        records = [Record(c, "max", "0", {"EN": v}) for c, v in (("a", 1.0), ("b", 3.0))]
        interval = summarise([*records, Record("a", "max", "1", {"EN": 5.0})], (Row("max"),)).rows["max"]["EN"]
        assert (interval.mean, interval.defined) == (3.5, 2)

    def test_differences_are_taken_image_by_image(self) -> None:
        records = [Record("", "max", str(n), {"EN": float(10 * n)}) for n in range(20)]
        records += [Record("", "peer", str(n), {"EN": 10 * n + 0.5 + 0.01 * (n % 3)}) for n in range(20)]
        apart = differences(records, "peer", "max")["EN"]
        assert apart.mean == pytest.approx(0.51, abs=0.01) and 0.49 < apart.low < apart.high < 0.53

    def test_differences_of_objects_are_drawn_by_image(self) -> None:
        records = [Record("", "max", str(n % 2), {"contrast": 0.0}, n) for n in range(1, 9)]
        records += [Record("", "peer", str(n % 2), {"contrast": float(n % 2)}, n) for n in range(1, 9)]
        apart = differences(records, "peer", "max")["contrast"]
        assert (apart.mean, apart.low, apart.high, apart.defined) == (0.5, 0, 1, 8)

    def test_every_metric_of_the_panels_has_a_description_and_a_direction(self) -> None:
        assert set(CLEAN_METRICS) <= set(METRICS)
        assert {name for name in CLEAN_METRICS if METRICS[name].better < 0} == {"dE00"}


class TestDegradedPanel:
    CHOSEN = ("--panel", "degraded", "--condition", "low_light", "--condition", "thermal_stripes")

    def test_all_conditions_are_measured_against_the_clean_sources(self, evaluate, tmp_path) -> None:
        content = evaluate("--panel", "degraded", "--limit", 1, "--csv", tmp_path / "t.csv")
        assert list(content["conditions"]) == list(CONDITIONS)
        keys = [*CLEAN_KEYS[:-1], "PSNR_consistency", "dE00"]
        for name in ("low_light", "thermal_stripes"):
            fused = CONTROLS["max"](*degrade_pair(name, *scene(0), "0"))
            expected = clean_metrics(fused, *scene(0))
            figures = content["conditions"][name]["rows"]["max"]
            assert sorted(figures) == sorted(keys)
            assert figures["VIF_min"]["mean"] == pytest.approx(expected["VIF_min"], rel=1e-9)

    def test_max_is_shown_with_preprocessing_too(self, evaluate) -> None:
        content = evaluate(*self.CHOSEN)
        figures = content["conditions"]["low_light"]["rows"]
        values = []
        for number in range(3):
            fused = CONTROLS["max"](*preprocess(*degrade_pair("low_light", *scene(number), str(number))))
            values.append(clean_metrics(fused, *scene(number))["SSIM"])
        assert figures["max+pre"]["SSIM"]["mean"] == pytest.approx(np.mean(values), rel=1e-9)
        assert figures["max+pre"] != figures["max"]

    def test_consistency_compares_with_the_own_fusion_of_the_clean_pair(self, evaluate) -> None:
        rows = evaluate(*self.CHOSEN)["conditions"]["thermal_stripes"]["rows"]
        assert rows["visible"]["PSNR_consistency"]["mean"] == 100
        own, striped = (
            CONTROLS["mean"](*pair).astype(float)
            for pair in (scene(2), degrade_pair("thermal_stripes", *scene(2), "2"))
        )
        psnr = 10 * np.log10(255**2 / np.mean((own - striped) ** 2))
        assert abs(rows["mean"]["PSNR_consistency"]["mean"] - psnr) < 3

    def test_what_the_methods_are_given_can_be_saved_and_their_results_read_back(self, evaluate, tmp_path) -> None:
        evaluate(*self.CHOSEN, "--save-inputs", tmp_path / "given")
        for pre in ("", "+pre"):
            for condition in ("clean", "low_light", "thermal_stripes"):
                folder = tmp_path / "given" / condition
                for number in range(3):
                    pair = (
                        read_visible(folder / f"visible{pre}" / f"{number}.png"),
                        read_infrared(folder / f"infrared{pre}" / f"{number}.png"),
                    )
                    write_png(tmp_path / f"peer{pre}" / condition / f"{number}.png", CONTROLS["max"](*pair))
        methods = ["--method", f"Peer={tmp_path / 'peer'}", "--method", f"Peer+pre={tmp_path / 'peer+pre'}"]
        content = evaluate(*self.CHOSEN, *methods)
        for table in content["conditions"].values():
            assert table["rows"]["Peer"] == table["rows"]["max"]
            assert table["rows"]["Peer+pre"] == table["rows"]["max+pre"]

    def test_the_model_fuses_the_degraded_and_the_preprocessed_pairs(self, evaluate, tiny_checkpoint, tmp_path) -> None:
        model = ["--model", tiny_checkpoint, "--threads", 1, "--steps", 1, "--pre", "textdifuse", "--limit", 1]
        content = evaluate(*self.CHOSEN, *model, "--save-fused", tmp_path / "kept")
        assert {"textdifuse", "textdifuse+pre"} <= set(content["conditions"]["low_light"]["rows"])
        assert "max+pre" not in content["rows"], "--pre names all of them"
        images = sorted(str(p.relative_to(tmp_path / "kept")) for p in (tmp_path / "kept").rglob("*.png"))
        parts = ("clean", "low_light", "thermal_stripes")
        assert images == sorted(f"{row}/{part}/0.png" for row in ("textdifuse", "textdifuse+pre") for part in parts)
        texts = {name: json.loads(read_png_metadata(tmp_path / "kept" / name)["textdifuse"]) for name in images}
        assert texts["textdifuse+pre/low_light/0.png"]["given"] == "low_light+pre"
        assert texts["textdifuse/low_light/0.png"]["given"] == "low_light"
        assert "given" not in texts["textdifuse/clean/0.png"] and texts["textdifuse/clean/0.png"]["steps"] == 1

    def test_a_missing_condition_of_a_method_is_refused(self, refused, folders, tmp_path) -> None:
        for part in ("clean", "low_light"):
            save_row(tmp_path / "peer" / part, "max", folders)
        line = refused(*self.CHOSEN, "--method", f"Peer={tmp_path / 'peer'}")
        assert f"the result of Peer for 0 must be the file {tmp_path}/peer/thermal_stripes/0.png" in line
        assert "3 of 9 images are missing" in line


class TestVideoPanel:
    @pytest.fixture
    def frames(self, tmp_path) -> tuple[Path, Path]:
        """Four equal frames."""
        for number in range(4):
            visible, infrared = scene(0)
            write_png(tmp_path / "v" / f"{number:03}.png", visible)
            write_png(tmp_path / "i" / f"{number:03}.png", infrared)
        return tmp_path / "v", tmp_path / "i"

    def test_a_still_scene_does_not_flicker_and_a_blinking_method_does(self, evaluate, frames, tmp_path) -> None:
        for number in range(4):
            fused = CONTROLS["mean"](*scene(0)).astype(int) + 20 * (number % 2)
            write_png(tmp_path / "blink" / f"{number:03}.png", np.clip(fused, 0, 255).astype(np.uint8))
        flags = ["--panel", "video", "--method", f"Blink={tmp_path / 'blink'}"]
        content = evaluate(*flags, visible=frames[0], infrared=frames[1])
        rows = content["rows"]
        assert rows["max"]["flicker"]["mean"] == 0 and content["pairs"] == 4
        assert rows["Blink"]["flicker"]["mean"] == pytest.approx(20, abs=1)
        assert rows["max"]["AG"]["mean"] > rows["mean"]["AG"]["mean"]

    def test_the_model_fuses_every_frame(self, evaluate, frames, tiny_checkpoint) -> None:
        flags = ["--panel", "video", "--model", tiny_checkpoint, "--threads", 1, "--steps", 1]
        rows = evaluate(*flags, visible=frames[0], infrared=frames[1])["rows"]
        assert rows["textdifuse"]["flicker"]["mean"] == 0, "equal frames and seeds give equal images"

    def test_a_limit_takes_frames_that_follow_one_another(self, evaluate, frames, tmp_path) -> None:
        flags = ["--panel", "video", "--limit", 3, "--csv", tmp_path / "t.csv"]
        assert evaluate(*flags, visible=frames[0], infrared=frames[1])["pairs"] == 3
        assert {line.split(",")[3] for line in (tmp_path / "t.csv").read_text().splitlines()[1:]} == {"001", "002"}

    @pytest.mark.parametrize("kind", [np.uint16, np.float32])
    def test_thermal_counts_are_mapped_as_by_the_node_and_not_frame_by_frame(
        self, evaluate, frames, tiny_checkpoint, tmp_path, kind
    ) -> None:
        """Something hot comes in, which takes the percentiles of a single frame along."""
        gain = ThermalGain(SensorConfig())
        for number in range(4):
            counts = 3000 + scene(0)[1].astype(kind)
            if number >= 2:
                counts[:10, :10] = 4000
            (frames[1] / f"{number:03}.png").unlink()
            assert cv2.imwrite(str(frames[1] / f"{number:03}.tiff"), counts)
            write_png(tmp_path / "mapped" / f"{number:03}.png", gain.apply(counts, number * 100_000_000))
        flags = ["--panel", "video", "--model", tiny_checkpoint, "--threads", 1, "--steps", 1]
        content = evaluate(*flags, "--save-fused", tmp_path / "kept", visible=frames[0], infrared=frames[1])
        assert content["rows"] == evaluate(*flags, visible=frames[0], infrared=tmp_path / "mapped")["rows"]
        assert '"infrared": "003.tiff"' in read_png_metadata(tmp_path / "kept" / "textdifuse" / "003.png")["textdifuse"]

    def test_one_frame_is_no_sequence(self, refused) -> None:
        assert "must be of at least two frames, got 1" in refused("--panel", "video", "--limit", 1)

    def test_frames_of_two_sizes_are_refused(self, refused, frames) -> None:
        visible, infrared = scene(0, 64, 80)
        write_png(frames[0] / "003.png", visible)
        write_png(frames[1] / "003.png", infrared)
        line = refused("--panel", "video", visible=frames[0], infrared=frames[1])
        assert "003.png must be as large as" in line


class TestTextPanel:
    BOX = (12, 22, 28, 38)

    @pytest.fixture
    def results(self, folders, tmp_path) -> list:
        """A method that adds 30 levels inside the box of every image, and the boxes."""
        save_row(tmp_path / "plain", "mean", folders)
        mask = box_masks([self.BOX], 60, 80)[0]
        for number in range(3):
            lit = read_visible(tmp_path / "plain" / f"{number}.png")
            lit[mask] += 30
            write_png(tmp_path / "lit" / f"{number}.png", lit)
            write_png(tmp_path / "masks" / f"{number}.png", mask.astype(np.uint8) * 7)
        (tmp_path / "boxes").mkdir()
        for number in (0, 2):
            line = "person " + " ".join(map(str, self.BOX))
            (tmp_path / "boxes" / f"{number}.txt").write_text(line + "\n")
        return ["--panel", "text", "--method", f"T={tmp_path / 'lit'}", "--method", f"T_plain={tmp_path / 'plain'}"]

    def test_the_gain_and_the_change_outside_are_measured_on_masks(self, evaluate, results, tmp_path) -> None:
        content = evaluate(*results, "--masks", tmp_path / "masks")
        row = content["rows"]["T"]
        before, after = row["contrast_plain"]["mean"], row["contrast"]["mean"]
        assert content["pairs"] == 3 and "T_plain" not in content["rows"]
        assert after == pytest.approx(before + 30, abs=0.5)
        assert row["gain"]["mean"] == pytest.approx(after / before - 1, rel=1e-6)
        assert row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]
        assert row["changed_outside"]["mean"] == row["largest_outside"]["mean"] == 0
        assert content["rows"]["mean"]["contrast"]["mean"] == pytest.approx(before, rel=1e-9)

    def test_intervals_are_over_images_also_those_of_the_differences(self, evaluate, results, tmp_path) -> None:
        """Of three images two have one object and one has six: the middle of the means spans from one to another."""
        for number in range(3):
            levels = np.zeros((60, 80), np.uint8)
            for n in range(6 if number == 1 else 1):
                levels[14 + 14 * (n // 3) :, 12 + 20 * (n % 3) :][:8, :8] = n + 1
            write_png(tmp_path / "masks" / f"{number}.png", levels)
        content = evaluate(*results, "--masks", tmp_path / "masks", "--csv", tmp_path / "t.csv")
        with (tmp_path / "t.csv").open() as file:
            lines = [line for line in csv.DictReader(file) if line["row"] == "T" and line["contrast"]]
        assert [line["picture"] for line in lines] == ["0#1", *(f"1#{n}" for n in range(1, 7)), "2#1"]
        contrasts = [float(line["contrast"]) for line in lines]
        means = [contrasts[0], np.mean(contrasts[1:7]), contrasts[7]]
        figures = content["rows"]["T"]["contrast"]
        assert figures["mean"] == pytest.approx(np.mean(contrasts), rel=1e-4)
        # All three draws of one image: 1 in 27 each, which is more than the 2.5 % that are left out at either end.
        assert (figures["low"], figures["high"]) == pytest.approx((min(means), max(means)), rel=1e-4)
        apart = content["against"]["max"]["T"]["contrast"]
        assert apart["low"] <= apart["mean"] <= apart["high"]

    def test_a_change_outside_does_not_go_unseen(self, evaluate, results, tmp_path) -> None:
        image = read_visible(tmp_path / "lit" / "1.png")
        image[59, 79] ^= 4
        write_png(tmp_path / "lit" / "1.png", image)
        row = evaluate(*results, "--masks", tmp_path / "masks")["rows"]["T"]
        assert row["largest_outside"]["mean"] == pytest.approx(4 / 3)
        assert row["changed_outside"]["mean"] == pytest.approx(1 / (60 * 80 - 16 * 16) / 3)

    def test_coloured_masks_are_refused(self, refused, results, tmp_path) -> None:
        """By their luma two objects might be one."""
        write_png(tmp_path / "masks" / "1.png", np.full((60, 80, 3), (1, 0, 0), np.uint8))
        line = refused(*results, "--masks", tmp_path / "masks")
        assert f"the mask {tmp_path}/masks/1.png must be grey, got color" in line

    def test_images_without_boxes_are_left_out_and_named(self, evaluate, results, tmp_path, capfd) -> None:
        assert evaluate(*results, "--boxes", tmp_path / "boxes")["pairs"] == 2
        assert "want of labeled objects: 1 images (1)" in capfd.readouterr().out

    def test_a_limit_is_one_of_images_with_objects(self, evaluate, results, tmp_path, capfd) -> None:
        (tmp_path / "boxes" / "0.txt").unlink()
        assert evaluate(*results, "--boxes", tmp_path / "boxes", "--limit", 1)["pairs"] == 1
        assert "want of labeled objects: 2 images (0, 1)" in capfd.readouterr().out

    def test_a_method_without_its_plain_images_is_refused(self, refused, results, tmp_path) -> None:
        line = refused(*results[:4], "--masks", tmp_path / "masks")
        assert "--method must be given for T_plain too" in line

    def test_boxes_of_another_form_are_refused_by_line(self, refused, results, tmp_path) -> None:
        (tmp_path / "boxes" / "2.txt").write_text("person 1 2 3 4\nperson 1 2\n")
        line = refused(*results, "--boxes", tmp_path / "boxes")
        assert f"line 2 of {tmp_path}/boxes/2.txt must be 'class left top right bottom'" in line


class TestRefusals:
    def test_a_table_over_an_image_or_over_another_table(self, refused, folders, tmp_path) -> None:
        image = folders[0] / "1.png"
        before = image.read_bytes()
        assert "--csv must be a file of its own, got" in refused("--csv", image)
        assert "that of --json" in refused("--json", tmp_path / "a", "--markdown", tmp_path / "b" / ".." / "a")
        assert image.read_bytes() == before

    def test_an_image_without_counterpart(self, refused, folders) -> None:
        (folders[1] / "1.png").unlink()
        assert f"{folders[1]} must be one with a counterpart for every image" in refused()
        (folders[0] / "1.png").rename(folders[0].parent / "1.png")
        (folders[0] / "0.png").unlink()
        assert "1 missing: 0" in refused()

    def test_a_pair_of_two_sizes(self, refused, folders) -> None:
        write_png(folders[1] / "1.png", scene(1, 61, 80)[1])
        line = refused()
        assert f"{folders[1]}/1.png must be as large as" in line and "80 x 60 pixels), got 80 x 61" in line

    def test_a_coloured_infrared_image(self, refused, folders) -> None:
        assert "must be grey, got color" in refused(visible=folders[1], infrared=folders[0])

    def test_a_grey_infrared_image_in_three_channels_is_taken(self, evaluate, folders) -> None:
        expected = evaluate()["rows"]
        for path in folders[1].iterdir():
            write_png(path, np.repeat(read_infrared(path)[..., None], 3, 2))
        assert evaluate()["rows"] == expected

    def test_an_image_too_small_for_the_metrics(self, refused, folders) -> None:
        visible, infrared = scene(1, 40, 80)
        write_png(folders[0] / "1.png", visible)
        write_png(folders[1] / "1.png", infrared)
        assert f"{folders[0]}/1.png must be at least 41 x 41 pixels, got 80 x 40" in refused()

    def test_empty_and_missing_folders(self, refused, tmp_path) -> None:
        (tmp_path / "empty").mkdir()
        assert "one with images" in refused(visible=tmp_path / "empty")
        assert "no such file or folder" in refused(infrared=tmp_path / "nowhere")

    def test_a_missing_or_wrongly_sized_result_is_named(self, refused, folders, tmp_path) -> None:
        method = save_row(tmp_path / "peer", "max", folders)
        write_png(method / "1.png", scene(1, 50, 80)[0])
        line = refused("--method", f"Peer={method}")
        assert f"{method}/1.png must be as large as" in line and "got 80 x 50" in line
        (method / "1.png").unlink()
        assert f"the result of Peer for 1 must be the file {method}/1.png" in refused("--method", f"Peer={method}")

    def test_a_folder_to_save_in_that_is_read(self, refused, folders, tiny_checkpoint, tmp_path) -> None:
        part = tmp_path / "set" / "clean"
        part.mkdir(parents=True)
        clean = [folder.rename(part / name) for folder, name in zip(folders, ("visible", "infrared"), strict=True)]
        read = {"visible": clean[0], "infrared": clean[1]}
        before = {path: path.read_bytes() for path in part.rglob("*.png")}
        words = "must be a folder in which no images are that are read, got"
        assert f"--save-inputs {words} {part}/visible" in refused("--save-inputs", part.parent, **read)
        assert f"--report {words} {part}/visible" in refused("--report", clean[0], **read)
        (tmp_path / "link").mkdir()
        (tmp_path / "link" / "textdifuse").symlink_to(clean[0])
        model = ["--model", tiny_checkpoint, "--threads", 1, "--save-fused", tmp_path / "link"]
        assert f"--save-fused {words} {tmp_path}/link/textdifuse" in refused(*model, **read)
        peer = save_row(tmp_path / "kept" / "textdifuse", "max", clean)
        line = refused(*model[:-1], tmp_path / "kept", "--method", f"Before={peer}", **read)
        assert f"--save-fused {words} {peer}" in line
        line = refused(*model[:-1], tmp_path / "kept", "--panel", "text", "--masks", peer, **read)
        assert f"--save-fused {words} {peer}" in line
        assert before == {path: path.read_bytes() for path in part.rglob("*.png")}

    @pytest.mark.parametrize("option", ["--json", "--csv", "--markdown", "--report", "--save-inputs"])
    def test_what_cannot_be_written_is_found_before_anything_is_measured(
        self, refused, tmp_path, monkeypatch, option
    ) -> None:
        monkeypatch.setattr("textdifuse_ros.evaluate.run.run_pairs", lambda *_: pytest.fail("measured"))
        (tmp_path / "file").write_text("mine")
        assert f"the output {tmp_path}/file/a/b must be a f" in refused(option, tmp_path / "file" / "a" / "b")
        is_file = option in ("--json", "--csv", "--markdown")
        line = refused(option, tmp_path if is_file else tmp_path / "file")
        assert f"that can be written, got a {'folder' if is_file else 'file'}" in line
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_method_of_the_name_of_a_row_of_the_model(self, refused, tiny_text_checkpoint, tmp_path) -> None:
        (tmp_path / "masks").mkdir()
        write_png(tmp_path / "masks" / "0.png", np.eye(60, 80, dtype=np.uint8))
        model = ["--model", tiny_text_checkpoint, "--threads", 1]
        text = ["text", "--masks", tmp_path / "masks"]
        for panel, name in ((["video"], "textdifuse_each"), (text, "textdifuse_plain")):
            line = refused("--panel", *panel, *model, "--method", f"{name}=.")
            assert f"given once for each name, got {name} twice; --model has a row of that name" in line

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--save-fused", "kept"], "--save-fused must be given with --model, got no model"),
            (["--examples", "3"], "--examples must be given with --report, got without it"),
            (["--strength", "0"], "--strength must be given with --panel text"),
            (["--data", "."], "--data must be given with --set"),
            (["--panel", "text", "--strength", "0"], "--strength must be given with --model"),
            (["--steps", "2"], "--steps must be given with --model, got without it"),
            (["--no-cuda-graphs"], "--cuda-graphs must be given with --model"),
            (["--panel", "night"], "--panel must be one of clean, degraded, video, text, got 'night'"),
            (["--panel", "degraded", "--condition", "fog"], "--condition must be one of low_light"),
            (["--condition", "haze"], "--condition must be given with --panel degraded"),
            (["--method", "Peer"], "--method must be NAME=FOLDER, got 'Peer'"),
            (["--method", "max=."], "none that the table already has, got 'max'"),
            (["--method", "textdifuse=."], "none that the table already has"),
            (["--method", "Peer=nowhere"], "the results of Peer must be in a folder"),
            (["--method", "Peer=.", "--method", "Peer=."], "given once for each name, got Peer twice"),
            (["--pre", "sharpen"], "--pre must be the name of a control"),
            (["--pre", "textdifuse"], "--pre textdifuse must be given with --model"),
            (["--panel", "video", "--pre", "max"], "--pre must be given with --panel clean or degraded"),
            (["--panel", "text"], "--panel text must be given with --boxes or --masks"),
            (["--masks", "."], "--boxes or --masks must be given with --panel text"),
            (["--set", "msrs_dev"], "either --set or --visible and --infrared, got both"),
            (["--jobs", "-1"], "--jobs must be an integer in [1, 1024], got -1"),
            (["--limit", "-1"], "--limit must be an integer of at least 0"),
        ],
    )
    def test_options_that_do_not_go_together(self, refused, flags, message) -> None:
        assert message in refused(*flags)

    def test_a_named_set_needs_its_data(self, refused, monkeypatch, tmp_path) -> None:
        monkeypatch.delenv("TEXTDIFUSE_DATA", raising=False)
        assert "set --data or TEXTDIFUSE_DATA" in refused("--set", "msrs_dev", visible=None)
        assert "--set must be one of roadscene_test" in refused("--set", "x", "--data", tmp_path, visible=None)
        assert "no such file or folder" in refused("--set", "msrs_dev", "--data", tmp_path, visible=None)
