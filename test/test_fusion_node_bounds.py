"""``fusion_node`` and texts of any length from anybody on the network: answers and log lines are bounded."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import numpy as np
import pytest

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from ros_helpers.fusion_rig import Process, Rig, dropped_since

pytest_plugins = ["ros_helpers.fusion_rig"]

LONGEST_LINE = 2000


def longest_line(process: Process) -> int:
    return max(map(len, process.text().splitlines()))


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    grey = np.full((48, 64), 90, np.uint8)
    return np.repeat(grey[:, :, None], 3, 2), grey


@pytest.mark.parametrize("text", ["?" * 999_999 + "x", "x" * 1_000_000, "person, " * 125_000, "0 0 1 1;" * 125_000],
                         ids=["marks", "one word", "phrases", "boxes"])  # fmt: skip
def test_a_text_of_a_million_characters_is_answered_in_a_line(running, rig: Rig, pair, text: str) -> None:
    process, _ = running
    answer = rig.set("target_text", text)
    assert not answer.successful and "at most 4000 characters, got 1000000" in answer.reason
    assert len(answer.reason) < 500
    for name in ("localizer", "sampler", "on_missing"):
        answer = rig.set(name, text)
        assert not answer.successful and len(answer.reason) < 1000, name
    rig.fuse(*pair)
    assert longest_line(process) < LONGEST_LINE


def test_an_encoding_of_a_hundred_thousand_characters_is_logged_in_a_line(running, rig: Rig, pair) -> None:
    process, _ = running
    before = rig.counters()
    visible, infrared = rig.pair(*pair)
    visible.encoding = "e" * 100_000
    visible.header.frame_id = "f" * 100_000
    rig.send(visible, infrared)
    assert rig.wait_for(lambda: dropped_since(before, rig.counters()) == {"bad_visible": 1})
    assert rig.wait_for(lambda: "eeeee" in process.text())
    rig.fuse(*pair)
    assert longest_line(process) < LONGEST_LINE
