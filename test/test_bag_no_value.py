"""``textdifuse bag`` with infrared images of which some pixels have no value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bag_makers import LATENCY, PERIOD, SKEW, START, image, images, scene

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.cli.main import main
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.offline import recording
from textdifuse_ros.offline.plan import RecordingJob
from textdifuse_ros.offline.recording import fuse_recording

PAIRS = 6
BORDER = 4
INSIDE = slice(12, -12), slice(12, -12)


def record(path: Path, encoding: str, value: float | None) -> Path:
    """Pairs of which the second and the later ones have a border of ``value``; None for none."""
    with BagWriter(path) as bag:
        for topic in ("/cam/color/image_raw", "/cam/thermal/image_raw"):
            bag.add_topic(topic, IMAGE_TYPE)
        for index in range(PAIRS):
            visible, infrared = scene(index)
            if encoding == "32FC1":
                infrared = (infrared * 0.04).astype(np.float32)
            if value is not None and index:
                inner = infrared[BORDER:-BORDER, BORDER:-BORDER].copy()
                infrared[:] = value
                infrared[BORDER:-BORDER, BORDER:-BORDER] = inner
            stamp = START + index * PERIOD
            bag.write_raw("/cam/color/image_raw", stamp + LATENCY, image(visible, stamp, "color", "rgb8"))
            thermal = image(infrared, stamp + SKEW, "thermal", encoding)
            bag.write_raw("/cam/thermal/image_raw", stamp + SKEW + LATENCY, thermal)
    return path


@pytest.mark.parametrize(("encoding", "value"), [("mono16", 0), ("mono16", 65535), ("32FC1", np.nan), ("32FC1", 0.0)])
def test_a_border_changes_little_inside_and_is_reported(tmp_path: Path, encoding, value, capsys):
    """With the shipped weights."""
    fused = {}
    for name, border in (("whole", None), ("border", value)):
        source = record(tmp_path / f"{name}_in", encoding, border)
        assert main(["bag", str(source), str(tmp_path / name), "--steps", "1", "--threads", "1"]) == 0
        fused[name] = images(tmp_path / name)
        said = [line for line in capsys.readouterr().err.splitlines() if "have no value" in line]
        share = f"border_in: warning: {PAIRS - 1} of {PAIRS} infrared images: up to "
        assert len(said) == (border is not None) and all(share in line for line in said)
    assert len(fused["border"]) == PAIRS
    for whole, border in zip(fused["whole"], fused["border"], strict=True):
        difference = np.abs(whole.data.reshape(48, 64, 3).astype(int) - border.data.reshape(48, 64, 3))[INSIDE]
        assert difference.mean() < 6


def test_a_resumed_run_counts_as_one_that_was_not_interrupted(tmp_path: Path, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(recording, "PIECE_PAIRS", 2)
    source = record(tmp_path / "in", "mono16", 0)
    config = FusionNodeConfig(model=str(tiny_checkpoint), steps=1, threads=1)
    whole = list(fuse_recording(RecordingJob(source, tmp_path / "whole", config=config)))[-1].summary
    job = RecordingJob(source, tmp_path / "resumed", config=config)
    interrupted = fuse_recording(job)
    while next(interrupted).done < 4:
        pass
    interrupted.close()
    assert list(fuse_recording(job))[-1].summary == whole
    assert whole is not None and whole["infrared"]["no_value"]["images"] == PAIRS - 1
