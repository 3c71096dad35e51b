"""``textdifuse endurance``: a few seconds of it with real processes, and how it judges."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from textdifuse_ros.demo.endurance import evaluate, memory_slope, table
from textdifuse_ros.nodes.sources import Entry, FolderImage, restamp

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="rclpy is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("minutes", [0.05, 60.0], ids=["to its end", "until Ctrl-C"])
def test_a_run_is_reported_and_its_counters_are_consistent_also_where_it_is_interrupted(
    tmp_path: Path, tiny_checkpoint: Path, minutes: float
) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    given = ("--model", tiny_checkpoint, "--steps", "1", "--size", "64x48", "--minutes", minutes, "-o", tmp_path)
    command = [sys.executable, "-m", "textdifuse_ros.cli.main", "endurance", *map(str, given)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        if minutes > 1:
            deadline = time.monotonic() + 60
            while not (tmp_path / "logs" / "player.log").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(4)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (tmp_path / "endurance.json").is_file(), err
    report = json.loads((tmp_path / "endurance.json").read_text())
    assert process.returncode == bool(report["faults"]), err
    assert not any("add up" in fault or "heard" in fault for fault in report["faults"])
    assert report["pairs_in"] == report["fused"] + sum(report["dropped"].values()) and report["fused"] > 0
    assert report["interrupted"] is (minutes > 1)
    assert 0 < report["inference_ms"]["median"] < report["age_ms"]["median"] < 10_000, "stamps are of the present"
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


def test_books_and_ages_that_are_as_they_must_be_are_no_fault() -> None:
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
def test_what_is_wrong_is_a_fault(changes: dict, fault: str) -> None:
    found = evaluate(report(**changes), 30.0)
    assert any(fault in line for line in found["faults"]), found["faults"]
    assert fault in table({**found, "source": "x"})


def test_the_memory_s_slope_leaves_the_first_minute_out() -> None:
    filling = [[at, 100 + 10 * at] for at in range(0, 60, 5)]
    steady = [[at, 700 + 0.5 * at / 60 + 0.01 * (-1) ** at] for at in range(60, 600, 5)]
    assert memory_slope(filling + steady)["mb_per_hour"] == pytest.approx(30.0, abs=0.5)
    assert memory_slope(filling)["mb_per_hour"] is None
    assert memory_slope([])["first_mb"] is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_live_image_is_as_old_when_played_as_it_was_when_recorded(order: str) -> None:
    start = bytes([0, order == "<", 0, 0])
    rest = b"rest of the message"
    recorded = start + struct.pack(order + "iI", 9, 998_000_000) + rest
    now = 1_700_000_000_001_000_000
    content = restamp(Entry("visible/image", 0, 10_000_000_000, recorded), now)
    assert content == start + struct.pack(order + "iI", 1_699_999_999, 999_000_000) + rest
    image = FolderImage(np.zeros((2, 2), np.uint8), 9_998_000_000, "c")
    moved = restamp(Entry("visible/image", 0, 10_000_000_000, image), now)
    assert isinstance(moved, FolderImage) and moved.stamp_ns == now - 2_000_000
