"""``textdifuse evaluate --panel text``: contrast of the objects, and changes outside them."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from evaluation_rig import save_row

from textdifuse_ros.image.files import read_visible, write_png
from textdifuse_ros.metrics.regions import box_masks

pytest_plugins = ["evaluation_rig"]


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

    def test_intervals_are_over_images_also_for_differences(self, evaluate, results, tmp_path) -> None:
        """Two of three images have one object, one has six: the interval spans the means of the images."""
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
        # Each image fills all three draws in 1 of 27 cases, which is more than the 2.5 % cut off at either end.
        assert (figures["low"], figures["high"]) == pytest.approx((min(means), max(means)), rel=1e-4)
        apart = content["against"]["max"]["T"]["contrast"]
        assert apart["low"] <= apart["mean"] <= apart["high"]

    def test_a_change_outside_the_objects_is_reported(self, evaluate, results, tmp_path) -> None:
        image = read_visible(tmp_path / "lit" / "1.png")
        image[59, 79] ^= 4
        write_png(tmp_path / "lit" / "1.png", image)
        row = evaluate(*results, "--masks", tmp_path / "masks")["rows"]["T"]
        assert row["largest_outside"]["mean"] == pytest.approx(4 / 3)
        assert row["changed_outside"]["mean"] == pytest.approx(1 / (60 * 80 - 16 * 16) / 3)

    def test_colored_masks_are_rejected(self, refused, results, tmp_path) -> None:
        """Two colors of equal luma would merge into one object."""
        write_png(tmp_path / "masks" / "1.png", np.full((60, 80, 3), (1, 0, 0), np.uint8))
        line = refused(*results, "--masks", tmp_path / "masks")
        assert f"the mask {tmp_path}/masks/1.png must be grey, got color" in line

    def test_images_without_boxes_are_left_out_and_named(self, evaluate, results, tmp_path, capfd) -> None:
        assert evaluate(*results, "--boxes", tmp_path / "boxes")["pairs"] == 2
        assert "without labeled objects: 1 images (1)" in capfd.readouterr().out

    def test_a_limit_counts_images_with_objects(self, evaluate, results, tmp_path, capfd) -> None:
        (tmp_path / "boxes" / "0.txt").unlink()
        assert evaluate(*results, "--boxes", tmp_path / "boxes", "--limit", 1)["pairs"] == 1
        assert "without labeled objects: 2 images (0, 1)" in capfd.readouterr().out

    def test_a_method_without_its_plain_images_is_rejected(self, refused, results, tmp_path) -> None:
        line = refused(*results[:4], "--masks", tmp_path / "masks")
        assert "--method must be given for T_plain too" in line

    def test_malformed_boxes_are_rejected_with_the_line(self, refused, results, tmp_path) -> None:
        (tmp_path / "boxes" / "2.txt").write_text("person 1 2 3 4\nperson 1 2\n")
        line = refused(*results, "--boxes", tmp_path / "boxes")
        assert f"line 2 of {tmp_path}/boxes/2.txt must be 'class left top right bottom'" in line
