"""``fusion_node`` in operation: a camera missing, a latency budget, services, simulated time, why nothing comes out."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.lifecycle import TransitionCallbackReturn
from ros_helpers.fusion_rig import FAST, START_TIMEOUT, Rig, dropped_since, node_in_process, pixels
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.result import FusionResult
from textdifuse_ros.nodes import fusion_node
from textdifuse_ros.nodes.qos import output_profile
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE

pytest_plugins = ["ros_helpers.fusion_rig"]

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN


@pytest.fixture(scope="module")
def expected(tiny_checkpoint) -> Fuser:
    return Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), threads=1))


@pytest.fixture
def rigged(rig) -> Iterator[Rig]:
    """The shared node, missing a camera after 0.3 s; all is set back afterwards."""
    rig.provenance.clear()
    rig.statuses.clear()
    assert rig.set("missing_after", 0.3).successful
    try:
        yield rig
    finally:
        for name, value in (("on_missing", "stop"), ("missing_after", 0.5), ("latency_budget", 0.0), ("steps", 4)):
            assert rig.set(name, value).successful


def told_of(rig: Rig, image: Image) -> Any:
    """The provenance that came with an image."""
    return next((each.status[0] for each in rig.provenance if each.header == image.header), None)


def values(status: Any) -> dict[str, str]:
    return {item.key: item.value for item in status.values}


# ---- a camera is missing


@pytest.mark.parametrize("alive", SENSORS)
def test_restored_alone_and_marked_so_while_the_other_is_missing_and_fused_again_when_it_is_back(
    rigged, pair, expected, alive
):
    visible, infrared = pair
    rigged.set("on_missing", "restore")
    rigged.fuse(visible, infrared)
    before = rigged.counters()

    def lone() -> bool:
        messages = dict(zip(SENSORS, rigged.pair(visible, infrared), strict=True))
        rigged.cameras[alive].publish(messages[alive])
        rigged.spin(0.05)
        return len(rigged.fused) >= 4

    assert rigged.wait_for(lone, 20.0), rigged.counters()
    last = rigged.fused[-1]
    image = {VISIBLE: visible, INFRARED: infrared}[alive]
    np.testing.assert_array_equal(pixels(last), expected.restore(**{alive: image}).image)
    assert last.header.frame_id == {VISIBLE: "color_frame", INFRARED: "thermal_frame"}[alive]
    assert rigged.wait_for(lambda: told_of(rigged, last) is not None)
    status = told_of(rigged, last)
    assert (status.message, status.level, values(status)["sources"]) == ("restored", WARN, alive)
    words = f"is missing: the restored {alive} image alone is published"
    assert rigged.wait_for(lambda: any(words in status.message for status in rigged.statuses))
    after = rigged.settled()
    assert after[alive]["alone"] > before[alive]["alone"]
    restored = after["restored"] if alive == VISIBLE else after[INFRARED]["restored"]
    assert restored >= 3

    def both() -> bool:
        """Of the first pair the one half no longer waited, and was used alone."""
        fused = rigged.fuse(visible, infrared)
        return bool(rigged.wait_for(lambda: told_of(rigged, fused), 5.0)) and told_of(rigged, fused).message == "fused"

    assert rigged.wait_for(both)
    fused = rigged.fused[-1]
    np.testing.assert_array_equal(pixels(fused), expected.fuse(visible, infrared).image)
    assert rigged.wait_for(lambda: told_of(rigged, fused) is not None)
    status = told_of(rigged, fused)
    assert (status.message, status.level, values(status)["sources"]) == ("fused", OK, "visible+infrared")
    rigged.statuses.clear()
    assert rigged.wait_for(lambda: any("is missing" not in status.message for status in rigged.statuses))


@pytest.mark.parametrize("policy", ["hold", "stop"])
def test_hold_sends_the_last_image_again_with_its_own_header_and_stop_sends_nothing(rigged, pair, policy):
    rigged.set("on_missing", policy)
    last = rigged.fuse(*pair)
    rigged.fused.clear()
    before = rigged.counters()
    for _ in range(14):
        rigged.send(rigged.pair(*pair)[0], None)
        rigged.spin(0.05)
    after = rigged.settled()
    assert dropped_since(before, after) == {"partner_missing": 14}, "not counted as fused or restored"
    if policy == "stop":
        assert rigged.fused == []
        return
    assert len(rigged.fused) == after["held"] - before["held"] >= 3
    assert all(out == last for out in rigged.fused)
    held = [each for each in rigged.provenance if each.status[0].message == "held"]
    assert len(held) == len(rigged.fused) and all(each.header == last.header for each in held)


def test_what_is_held_is_fused_and_of_this_activation(rigged, pair):
    rigged.set("on_missing", "restore")
    last = rigged.fuse(*pair)

    def lone() -> None:
        rigged.send(rigged.pair(*pair)[0], None)
        rigged.spin(0.05)

    assert rigged.wait_for(lambda: lone() or rigged.provenance[-1].status[0].message == "restored")
    rigged.set("on_missing", "hold")
    assert rigged.wait_for(lambda: lone() or rigged.provenance[-1].status[0].message == "held")
    assert rigged.fused[-1] == last
    assert rigged.change(4) and rigged.change(3)
    rigged.spin(0.3)
    rigged.fused.clear()
    for _ in range(20):
        lone()
    assert rigged.settled()["visible"]["dropped"].get("partner_missing", 0) >= 10 and rigged.fused == []


# ---- the latency budget


def test_a_budget_that_cannot_be_kept_lowers_the_steps_and_then_the_size_and_without_it_all_comes_back(rigged):
    grey = np.random.default_rng(0).integers(0, 256, (96, 128), dtype=np.uint8)
    color = np.repeat(grey[:, :, None], 3, 2)
    rigged.set("latency_budget", 0.0001)
    seen: list[tuple[str, str]] = []
    for _ in range(60):
        out = rigged.fuse(color, grey)
        assert (out.height, out.width) == (96, 128)
        assert rigged.wait_for(lambda out=out: told_of(rigged, out) is not None)
        report = values(told_of(rigged, out))
        if (report["steps"], report["scale"]) not in seen:
            seen.append((report["steps"], report["scale"]))
        if report["scale"] == "0.5":
            break
    assert seen == [("4", "1"), ("2", "1"), ("1", "1"), ("1", "0.75"), ("1", "0.5")]
    assert rigged.counters()["effort"] == {"steps": 1, "scale": 0.5, "changes": rigged.counters()["effort"]["changes"]}
    rigged.statuses.clear()
    assert rigged.wait_for(lambda: rigged.statuses)
    assert values(rigged.statuses[-1])["effort.steps"] == "1"
    rigged.set("latency_budget", 0.0)
    out = rigged.fuse(color, grey)
    assert rigged.wait_for(lambda: told_of(rigged, out) is not None)
    assert values(told_of(rigged, out))["steps"] == "4" and values(told_of(rigged, out))["scale"] == "1"


# ---- services


def test_disabled_everything_is_counted_and_nothing_published_and_enabled_it_goes_on(rigged, pair):
    before = rigged.counters()
    assert rigged.call(SetBool, "enable", SetBool.Request(data=False)).success
    try:
        for _ in range(3):
            rigged.send(*rigged.pair(*pair))
        assert rigged.wait_for(lambda: dropped_since(before, rigged.counters()) == {"disabled": 3})
        rigged.statuses.clear()
        assert rigged.wait_for(lambda: any("disabled; the service" in status.message for status in rigged.statuses))
        assert rigged.fused == [] and not rigged.counters()["enabled"]
    finally:
        assert rigged.call(SetBool, "enable", SetBool.Request(data=True)).success
    rigged.fuse(*pair)


def test_standby_is_kept_over_a_new_configuration_and_misses_no_camera(start, tiny_checkpoint, pair):
    _, rig = start(f"model:={tiny_checkpoint}", "warm_up_size:=[48,64]", "steps:=1", "autostart:=false",
                   "missing_after:=0.1", "on_missing:=restore", "statistics_period:=0.1")  # fmt: skip
    assert rig.call(SetBool, "enable", SetBool.Request(data=False)).success
    assert rig.change(Transition.TRANSITION_CONFIGURE) and rig.change(Transition.TRANSITION_ACTIVATE)
    assert rig.wait_for(lambda: rig.cameras[VISIBLE].get_subscription_count() > 0)
    assert rig.wait_for(lambda: rig.cameras[INFRARED].get_subscription_count() > 0)
    for _ in range(4):
        rig.send(*rig.pair(*pair))
        rig.spin(0.1)
    assert rig.wait_for(lambda: rig.counters()["dropped"].get("disabled") == 4)
    counters = rig.counters()
    assert not counters["enabled"] and counters["missing"] == "" and rig.fused == []


def test_reset_drops_what_waits_and_forgets_the_past(rigged, pair):
    before = rigged.counters()
    rigged.send(rigged.pair(*pair)[0], None)
    assert rigged.wait_for(lambda: rigged.counters()["received"] == before["received"] + 1)
    assert rigged.call(Trigger, "reset", Trigger.Request()).success
    after = rigged.settled()
    dropped = dropped_since(before, after)
    assert dropped in ({"reset": 1}, {"partner_missing": 1}) and after["latency_ms"]["count"] == 0
    rigged.now_ns -= 10 * 10**9
    rigged.fuse(*pair)


def test_the_live_doctor_tells_rates_and_the_offset_to_set(rigged, pair):
    visible, infrared = (image[:8, :8] for image in pair)
    assert rigged.call(Trigger, "reset", Trigger.Request()).success  # forgets the stamps of the tests before
    before = rigged.counters()
    for _ in range(25):
        message, other = rigged.pair(visible, infrared)
        other.header.stamp.nanosec += 40_000_000
        rigged.send(message, other)
        rigged.spin(0.02)
    answer = rigged.call(Trigger, "sync_doctor", Trigger.Request())
    report = json.loads(answer.message)
    assert answer.success and report["visible"]["rate_hz"] == pytest.approx(10.0)
    offset = report["suggestion"]["infrared_offset"]
    assert offset == pytest.approx(-0.04, abs=0.001) and report["visible"]["zero"] == 0
    assert rigged.settled()["fused"] == before["fused"]
    assert rigged.set("infrared_offset", offset).successful
    try:
        message, other = rigged.pair(*pair)
        other.header.stamp.nanosec += 40_000_000
        rigged.send(message, other)
        assert rigged.wait_for(lambda: rigged.output_for(message) is not None)
    finally:
        rigged.set("infrared_offset", 0.0)


# ---- why nothing comes out


def test_a_topic_without_publisher_is_named(rigged, pair):
    rigged.node.destroy_publisher(rigged.cameras[INFRARED])
    try:
        said = "infrared silent for"
        assert rigged.wait_for(
            lambda: any(
                said in status.message and "/infrared/image has no publisher; start" in status.message
                for status in rigged.statuses
            )
        ), rigged.statuses[-1:]
    finally:
        rigged.cameras[INFRARED] = rigged.node.create_publisher(Image, "/infrared/image", output_profile(50))
        assert rigged.wait_for(lambda: rigged.cameras[INFRARED].get_subscription_count() == 1)
        rigged.spin(0.3)


def test_simulated_time_that_stands_still_or_goes_back_is_understood(start, tiny_checkpoint, pair):
    """The images before the jump wait without a counterpart; without the clock they would for a minute."""
    _, rig = start(f"model:={tiny_checkpoint}", "use_sim_time:=true", *FAST, "pairing_wait:=60.0")
    rig.wait_until_active()
    assert rig.wait_for(lambda: any("nobody publishes /clock" in status.message for status in rig.statuses))
    clock = rig.node.create_publisher(Clock, "/clock", 10)

    def show(ns: int) -> None:
        clock.publish(Clock(clock=Time(sec=ns // 10**9, nanosec=ns % 10**9)))

    assert rig.wait_for(lambda: clock.get_subscription_count() == 1)
    rig.spin(0.3)
    show(rig.now_ns)
    rig.fuse(*pair)
    rig.statuses.clear()
    assert rig.wait_for(lambda: any("paused: /clock stands still" in status.message for status in rig.statuses))
    assert all(status.level == OK for status in rig.statuses if "paused" in status.message)

    rig.send(rig.pair(*pair)[0], None)
    assert rig.wait_for(lambda: rig.counters()["waiting"] == 1)
    show(rig.now_ns + 10**8)
    rig.now_ns -= 20 * 10**9
    show(rig.now_ns)
    assert rig.wait_for(lambda: rig.counters()["dropped"] == {"time_jump": 1}), rig.counters()
    show(rig.now_ns + 350_000_000)
    rig.spin(0.3)
    rig.fuse(*pair)
    numbers = rig.settled()
    assert numbers["fused"] == 2 and numbers["age_ms"]["median"] == pytest.approx(250.0), "by the simulated clock"


def test_a_stock_policy_pairs_where_message_filters_is_installed_and_is_else_refused_by_name(
    start, tiny_checkpoint, pair
):
    process, rig = start(f"model:={tiny_checkpoint}", "synchronizer:=exact", *FAST)
    if importlib.util.find_spec("message_filters") is None:
        assert rig.wait_for(lambda: "startup failed" in process.text(), 60.0), process.text()
        assert "synchronizer must be nearest where message_filters is not installed, got exact" in process.text()
        assert process.alive and rig.state() == "unconfigured"
        return
    rig.wait_until_active()
    rig.fuse(*pair)
    message, other = rig.pair(*pair)
    other.header.stamp.nanosec += 1
    rig.send(message, other)
    numbers = rig.settled()
    assert numbers["fused"] == 1 and numbers["dropped"] == {"partner_missing": 1}


def test_the_result_of_an_abandoned_fusion_is_discarded(tiny_checkpoint, pair, monkeypatch):
    """A fusion that outlives its session is published by no later one."""
    monkeypatch.setattr(fusion_node, "STOP_TIMEOUT", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    entered, release, ended = (threading.Event() for _ in range(3))
    fuse = Fuser.fuse

    def slow(self: Fuser, *arguments: Any, **given: Any) -> FusionResult:
        entered.set()
        release.wait(120)
        try:
            return fuse(self, *arguments, **given)
        finally:
            ended.set()

    with node_in_process(f"model:={tiny_checkpoint}", "steps:=1") as (node, rig):
        assert node.autostart()
        rig.wait_until_active()
        with monkeypatch.context() as patch:
            patch.setattr(Fuser, "fuse", slow)
            abandoned, other = rig.pair(*pair)
            rig.send(abandoned, other)
            assert rig.wait_for(entered.is_set, START_TIMEOUT)
            assert node.trigger_deactivate() == TransitionCallbackReturn.ERROR
        assert node.autostart()
        release.set()
        assert rig.wait_for(ended.is_set, START_TIMEOUT)
        fused = rig.fuse(*pair)
        assert [image.header.stamp for image in rig.fused] == [fused.header.stamp]
        assert fused.header.stamp != abandoned.header.stamp
        assert rig.wait_for(lambda: node.statistics()["fused"] == 1, START_TIMEOUT)  # counted after publication
