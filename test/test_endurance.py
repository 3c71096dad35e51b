"""``textdifuse endurance``: a few seconds with real processes, and the evaluation."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from textdifuse_ros.demo.endurance import evaluate, memory_slope, table
from textdifuse_ros.nodes.sources import FolderImage, PlaybackEntry, restamp

ROOT = Path(__file__).resolve().parents[1]


def await_images(domain: int) -> None:
    """Wait for three fused images in a ROS domain."""
    from ros_helpers.programs import Observer

    observer = Observer(domain)
    try:
        images = observer.subscribe("/fusion_node/fused")
        observer.wait_for(lambda: len(images) >= 3, "fused images")
    finally:
        observer.close()


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="rclpy is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("minutes", [0.05, 60.0], ids=["to its end", "until Ctrl-C"])
def test_a_run_is_reported_with_consistent_counters_also_if_it_is_interrupted(
    tmp_path: Path, tiny_checkpoint: Path, minutes: float
) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    given = ("--model", tiny_checkpoint, "--steps", "1", "--size", "64x48", "--minutes", minutes, "-o", tmp_path)
    command = [sys.executable, "-m", "textdifuse_ros.cli.main", "endurance", *map(str, given)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        if minutes > 1:
            assert process.stderr is not None
            line = next((line for line in process.stderr if line.startswith("playing for")), "")
            await_images(int(line.rpartition(" ")[2]))
            os.killpg(process.pid, signal.SIGINT)  # like Ctrl-C in a terminal
        out, err = process.communicate(timeout=180)
    finally:
        process.kill()
    assert (tmp_path / "endurance.json").is_file(), err
    report = json.loads((tmp_path / "endurance.json").read_text())
    assert process.returncode == bool(report["faults"]), err
    assert not any("add up" in fault or "heard" in fault for fault in report["faults"])
    assert report["pairs_in"] == report["fused"] + sum(report["dropped"].values()) and report["fused"] > 0
    assert report["interrupted"] is (minutes > 1)
    assert 0 < report["inference_ms"]["median"] < report["age_ms"]["median"] < 3_600_000, "stamps are current"
    assert report["memory"]["samples"] > 0 and report["memory"]["mb_per_hour"] is None
    assert "verdict" in out


def report(**changes: object) -> dict:
    node = {
        "received": 299,
        "fused": 100,
        "restored": 0,
        "dropped": {"superseded": 199},
        "waiting": 0,
        **dict.fromkeys(("device", "steps", "sampler", "seed", "model", "weights"), ""),
    }
    return {
        "node": node,
        "player": {"published": {"/visible/image": 300}, "seconds": 10.0},
        "seconds": 10.0,
        "interrupted": False,
        "ages_ms": [80.0] * 99 + [300.0],
        "works_ms": [70.0] * 100,
        "heard": 100,
        "images": 100,
        "memory": [[0.0, 100.0], [5.0, 120.0]],
        **changes,
    }


def test_consistent_counters_and_ages_within_the_limit_are_no_fault() -> None:
    found = evaluate(report(), 30.0)
    assert found["faults"] == [] and found["dropped"] == {"transport": 1, "superseded": 199}
    assert found["bound_ms"] == pytest.approx(103.333) and found["share_within_bound"] == 0.99
    assert found["share_within_own_inference_and_period"] == 0.99
    assert "all frames accounted for" in table({**found, "source": "x"})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"player": {"published": {"/visible/image": 298}, "seconds": 10.0}}, "add up"),
        ({"heard": 99}, "heard"),
        ({"ages_ms": [80.0] * 97 + [300.0] * 3}, "at most one inference and one period (103.3 ms)"),
        ({"ages_ms": [], "works_ms": []}, "at least one pair"),
    ],
)
def test_inconsistent_counters_and_old_images_are_faults(changes: dict, fault: str) -> None:
    found = evaluate(report(**changes), 30.0)
    assert any(fault in line for line in found["faults"]), found["faults"]
    assert fault in table({**found, "source": "x"})


def test_the_memory_slope_excludes_the_first_minute() -> None:
    filling = [[at, 100 + 10 * at] for at in range(0, 60, 5)]
    steady = [[at, 700 + 0.5 * at / 60 + 0.01 * (-1) ** at] for at in range(60, 600, 5)]
    assert memory_slope(filling + steady)["mb_per_hour"] == pytest.approx(30.0, abs=0.5)
    assert memory_slope(filling)["mb_per_hour"] is None
    assert memory_slope([])["first_mb"] is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_live_image_has_the_recorded_age_when_played(order: str) -> None:
    start = bytes([0, order == "<", 0, 0])
    rest = b"rest of the message"
    recorded = start + struct.pack(order + "iI", 9, 998_000_000) + rest
    now = 1_700_000_000_001_000_000
    content = restamp(PlaybackEntry("visible/image", 0, 10_000_000_000, recorded), now)
    assert content == start + struct.pack(order + "iI", 1_699_999_999, 999_000_000) + rest
    image = FolderImage(np.zeros((2, 2), np.uint8), 9_998_000_000, "c")
    moved = restamp(PlaybackEntry("visible/image", 0, 10_000_000_000, image), now)
    assert isinstance(moved, FolderImage) and moved.stamp_ns == now - 2_000_000
