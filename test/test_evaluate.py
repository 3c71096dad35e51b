"""``textdifuse evaluate``: rows, figures and outputs of the panels clean and degraded."""

from __future__ import annotations

import csv
import json
import os

import cv2
import numpy as np
import pytest
from evaluation_rig import CLEAN_KEYS, save_row, scene

from textdifuse_ros.cli.main import main
from textdifuse_ros.data.conditions import CONDITIONS, SUITE, degrade_pair, saturated_part
from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.controls import CONTROLS
from textdifuse_ros.evaluate.preprocess import preprocess
from textdifuse_ros.image.files import read_infrared, read_png_metadata, read_visible, write_png
from textdifuse_ros.metrics.table import clean_metrics

pytest_plugins = ["evaluation_rig"]


class TestCleanPanel:
    def test_without_methods_the_controls_are_measured_without_a_checkpoint(self, evaluate, monkeypatch) -> None:
        monkeypatch.setenv("TEXTDIFUSE_MODELS", "/nowhere")
        content = evaluate()
        assert list(content["rows"]) == [
            "visible", "infrared", "mean", "max", "max+noise15", "clahe+max", "sum", "clahe+sum",
        ]  # fmt: skip
        assert content["pairs"] == 3 and content["panel"] == "clean"
        assert all(list(row) == CLEAN_KEYS for row in content["rows"].values())

    def test_a_mean_is_the_mean_of_the_images_metrics_and_inside_its_interval(self, evaluate) -> None:
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

    def test_a_folder_of_results_is_a_row_measured_like_any_other(self, evaluate, folders, tmp_path) -> None:
        method = save_row(tmp_path / "peer", "sum", folders)
        rows = evaluate("--method", f"Peer={method}")["rows"]
        assert rows["Peer"] == rows["sum"] and list(rows)[-1] == "Peer"

    def test_the_row_textdifuse_measures_the_images_that_fuse_saves(
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

    def test_csv_contains_every_image_and_markdown_the_verdict(self, evaluate, tmp_path) -> None:
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

    def test_an_undefined_metric_is_null_and_counted(self, evaluate, folders, tmp_path) -> None:
        for path in folders[1].iterdir():
            write_png(path, np.full((60, 80), 90, np.uint8))
        content = evaluate("--csv", tmp_path / "t.csv")
        assert content["rows"]["max"]["VIF_infrared"] == {"mean": None, "low": None, "high": None, "undefined": 3}
        assert ",nan," in (tmp_path / "t.csv").read_text()

    def test_a_file_name_that_is_not_utf8_is_accepted(self, evaluate, folders, tmp_path, capfd) -> None:
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

    def test_the_summary_is_printed_before_anything_is_written(self, folders, tmp_path, monkeypatch, capfd) -> None:
        def full(*_: object) -> None:
            raise FileError("the disk", "one with room", "none")

        monkeypatch.setattr("textdifuse_ros.evaluate.run.write_report", full)
        line = ["--visible", folders[0], "--infrared", folders[1], "--jobs", 1, "--report", tmp_path / "report"]
        assert main(["evaluate", *map(str, line)]) == 2
        captured = capfd.readouterr()
        assert "| clahe+sum " in captured.out and "the disk must be one with room" in captured.err

    def test_inputs_are_saved_below_clean_and_the_sources_are_unchanged(self, evaluate, folders, tmp_path) -> None:
        visible, infrared = folders[0].rename(tmp_path / "visible"), folders[1].rename(tmp_path / "infrared")
        before = {path: path.read_bytes() for folder in (visible, infrared) for path in folder.iterdir()}
        evaluate("--save-inputs", tmp_path, "--limit", 1, visible=visible, infrared=infrared)
        assert all(path.read_bytes() == data for path, data in before.items())
        saved = {str(path.parent.relative_to(tmp_path / "clean")) for path in (tmp_path / "clean").rglob("0.png")}
        assert saved == {"visible", "infrared", "visible+pre", "infrared+pre"}

    def test_the_json_file_contains_no_nan_and_no_infinity(self, evaluate, tmp_path) -> None:
        evaluate()
        assert not any(word in (tmp_path / "out.json").read_text() for word in ("NaN", "Infinity"))


class TestDegradedPanel:
    CHOSEN = ("--panel", "degraded", "--condition", "low_light", "--condition", "thermal_stripes")

    def test_all_conditions_are_measured_against_the_clean_sources(self, evaluate, tmp_path) -> None:
        content = evaluate("--panel", "degraded", "--limit", 1, "--csv", tmp_path / "t.csv")
        assert list(content["conditions"]) == list(CONDITIONS)
        assert content["averaged"] == list(SUITE)
        keys = [*CLEAN_KEYS[:-1], "PSNR_consistency", "dE00"]
        for name in ("low_light", "thermal_stripes"):
            fused = CONTROLS["max"](*degrade_pair(name, *scene(0), "0"))
            expected = clean_metrics(fused, *scene(0))
            figures = content["conditions"][name]["rows"]["max"]
            assert sorted(figures) == sorted(keys)
            assert figures["VIF_min"]["mean"] == pytest.approx(expected["VIF_min"], rel=1e-9)

    def test_glare_and_smoke_stand_apart_from_the_means(self, evaluate, capfd) -> None:
        content = evaluate(*self.CHOSEN, "--condition", "glare", "--condition", "smoke")
        by_condition = content["conditions"]
        assert list(by_condition) == ["low_light", "thermal_stripes", "glare", "smoke"]
        figures = [by_condition[name]["rows"]["max"]["Qabf"]["mean"] for name in by_condition]
        assert content["rows"]["max"]["Qabf"]["mean"] == pytest.approx(np.mean(figures[:2]), rel=1e-9)
        assert "Not in the means over conditions: glare, smoke." in capfd.readouterr().out
        content = evaluate("--panel", "degraded", "--condition", "smoke")
        assert content["averaged"] == ["smoke"]
        assert content["rows"] == content["conditions"]["smoke"]["rows"]

    def test_under_glare_the_saturated_part_is_compared_with_the_infrared(self, evaluate) -> None:
        rows = evaluate("--panel", "degraded", "--condition", "glare", "--condition", "smoke")["conditions"]
        expected = []
        for number in range(3):
            visible, infrared = scene(number)
            degraded = degrade_pair("glare", visible, infrared, str(number))
            part = saturated_part(degraded[0], visible)
            grey = cv2.cvtColor(CONTROLS["mean"](*degraded), cv2.COLOR_RGB2GRAY)
            expected.append(np.corrcoef(grey[part], infrared[part])[0, 1])
        assert rows["glare"]["rows"]["mean"]["corr_saturated"]["mean"] == pytest.approx(np.mean(expected))
        assert rows["glare"]["rows"]["infrared"]["corr_saturated"]["mean"] > 0.99
        assert "corr_saturated" not in rows["smoke"]["rows"]["mean"]

    def test_max_is_also_measured_with_preprocessing(self, evaluate) -> None:
        content = evaluate(*self.CHOSEN)
        figures = content["conditions"]["low_light"]["rows"]
        values = []
        for number in range(3):
            fused = CONTROLS["max"](*preprocess(*degrade_pair("low_light", *scene(number), str(number))))
            values.append(clean_metrics(fused, *scene(number))["SSIM"])
        assert figures["max+pre"]["SSIM"]["mean"] == pytest.approx(np.mean(values), rel=1e-9)
        assert figures["max+pre"] != figures["max"]

    def test_consistency_compares_with_the_rows_own_fusion_of_the_clean_pair(self, evaluate) -> None:
        rows = evaluate(*self.CHOSEN)["conditions"]["thermal_stripes"]["rows"]
        assert rows["visible"]["PSNR_consistency"]["mean"] == 100
        own, striped = (
            CONTROLS["mean"](*pair).astype(float)
            for pair in (scene(2), degrade_pair("thermal_stripes", *scene(2), "2"))
        )
        psnr = 10 * np.log10(255**2 / np.mean((own - striped) ** 2))
        assert abs(rows["mean"]["PSNR_consistency"]["mean"] - psnr) < 3

    def test_the_input_images_can_be_saved_and_results_of_them_read_back(self, evaluate, tmp_path) -> None:
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
        assert "max+pre" not in content["rows"], "--pre replaces the default"
        images = sorted(str(p.relative_to(tmp_path / "kept")) for p in (tmp_path / "kept").rglob("*.png"))
        parts = ("clean", "low_light", "thermal_stripes")
        assert images == sorted(f"{row}/{part}/0.png" for row in ("textdifuse", "textdifuse+pre") for part in parts)
        texts = {name: json.loads(read_png_metadata(tmp_path / "kept" / name)["textdifuse"]) for name in images}
        assert texts["textdifuse+pre/low_light/0.png"]["given"] == "low_light+pre"
        assert texts["textdifuse/low_light/0.png"]["given"] == "low_light"
        assert "given" not in texts["textdifuse/clean/0.png"] and texts["textdifuse/clean/0.png"]["steps"] == 1

    def test_a_missing_condition_of_a_method_is_rejected(self, refused, folders, tmp_path) -> None:
        for part in ("clean", "low_light"):
            save_row(tmp_path / "peer" / part, "max", folders)
        line = refused(*self.CHOSEN, "--method", f"Peer={tmp_path / 'peer'}")
        assert f"the result of Peer for 0 must be the file {tmp_path}/peer/thermal_stripes/0.png" in line
        assert "3 of 9 images are missing" in line
