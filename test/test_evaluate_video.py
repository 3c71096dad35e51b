"""``textdifuse evaluate --panel video``: flicker and sharpness along a sequence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_rig import scene

from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.evaluate.controls import CONTROLS
from textdifuse_ros.image.files import read_png_metadata, write_png
from textdifuse_ros.image.gain import ThermalGain

pytest_plugins = ["evaluation_rig"]


class TestVideoPanel:
    @pytest.fixture
    def frames(self, tmp_path) -> tuple[Path, Path]:
        """Four equal frames."""
        for number in range(4):
            visible, infrared = scene(0)
            write_png(tmp_path / "v" / f"{number:03}.png", visible)
            write_png(tmp_path / "i" / f"{number:03}.png", infrared)
        return tmp_path / "v", tmp_path / "i"

    def test_a_static_scene_does_not_flicker_and_a_blinking_method_does(self, evaluate, frames, tmp_path) -> None:
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

    def test_a_limit_takes_consecutive_frames(self, evaluate, frames, tmp_path) -> None:
        flags = ["--panel", "video", "--limit", 3, "--csv", tmp_path / "t.csv"]
        assert evaluate(*flags, visible=frames[0], infrared=frames[1])["pairs"] == 3
        assert {line.split(",")[3] for line in (tmp_path / "t.csv").read_text().splitlines()[1:]} == {"001", "002"}

    @pytest.mark.parametrize("kind", [np.uint16, np.float32])
    def test_thermal_counts_are_mapped_by_a_continuous_gain_as_in_the_node(
        self, evaluate, frames, tiny_checkpoint, tmp_path, kind
    ) -> None:
        """A hot object enters, which shifts the percentiles of single frames."""
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

    def test_a_single_frame_is_rejected(self, refused) -> None:
        assert "must be of at least two frames, got 1" in refused("--panel", "video", "--limit", 1)

    def test_frames_of_different_sizes_are_rejected(self, refused, frames) -> None:
        visible, infrared = scene(0, 64, 80)
        write_png(frames[0] / "003.png", visible)
        write_png(frames[1] / "003.png", infrared)
        line = refused("--panel", "video", visible=frames[0], infrared=frames[1])
        assert "003.png must be as large as" in line
