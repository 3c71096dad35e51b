"""``fusion_node`` as a real process over real rclpy and DDS: images, parameters, life cycle, signals, transport."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import DescribeParameters
from ros_helpers.fusion_rig import (
    FAST,
    START_TIMEOUT,
    VISIBLE,
    dropped_since,
    environment_in,
    pixels,
)

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.nodes.qos import transport_warning

pytest_plugins = ["ros_helpers.fusion_rig"]


# ---- images in, images out


def test_a_pair_comes_out_fused_with_the_visible_header_and_the_fusers_own_bytes(rig, pair, tiny_checkpoint):
    visible, infrared = pair
    message, other = rig.pair(visible, infrared)
    rig.send(message, other)
    assert rig.wait_for(lambda: rig.fused and rig.fused_best_effort)
    (out,) = rig.fused
    assert out.header == message.header and out.header.frame_id == "color_frame"
    assert (out.encoding, out.height, out.width, out.step) == ("rgb8", 45, 70, 210)
    expected = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), threads=1)).fuse(visible, infrared).image
    np.testing.assert_array_equal(pixels(out), expected)
    assert rig.fused_best_effort[0] == out
    numbers = rig.settled()
    assert numbers["model"] == tiny_checkpoint.stem, "where the file lies is nobody's business"
    assert numbers["device"] in ("cpu", "cuda:0") and len(numbers["weights"]) == 64 and numbers["steps"] == 4
    assert 0 < numbers["latency_ms"]["median"] <= numbers["latency_ms"]["p99"]


def test_a_mono8_visible_camera_is_fused_to_grey_images(rig, pair):
    visible, infrared = pair
    out = pixels(rig.fuse(np.ascontiguousarray(visible[..., 1]), infrared))
    assert out.std() > 1 and (np.ptp(out, axis=2) == 0).all()


def test_stamps_within_tolerance_pair_and_others_do_not(rig, pair):
    before = rig.counters()
    message, other = rig.pair(*pair)
    other.header.stamp.nanosec += 15_000_000
    rig.send(message, other)
    assert rig.wait_for(lambda: rig.output_for(message) is not None)
    message, other = rig.pair(*pair)
    other.header.stamp.nanosec += 25_000_000
    rig.send(message, other)
    after = rig.settled()
    assert after["fused"] == before["fused"] + 1
    assert sum(dropped_since(before, after).values()) == 1


def test_a_constant_image_is_fused_like_any_other(rig):
    rig.fuse(np.zeros((32, 40, 3), np.uint8), np.full((32, 40), 255, np.uint8))


def test_sixteen_bit_infrared_and_bgr_visible_are_taken(rig, pair):
    visible, infrared = pair
    expected = pixels(rig.fuse(visible, infrared))
    message, other = rig.pair(visible[:, :, ::-1], infrared.astype(np.uint16) * 20 + 7000)
    message.encoding, other.encoding = "bgr8", "mono16"
    rig.send(message, other)
    assert rig.wait_for(lambda: rig.output_for(message) is not None)
    assert pixels(rig.output_for(message)).shape == expected.shape


# ---- parameters


def test_steps_change_while_running_and_the_next_image_shows_it(rig, pair, tiny_checkpoint):
    try:
        assert rig.set("steps", 1).successful
        expected = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), steps=1, threads=1)).fuse(*pair).image
        np.testing.assert_array_equal(pixels(rig.fuse(*pair)), expected)
        assert rig.counters()["steps"] == 1
    finally:
        assert rig.set("steps", 4).successful


def test_the_infrared_offset_changes_while_running(rig, pair):
    try:
        assert rig.set("infrared_offset", -0.05).successful
        message, other = rig.pair(*pair)
        other.header.stamp.nanosec += 50_000_000
        rig.send(message, other)
        assert rig.wait_for(lambda: rig.output_for(message) is not None)
    finally:
        assert rig.set("infrared_offset", 0.0).successful


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("steps", "four"), ("steps", 2.5), ("tolerance", -0.1), ("sampler", "euler"), ("model", "other"),
     ("threads", 2)],
)  # fmt: skip
def test_a_wrong_or_fixed_parameter_is_refused_by_name(rig, name, value):
    before = rig.counters()
    result = rig.set(name, value)
    assert not result.successful
    assert name in result.reason
    assert rig.counters()["steps"] == before["steps"]


def test_parameters_describe_themselves(rig):
    request = DescribeParameters.Request(names=["steps", "tolerance", "sampler"])
    steps, tolerance, sampler = rig.call(DescribeParameters, "describe_parameters", request).descriptors
    assert (steps.integer_range[0].from_value, steps.integer_range[0].to_value) == (1, 100)
    assert "diffusion steps" in steps.description
    assert tolerance.floating_point_range[0].to_value == 1.0 and "[s]" in tolerance.description
    assert "dpm_solver" in sampler.additional_constraints


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("stepz:=3", "'stepz'; did you mean steps?"),
        ("steps:=1000", "steps must be an integer in [1, 100], got 1000"),
        ("model:=on", "model must be text, got True"),
        ("model:=/nowhere/at.all", "parameter model: "),
        ("device:=gpu", "device must be auto, cpu, cuda or cuda:N"),
        ("warm_up_size:=[64]", "warm_up_size must be height and width"),
    ],
)
def test_a_bad_parameter_at_start_refuses_the_transition_by_name_and_the_process_lives(
    start, tiny_checkpoint, given, named
):
    parameters = [given] if given.startswith("model") else [f"model:={tiny_checkpoint}", given]
    process, rig = start(*parameters, *[p for p in FAST if p.split(":=")[0] != given.split(":=")[0]])
    assert rig.wait_for(lambda: "startup failed" in process.text(), START_TIMEOUT), process.text()
    assert named in process.text()
    assert process.alive
    assert rig.state() == "unconfigured"
    assert not rig.change(Transition.TRANSITION_CONFIGURE)
    assert rig.wait_for(lambda: any(named in status.message for status in rig.statuses))
    assert all(status.level == b"\x02" for status in rig.statuses if named in status.message)


# ---- life cycle


def test_the_life_cycle_frees_and_takes_up_again(start, tiny_checkpoint, pair):
    """Also: sim time without /clock holds nothing up; a wrong value at start is fixed by a service call."""
    process, rig = start(*FAST, "autostart:=false", "use_sim_time:=true", "steps:=0", "model:=/nowhere")
    assert rig.state() == "unconfigured"
    assert not rig.change(Transition.TRANSITION_CONFIGURE)
    assert not rig.change(Transition.TRANSITION_ACTIVATE), "not possible from here; asked for by number"
    assert "transition 3 refused: unconfigured, where these are possible: 1 (configure)" in process.text()
    assert rig.set("steps", 1).successful
    assert rig.set("model", str(tiny_checkpoint)).successful
    assert rig.change(Transition.TRANSITION_CONFIGURE), process.text()
    assert rig.state() == "inactive"
    assert not rig.set("model", "other").successful

    assert rig.change(Transition.TRANSITION_ACTIVATE)
    rig.wait_until_active()
    assert not rig.change(Transition.TRANSITION_CONFIGURE) and rig.state() == "active"
    rig.fuse(*pair)
    first = rig.settled()["fused"]
    rig.statuses.clear()
    assert rig.wait_for(lambda: rig.statuses), "diagnostics tick although the simulated clock stands still"

    assert rig.change(Transition.TRANSITION_DEACTIVATE)
    assert rig.wait_for(lambda: rig.cameras[VISIBLE].get_subscription_count() == 0)
    rig.send(*rig.pair(*pair))
    rig.spin(0.3)
    assert rig.counters()["received"] == first

    assert rig.change(Transition.TRANSITION_ACTIVATE)
    rig.wait_until_active()
    rig.fuse(*pair)
    assert rig.settled()["fused"] == first + 1

    assert rig.change(Transition.TRANSITION_DEACTIVATE)
    assert rig.change(Transition.TRANSITION_CLEANUP)
    assert rig.state() == "unconfigured"
    assert rig.set("model", "other").successful
    assert rig.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert rig.state() == "finalized"
    assert process.alive


@pytest.mark.parametrize("by_service", [False, True], ids=["started by itself", "by a lifecycle manager"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.1, 1.0])
def test_a_signal_while_configuring_ends_the_process_cleanly(start, tiny_checkpoint, number, by_service, after):
    """Meanwhile PyTorch is imported, weights are loaded and a large image is fused, which takes seconds."""
    process, rig = start(f"model:={tiny_checkpoint}", "warm_up_size:=[1600, 2400]", f"autostart:={not by_service}")
    assert rig.wait_for(lambda: rig.node.count_publishers("/diagnostics") > 0, START_TIMEOUT), process.text()
    if by_service:
        rig.begin_change(Transition.TRANSITION_CONFIGURE)
    rig.spin(after)
    process.popen.send_signal(number)
    assert process.popen.wait(START_TIMEOUT) == 0, process.text()
    text = process.text()
    assert "Traceback" not in text and "error" not in text.lower() and "context" not in text, text


# ---- transport


@pytest.mark.parametrize(
    ("environment", "warns"),
    [
        ({}, True),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "x.xml"}, True),  # which Fast DDS 2 does not read
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "x.xml"}, False),
        ({"ROS_DISTRO": "kilted", "FASTDDS_DEFAULT_PROFILES_FILE": "x.xml"}, False),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, False),
    ],
)
def test_the_small_default_segment_is_warned_of_where_it_is_in_force(environment, warns):
    assert bool(transport_warning(environment)) == warns


def test_with_the_shipped_profile_vga_images_arrive_between_processes(domain, tmp_path):
    """Without it the default segment loses up to all of them, depending on the timing."""
    profile = Path(__file__).parents[1] / "config" / "fastdds_shm.xml"
    helper = Path(__file__).parent / "ros_helpers" / "vga_transport.py"
    environment = environment_in(domain, FASTRTPS_DEFAULT_PROFILES_FILE=str(profile))
    run = [sys.executable, str(helper)]
    listener = subprocess.Popen([*run, "listen", "30"], env=environment)
    try:
        sender = subprocess.run([*run, "send", "30"], env=environment, check=True, timeout=180, stdout=subprocess.PIPE)
        heard = json.loads(sender.stdout)
    finally:
        listener.kill()
        listener.wait()
    assert heard == {"visible": 30, "infrared": 30}


def test_unreadable_ros_arguments_are_one_line_and_status_2(domain):
    run = [sys.executable, "-m", "textdifuse_ros.nodes.fusion_node", "--ros-args", "--params-file", "/nowhere.yaml"]
    ended = subprocess.run(run, env=environment_in(domain), capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "fusion_node: the ROS arguments must be readable" in ended.stderr and "Traceback" not in ended.stderr
