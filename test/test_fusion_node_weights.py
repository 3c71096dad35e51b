"""``fusion_node`` reloads its weights while it runs: the new file, or the old weights where that is damaged."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import shutil

import numpy as np
import pytest

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

import torch
from conftest import TINY
from ros_helpers.fusion_rig import FAST, pixels
from std_srvs.srv import Trigger

from textdifuse_ros.checkpoint import load_checkpoint, save_checkpoint
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.weights import save_networks
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks

pytest_plugins = ["ros_helpers.fusion_rig"]


def test_reload_weights_reads_the_file_again_while_images_come_out(start, tiny_checkpoint, tmp_path, pair):
    """Also: while the weights are waited for, /diagnostics says so."""
    path = tmp_path / "own.safetensors"
    shutil.copy(tiny_checkpoint, path)
    _, rig = start(f"model:={path}", *FAST[:-1], "warm_up_size:=[480, 640]")
    rig.wait_until_active()
    assert any("waiting for the weights of" in status.message for status in rig.statuses), rig.statuses
    rig.fuse(*pair)
    torch.manual_seed(3)
    save_networks(path, DriveNetworks(DriveConfig(**TINY)), {"made by": "the tests"})
    answer = rig.call(Trigger, "reload_weights", Trigger.Request())
    expected = Fuser.from_config(FuserConfig(model=str(path), threads=1))
    assert answer.success and answer.message == f"weights {expected.weights}"
    np.testing.assert_array_equal(pixels(rig.fuse(*pair)), expected.fuse(*pair).image)
    assert rig.counters()["weights"] == expected.weights
    path.unlink()
    answer = rig.call(Trigger, "reload_weights", Trigger.Request())
    assert not answer.success and "own.safetensors" in answer.message
    rig.fuse(*pair)


def test_a_reload_of_weights_that_are_no_numbers_is_refused_and_the_good_ones_fuse_the_same_bytes(
    start, tiny_checkpoint, tmp_path, pair
):
    path = tmp_path / "own.safetensors"
    shutil.copy(tiny_checkpoint, path)
    _, rig = start(f"model:={path}", *FAST, "video:=false")
    rig.wait_until_active()
    before = pixels(rig.fuse(*pair))
    good = load_checkpoint(path)
    name = next(iter(good.tensors))
    for broken in (
        {"tensors": {**good.tensors, name: good.tensors[name] * float("nan")}},
        {"config": {**good.config, "luma_widths": [1024, 1024, 1024]}},
    ):
        parts = {"config": good.config, "tensors": good.tensors, **broken}
        save_checkpoint(path, good.kind, parts["config"], parts["tensors"], good.provenance)
        answer = rig.call(Trigger, "reload_weights", Trigger.Request())
        assert not answer.success and "own.safetensors must be" in answer.message and len(answer.message) < 1000
        np.testing.assert_array_equal(pixels(rig.fuse(*pair)), before)
        assert rig.counters()["weights"] == good.sha256
