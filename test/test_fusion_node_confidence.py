"""``~/confidence`` of a real ``fusion_node`` process."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from conftest import TINY, with_random_heads
from ros_helpers.fusion_rig import FAST, START_TIMEOUT, Rig
from sensor_msgs.msg import Image

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.weights import add_prior, save_networks
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.nodes.qos import output_profile

pytest_plugins = ["ros_helpers.fusion_rig"]


def subscribe(rig: Rig) -> list[Image]:
    heard: list[Image] = []
    rig.node.create_subscription(Image, "/fusion_node/confidence", heard.append, output_profile(50))
    assert rig.wait_for(lambda: rig.node.count_publishers("/fusion_node/confidence") == 1, START_TIMEOUT)
    rig.spin(0.5)
    return heard


def some_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), rng.integers(0, 256, (48, 64), dtype=np.uint8)


def test_a_subscriber_gets_the_fusers_values_under_the_header_of_the_image(start, tmp_path):
    torch.manual_seed(3)
    path = tmp_path / "prior.safetensors"
    save_networks(path, with_random_heads(add_prior(DriveNetworks(DriveConfig(**TINY)))), {})
    _, rig = start(f"model:={path}", "steps:=1", "precision:=float32", *FAST)
    rig.wait_until_active()
    heard = subscribe(rig)
    pair = some_pair()
    # The subscription may be discovered after the first pair.
    assert rig.wait_for(lambda: (rig.fuse(*pair) is not None) and bool(heard), START_TIMEOUT)
    message = heard[0]
    assert (message.encoding, message.height, message.width, message.step) == ("32FC1", 48, 64, 4 * 64)
    assert rig.wait_for(lambda: any(out.header == message.header for out in rig.fused))
    fuser = Fuser.from_config(FuserConfig(model=str(path), steps=1, precision="float32", threads=1))
    expected = fuser.fuse(*pair, confidence=True).confidence
    found = np.frombuffer(message.data, np.float32).reshape(48, 64)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_model_that_does_not_know_is_named_once_and_images_come_on(start, tiny_checkpoint):
    process, rig = start(f"model:={tiny_checkpoint}", "steps:=1", *FAST)
    rig.wait_until_active()
    heard = subscribe(rig)
    line = "~/confidence is left out: the model tiny does not know how sure its pixels are"

    def reported() -> bool:
        rig.fuse(*some_pair())
        return line in process.text()

    assert rig.wait_for(reported, START_TIMEOUT), process.text()
    rig.fuse(*some_pair())
    assert process.text().count(line) == 1 and not heard
