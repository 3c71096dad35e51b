"""``textdifuse evaluate --panel detection``: a detector's average precision on sensors, controls and fused images."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from tiny_detectors import save_yolox

from textdifuse_ros.evaluate.detection_images import FALSE, FOUND, MISSED, draw_boxes
from textdifuse_ros.evaluate.detector import Boxes
from textdifuse_ros.evaluate.images import SHEETS
from textdifuse_ros.image.files import read_png_metadata, read_visible, write_png

pytest_plugins = ["evaluation_rig"]

PERSON, CAR, DOG = (16, 48, 24, 56), (64, 48, 72, 56), (80, 0, 88, 8)
"""Boxes of one cell each."""
GROUND = 60


def fill(image: np.ndarray, box: tuple[int, int, int, int], color: tuple[int, ...] | int) -> None:
    left, top, right, bottom = box
    image[top:bottom, left:right] = color


def boxes_of(*lines: tuple[str, tuple[int, ...]]) -> str:
    return "".join(f"{kind} {' '.join(map(str, box))}\n" for kind, box in lines)


@pytest.fixture
def world(tmp_path) -> dict:
    """Four pairs: the visible image shows the car, the infrared image the person; in one both show a false person."""
    root = tmp_path / "world"
    (root / "boxes").mkdir(parents=True)
    names = ("1D", "2D", "3N", "4N")
    for name in names:
        visible, infrared = np.full((96, 96, 3), GROUND, np.uint8), np.full((96, 96), GROUND, np.uint8)
        fill(visible, CAR, (0, 0, 255))
        fill(infrared, PERSON, 255)
        if name == "4N":
            fill(visible, (40, 8, 48, 16), (255, 255, 255))
        fused = visible.copy()
        if name != "3N":
            fill(fused, PERSON, (255, 255, 255))
        for folder, image in (("vis", visible), ("ir", infrared), ("fused", fused)):
            write_png(root / folder / f"{name}.png", image)
        (root / "boxes" / f"{name}.txt").write_text(boxes_of(("People", PERSON), ("truck", CAR)))
    return {
        "root": root,
        "inputs": {"visible": root / "vis", "infrared": root / "ir"},
        "flags": [
            "--panel", "detection", "--detector", save_yolox(root / "tiny.onnx"), "--boxes", root / "boxes",
        ],
    }  # fmt: skip


@pytest.fixture
def detect(world, evaluate):
    return lambda *flags: evaluate(*world["flags"], *flags, **world["inputs"])


def means(rows: dict, metric: str) -> dict[str, float]:
    return {name: figures[metric]["mean"] for name, figures in rows.items()}


class TestFigures:
    def test_each_row_is_judged_on_its_own_image(self, detect) -> None:
        """The false person of 4N ranks equal to the three true ones in max and late, and before nothing in visible."""
        rows = detect()["rows"]
        assert list(rows) == ["visible", "infrared", "max", "late"]
        assert means(rows, "AP50_car") == {"visible": 1, "infrared": 0, "max": 1, "late": 1}
        person = means(rows, "AP50_person")
        assert person["visible"] == 0 and person["infrared"] == 1
        assert 0.8 < person["max"] < 1 and 0.8 < person["late"] < 1

    def test_the_mean_is_over_the_classes_of_the_text(self, detect) -> None:
        row = detect()["rows"]["late"]
        assert row["AP50"]["mean"] == pytest.approx((row["AP50_person"]["mean"] + row["AP50_car"]["mean"]) / 2)
        row = detect("--text", "car")["rows"]["late"]
        assert row["AP50"]["mean"] == row["AP50_car"]["mean"] == 1 and "AP50_person" in row

    def test_the_stricter_average_is_at_most_the_looser_one(self, detect, world) -> None:
        for path in (world["root"] / "boxes").iterdir():
            path.write_text(boxes_of(("person", (16, 48, 24, 58)), ("car", CAR)))  # overlap 0.8
        rows = detect()["rows"]
        assert rows["infrared"]["AP_person"]["mean"] == pytest.approx(0.7)
        assert rows["infrared"]["AP50_person"]["mean"] == 1

    def test_a_method_is_compared_with_the_better_sensor_and_with_late(self, world, detect) -> None:
        content = detect("--method", f"Peer={world['root'] / 'fused'}")
        rows, against = content["rows"], content["against"]
        assert rows["Peer"]["AP50_person"]["mean"] < 0.8
        for metric, better in (("AP50_person", "infrared"), ("AP50_car", "visible"), ("AP50", "infrared")):
            figures = against["better_sensor"]["Peer"][metric]
            best = max(rows["visible"][metric]["mean"], rows["infrared"][metric]["mean"])
            assert best == rows[better][metric]["mean"]
            assert figures["mean"] == pytest.approx(rows["Peer"][metric]["mean"] - best)
            assert figures["low"] <= figures["mean"] <= figures["high"]
        late = against["late"]["Peer"]["AP50_person"]
        assert late["mean"] == pytest.approx(rows["Peer"]["AP50_person"]["mean"] - rows["late"]["AP50_person"]["mean"])
        assert against["late"]["Peer"]["AP50_car"] == {"mean": 0, "low": 0, "high": 0}

    def test_intervals_are_over_images(self, world, detect) -> None:
        row = detect("--method", f"Peer={world['root'] / 'fused'}")["rows"]["Peer"]
        assert row["AP50_person"]["low"] < row["AP50_person"]["mean"] < row["AP50_person"]["high"]
        assert row["AP50_car"]["low"] == row["AP50_car"]["high"] == 1

    def test_day_and_night_follow_from_the_names(self, world, detect, capfd) -> None:
        content = detect("--method", f"Peer={world['root'] / 'fused'}")
        assert list(content["parts"]) == ["day", "night"]
        day, night = content["parts"]["day"], content["parts"]["night"]
        assert day["pairs"] == night["pairs"] == 2
        assert day["rows"]["Peer"]["AP50"]["mean"] == 1 > night["rows"]["Peer"]["AP50"]["mean"]
        assert day["against"]["better_sensor"]["Peer"]["AP50"]["mean"] == pytest.approx(0.5)
        assert "D is day and N is night" in capfd.readouterr().out

    def test_names_that_do_not_tell_give_no_parts(self, world, detect) -> None:
        for folder, suffix in (("vis", "png"), ("ir", "png"), ("boxes", "txt")):
            (world["root"] / folder / f"2D.{suffix}").rename(world["root"] / folder / f"COD.{suffix}")
        assert "parts" not in detect()

    def test_boxes_are_counted_per_image(self, detect, tmp_path) -> None:
        detect("--csv", tmp_path / "t.csv")
        with (tmp_path / "t.csv").open() as file:
            lines = {(line["row"], line["picture"]): line for line in csv.DictReader(file)}
        late = lines["late", "4N"]
        assert (late["objects_person"], late["found_person"], late["false_person"]) == ("1", "1", "1")
        assert (lines["visible", "1D"]["found_person"], lines["visible", "1D"]["found_car"]) == ("0", "1")

    def test_unlabeled_images_and_unknown_classes_are_named(self, world, detect, tmp_path, capfd) -> None:
        (world["root"] / "boxes" / "2D.txt").unlink()
        (world["root"] / "boxes" / "1D.txt").write_text(boxes_of(("car", CAR), ("lamp", DOG)))
        (world["root"] / "boxes" / "3N.txt").write_text("")  # an image without objects counts
        assert detect()["pairs"] == 3
        out = capfd.readouterr().out
        assert "1 images (2D)" in out and "does not know, not measured: lamp" in out
        assert "Labeled objects: 1 person, 2 car, in 3 images" in out


class TestModel:
    @pytest.fixture
    def model(self, tiny_text_checkpoint, tmp_path) -> list:
        return ["--model", tiny_text_checkpoint, "--threads", 1, "--steps", 1, "--save-fused", tmp_path / "out"]

    def test_is_fused_without_and_with_the_objects_that_the_localizer_finds(
        self, detect, model, tmp_path, monkeypatch
    ) -> None:
        from textdifuse_ros.localize.fixed import FixedLocalizer, NamedBox

        found = FixedLocalizer([NamedBox("person", (8.0, 40.0, 40.0, 72.0))])
        monkeypatch.setattr("textdifuse_ros.runtime.image_target.make_localizer", lambda _: found)
        content = detect(*model, "--strength", 2)
        assert list(content["rows"])[-2:] == ["textdifuse", "textdifuse_text"]
        assert list(content["against"]["textdifuse"]) == ["textdifuse_text"]
        assert content["about"]["strength"] == "2" and content["about"]["text"] == "person, car"
        plain, text = (read_visible(tmp_path / "out" / row / "1D.png") for row in ("textdifuse", "textdifuse_text"))
        changed = (plain != text).any(2)
        assert changed[40:72, 8:40].any() and not changed[:, 40:].any()
        made_by = json.loads(read_png_metadata(tmp_path / "out" / "textdifuse_text" / "1D.png")["textdifuse"])
        assert made_by["text"] == "person, car"

    def test_an_empty_text_gives_no_row(self, detect, model) -> None:
        rows = detect(*model, "--text", "")["rows"]
        assert "textdifuse" in rows and "textdifuse_text" not in rows


class TestReport:
    def test_shows_the_boxes_and_the_parts(self, world, detect, tmp_path) -> None:
        detect("--method", f"Peer={world['root'] / 'fused'}", "--report", tmp_path / "report", "--examples", 1)
        page = (tmp_path / "report" / "index.html").read_text()
        assert "day, 2 pairs" in page and "minus better_sensor" in page
        assert "blue if they match a labeled object" in page
        assert "person 1 of 1 · car 1 of 1" in page
        assert "proves nothing" not in page
        sheet = read_visible(tmp_path / "report" / f"{SHEETS[0]}.png").reshape(-1, 3).astype(int)
        for color in (FOUND, MISSED):
            assert (np.abs(sheet - color).max(1) < 60).any()

    def test_found_false_and_missed_boxes_have_their_colors(self) -> None:
        image = np.zeros((300, 300, 3), np.uint8)
        found, false, missed = [10.0, 40, 50, 60], [160.0, 50, 190, 90], [160.0, 160, 190, 190]
        detected = {"person": Boxes(np.array([found, false]), np.array([0.9, 0.8]))}
        drawn = draw_boxes(image, detected, {"person": np.array([found, missed])}, ["person"])
        for (x, y), color in (((20, 59), FOUND), ((175, 89), FALSE), ((175, 189), MISSED)):
            assert np.abs(drawn[y, x].astype(int) - color).max() < 40
        assert not image.any()

    def test_boxes_of_low_scores_are_not_drawn(self) -> None:
        image = np.zeros((96, 96, 3), np.uint8)
        detected = {"person": Boxes(np.array([[10.0, 40, 30, 60]]), np.array([0.2]))}
        assert not draw_boxes(image, detected, {}, ["person"]).any()


class TestRejected:
    @pytest.mark.parametrize("missing", ["--detector", "--boxes"])
    def test_an_incomplete_input(self, refused, world, missing) -> None:
        at = world["flags"].index(missing)
        flags = world["flags"][:at] + world["flags"][at + 2 :]
        assert "--panel detection must be given with --detector and --boxes" in refused(*flags, **world["inputs"])

    def test_masks_instead_of_boxes(self, refused, world) -> None:
        flags = [*world["flags"][:4], "--masks", world["root"] / "vis"]
        assert "must be given with --detector and --boxes" in refused(*flags, **world["inputs"])

    def test_a_file_that_is_no_detector_before_anything_is_fused(self, refused, world) -> None:
        (world["root"] / "tiny.onnx").write_bytes(b"none")
        assert "tiny.onnx must be an ONNX file" in refused(*world["flags"], **world["inputs"])

    def test_labels_of_no_class_of_the_detector(self, refused, world) -> None:
        for path in (world["root"] / "boxes").iterdir():
            path.write_text(boxes_of(("lamp", CAR)))
        line = refused(*world["flags"], **world["inputs"])
        assert f"the boxes {world['root']}/boxes must be of a class that the detector knows, got lamp" in line

    def test_malformed_boxes(self, refused, world) -> None:
        (world["root"] / "boxes" / "2D.txt").write_text("person 1 2\n")
        assert f"line 1 of {world['root']}/boxes/2D.txt must be" in refused(*world["flags"], **world["inputs"])

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--detector", "x.onnx"], "--detector must be given with --panel detection"),
            (["--text", "car"], "--text must be given with --panel detection"),
            (["--panel", "detection", "--pre", "max"], "--pre must be given with --panel clean or degraded"),
            (
                ["--panel", "detection", "--localizer-threshold", "0.2"],
                "--localizer-threshold must be given with --model",
            ),
        ],
    )
    def test_options_of_another_panel(self, refused, flags, message) -> None:
        assert message in refused(*flags)
