"""``fusion_node`` as a real process: consecutive pairs are steadied, and ``~/reset`` forgets."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from lifecycle_msgs.msg import Transition
from ros_helpers.fusion_rig import pixels
from std_srvs.srv import Trigger
from turning_camera import drive

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.runtime.video_state import VideoState

pytest_plugins = ["ros_helpers.fusion_rig"]


def test_consecutive_pairs_are_steadied_until_a_reset_and_each_is_fused_alone_where_video_is_off(rig, tiny_checkpoint):
    fuser = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), threads=1))
    frames = drive(1)[:4]
    alone = [fuser.fuse(*frame) for frame in frames]
    state = VideoState()
    expected = [state.steady(*frame, result).image for frame, result in zip(frames, alone, strict=True)]
    rig.call(Trigger, "reset", Trigger.Request())
    for n in (0, 1):
        np.testing.assert_array_equal(pixels(rig.fuse(*frames[n])), expected[n])
    assert not np.array_equal(expected[1], alone[1].image)
    assert rig.wait_for(lambda: report(rig)[-2:-1] == [0.0] and report(rig)[-1] > 0.5), report(rig)
    rig.call(Trigger, "reset", Trigger.Request())
    np.testing.assert_array_equal(pixels(rig.fuse(*frames[2])), alone[2].image)
    for event in ("reload", "deactivate"):
        rig.fuse(*frames[2])
        if event == "reload":
            assert rig.call(Trigger, "reload_weights", Trigger.Request()).success
        else:
            assert rig.change(Transition.TRANSITION_DEACTIVATE) and rig.change(Transition.TRANSITION_ACTIVATE)
        np.testing.assert_array_equal(pixels(rig.fuse(*frames[3])), alone[3].image)
    try:
        assert rig.set("video", False).successful
        np.testing.assert_array_equal(pixels(rig.fuse(*frames[3])), alone[3].image)
    finally:
        assert rig.set("video", True).successful


def report(rig: Any) -> list[float]:
    """What the provenance of each image says of ``video``."""
    return [float(item.value) for each in rig.provenance for item in each.status[0].values if item.key == "video"]
