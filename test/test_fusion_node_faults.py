"""``fusion_node`` where things go wrong: counted, logged, told in ``/diagnostics``, and the next pair is fused."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from diagnostic_msgs.msg import DiagnosticStatus
from ros_helpers.faults import half_size, other_encoding, short, small_step, unstamped, with_nan, without_values
from ros_helpers.fusion_rig import START_TIMEOUT, Process, dropped_since, node_in_process
from sensor_msgs.msg import Image

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.nodes import diagnostics, fusion_node
from textdifuse_ros.nodes.diagnostics import Arrivals, ThrottledLog
from textdifuse_ros.nodes.health import losses_of, warn_of_drop
from textdifuse_ros.nodes.qos import loss_remedy
from textdifuse_ros.runtime.worker import LatestWorker
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE
from textdifuse_ros.sync.outcome import Drop

pytest_plugins = ["ros_helpers.fusion_rig"]


# ---- bad input


@pytest.mark.parametrize(
    ("stream", "inject", "reason"),
    [
        (VISIBLE, short, "bad_visible"),
        (VISIBLE, other_encoding, "bad_visible"),
        (VISIBLE, small_step, "bad_visible"),
        (VISIBLE, with_nan, "bad_visible"),
        (VISIBLE, unstamped, "zero_stamp"),
        (VISIBLE, half_size, "size_mismatch"),
        (INFRARED, short, "bad_infrared"),
        (INFRARED, other_encoding, "bad_infrared"),
        (INFRARED, without_values, "bad_infrared"),
        (INFRARED, half_size, "size_mismatch"),
        (INFRARED, unstamped, "partner_missing"),
    ],
)
def test_a_bad_message_is_counted_by_reason_and_the_next_pair_comes_out(rig, pair, stream, inject, reason):
    before = rig.counters()
    messages = dict(zip(SENSORS, rig.pair(*pair), strict=True))
    inject(messages[stream])
    rig.send(messages[VISIBLE], messages[INFRARED])
    assert rig.wait_for(lambda: dropped_since(before, rig.counters()) == {reason: 1}), rig.counters()
    assert rig.fused == []
    rig.fuse(*pair)


def test_bad_messages_are_logged_with_what_was_expected(running, rig, pair):
    process, _ = running
    message, other = rig.pair(*pair)
    short(message)
    rig.send(message, other)
    assert rig.wait_for(lambda: "bad_visible: data must be at least step * height" in process.text())


def test_one_silent_camera_is_reported_counted_and_forgiven(running, rig, pair):
    process, _ = running
    before = rig.counters()
    rig.statuses.clear()
    for _ in range(12):
        rig.send(rig.pair(*pair)[0], None)
        rig.spin(0.1)
    assert rig.wait_for(lambda: any("infrared silent for" in status.message for status in rig.statuses))
    status = next(status for status in reversed(rig.statuses) if "infrared silent" in status.message)
    assert status.level == b"\x01" and "visible silent" not in status.message
    after = rig.settled()
    assert dropped_since(before, after) == {"partner_missing": 12}
    assert "infrared silent for" in process.text()
    assert "partner_missing: no infrared image within tolerance (0.02 s) in pairing_wait (0.2 s)" in process.text()
    rig.fuse(*pair)
    assert rig.wait_for(lambda: "infrared is back" in process.text())


def test_diagnostics_carry_the_numbers(rig, pair):
    rig.fuse(*pair)
    numbers = rig.settled()
    rig.statuses.clear()
    assert rig.wait_for(lambda: len(rig.statuses) >= 2)
    status = rig.statuses[-1]
    values = {item.key: item.value for item in status.values}
    assert status.name == "fusion_node: fusion" and status.hardware_id == numbers["device"]
    assert values["fused"] == str(numbers["fused"]) and values["weights"] == numbers["weights"]
    assert float(values["latency_ms.p99"]) > 0 and "infrared.silent_for" in values


def test_the_diagnostics_of_two_rigs_have_different_names(start):
    _, rig = start("autostart:=false", "statistics_period:=0.2", namespace="/front")
    assert rig.wait_for(lambda: rig.statuses, START_TIMEOUT)
    assert rig.statuses[-1].name == "front/fusion_node: fusion"


def test_two_nodes_of_one_name_are_warned_about_until_one_has_ended(start, tmp_path):
    process, rig = start("autostart:=false", "statistics_period:=0.2")
    assert rig.wait_for(lambda: rig.statuses, START_TIMEOUT)
    assert "have the name" not in process.text()
    folder = tmp_path / "second"
    folder.mkdir()
    second = Process(folder, rig.domain, "autostart:=false", "statistics_period:=0.2")
    try:
        said = "2 nodes have the name /fusion_node, and"
        assert rig.wait_for(lambda: said in process.text() and said in second.text(), START_TIMEOUT)
        assert rig.wait_for(lambda: "have the name" in rig.statuses[-1].message)
        assert rig.statuses[-1].level == DiagnosticStatus.WARN
    finally:
        second.close()
    assert rig.wait_for(lambda: "no other node has this name any more" in process.text())
    assert process.text().count("2 nodes have the name") == 1
    assert rig.wait_for(lambda: "have the name" not in rig.statuses[-1].message)


def test_nodes_of_one_name_in_two_namespaces_are_not_warned_about(start, tmp_path):
    process, rig = start("autostart:=false", "statistics_period:=0.2", namespace="/front")
    folder = tmp_path / "second"
    folder.mkdir()
    second = Process(folder, rig.domain, "autostart:=false", "statistics_period:=0.2", namespace="/rear")
    try:
        names = {"front/fusion_node: fusion", "rear/fusion_node: fusion"}
        assert rig.wait_for(lambda: {status.name for status in rig.statuses} >= names, START_TIMEOUT)
        rig.spin(1.0)
        assert "have the name" not in process.text() + second.text()
    finally:
        second.close()


def test_log_of_one_reason_do_not_flood_the_log(monkeypatch):
    lines: list[str] = []
    log = ThrottledLog(lines.append)
    for _ in range(3):
        log.warn("bad_visible", "too short")
    log.warn("bad_infrared", "NaN")
    assert lines == ["bad_visible: too short", "bad_infrared: NaN"]
    monkeypatch.setattr(diagnostics, "WARNING_PERIOD", 0.0)
    log.warn("bad_visible", "too short")
    assert lines[2:] == ["bad_visible: too short (2 more like it since the last line)"]


def test_a_fusion_that_fails_is_counted_and_reported_and_the_next_pair_is_fused(tiny_checkpoint, pair, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with node_in_process(f"model:={tiny_checkpoint}", "steps:=1") as (node, rig):
        assert node.autostart()
        rig.wait_until_active()

        def broken(*arguments: Any, **given: Any) -> None:
            raise ValueError("no\nsuch luck")

        with monkeypatch.context() as patch:
            patch.setattr(Fuser, "fuse", broken)
            rig.send(*rig.pair(*pair))
            assert rig.wait_for(lambda: node.statistics()["dropped"] == {"fusion_error": 1}, START_TIMEOUT)
        expected = "fusion_error: ValueError: no such luck; deactivate and activate the node"
        assert rig.wait_for(lambda: any(expected in status.message for status in rig.statuses), START_TIMEOUT)
        rig.fuse(*pair)
        # The worker counts a pair after it has published the image.
        assert rig.wait_for(lambda: node.statistics()["fused"] == 1, START_TIMEOUT)


def test_work_that_raises_does_not_end_the_worker():
    def work(job: int) -> str:
        return f"outcome {1 // job}"

    worker: LatestWorker[int] = LatestWorker()
    worker.start(work)
    for job in (0, 1):
        worker.offer(job)
        while worker.counters().waiting:
            time.sleep(0.001)
    assert worker.stop("stopped", 1.0)
    assert worker.counters().finished == {"fusion_error": 1, "outcome 1": 1}


# ---- nothing comes out


def later(message: Image) -> None:
    message.header.stamp.nanosec += 40_000_000


def wide(message: Image) -> None:
    message.height, message.step, message.width = message.height // 2, message.step * 2, message.width * 2


@pytest.mark.parametrize(
    ("stream", "inject", "level", "count", "said"),
    [
        (INFRARED, later, DiagnosticStatus.WARN, "unmatched", "visible unmatched: no infrared image within tolerance "
         "(0.02 s): the nearest infrared image is 40.0 ms later; raise tolerance, or set infrared_offset to -0.040"),
        (VISIBLE, unstamped, DiagnosticStatus.ERROR, "zero_stamp", "visible zero_stamp: an image without stamp"),
        (INFRARED, unstamped, DiagnosticStatus.ERROR, "infrared zero_stamp", "infrared zero_stamp: an image without"),
        (VISIBLE, short, DiagnosticStatus.ERROR, "bad_visible", "bad_visible: data must be at least step * height"),
        (INFRARED, without_values, DiagnosticStatus.ERROR, "bad_infrared", "bad_infrared: the infrared image must be"),
        (INFRARED, wide, DiagnosticStatus.ERROR, "size_mismatch", "size_mismatch: the infrared image must be as"),
    ],
)  # fmt: skip
def test_where_both_cameras_send_and_nothing_is_fused_diagnostics_and_log_say_why(
    running, rig, pair, stream, inject, level, count, said
):
    process, _ = running
    rig.statuses.clear()

    def report() -> bool:
        messages = dict(zip(SENSORS, rig.pair(*pair), strict=True))
        inject(messages[stream])
        rig.send(messages[VISIBLE], messages[INFRARED])
        return any("nothing fused in the last 0.2 s: " in status.message for status in rig.statuses[-1:])

    assert rig.wait_for(report), rig.statuses[-1:]
    assert rig.wait_for(lambda: report() and said in rig.statuses[-1].message), rig.statuses[-1].message
    assert rig.statuses[-1].level == level and f"{count} " in rig.statuses[-1].message
    assert rig.wait_for(lambda: report() and said.split(":")[0] + ": " in process.text())
    rig.settled()
    rig.fuse(*pair)
    assert rig.wait_for(lambda: rig.statuses[-1].level == DiagnosticStatus.OK)


def test_a_fusion_that_takes_longer_than_a_period_is_said_to(rig):
    grey = np.full((240, 320), 90, np.uint8)
    assert rig.set("steps", 100).successful
    try:
        rig.statuses.clear()

        def report() -> bool:
            rig.send(*rig.pair(np.repeat(grey[:, :, None], 3, 2), grey))
            return any("one fusion takes longer" in status.message for status in rig.statuses)

        assert rig.wait_for(report, 20.0)
        status = next(status for status in rig.statuses if "one fusion takes longer" in status.message)
        assert status.level == DiagnosticStatus.WARN
        rig.settled()
    finally:
        rig.set("steps", 4)


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        (Drop(VISIBLE, 1, None, "partner_missing"), "in pairing_wait (0.5 s), nor any other with a stamp; see whether"),
        (Drop(VISIBLE, 1, None, "partner_missing", -200_000_000), "none after it had come yet; raise pairing_wait"),
        (Drop(VISIBLE, 1, None, "partner_missing", -2 * 10**9), "is 2000.0 ms earlier; raise tolerance, or set infra"),
        (Drop(VISIBLE, 1, None, "partner_missing", 200_000_000), "is 200.0 ms later; raise tolerance, or set infra"),
        (Drop(VISIBLE, 1, None, "unmatched", -200_000_000), "is 200.0 ms earlier; raise tolerance, or set infra"),
        (Drop(VISIBLE, 1, None, "unmatched", 10_000_000), "came too late or has a nearer counterpart"),
        (Drop(VISIBLE, 1, None, "unmatched", 50 * 10**9), "set the clocks of the two cameras to the same time"),
        (Drop(VISIBLE, 1, None, "late", None, 7_000_000), "7.0 ms behind a later one"),
        (Drop(INFRARED, 1, None, "late", None, 7_000_000), "infrared late: "),
        (Drop(VISIBLE, 1, None, "time_jump"), "time went back"),
        (Drop(VISIBLE, 1, None, "time_jump", -3 * 10**9), "the nearest infrared image is 3000.0 ms earlier"),
        (Drop(VISIBLE, 1, None, "partner_set_back", -3 * 10**9), "one camera's time went back, the other's did not"),
        (Drop(VISIBLE, 1, None, "reconfigured"), "offset changed"),
    ],
)
def test_a_drop_is_explained_with_what_was_found_and_a_remedy(drop, said):
    lines: list[str] = []
    warn_of_drop(drop, FusionNodeConfig(), ThrottledLog(lines.append))
    assert len(lines) == 1 and said in lines[0] and ";" in lines[0]


class Lossy:
    """Inputs of which the middleware has lost some."""

    def __init__(self) -> None:
        self.arrivals = {stream: Arrivals() for stream in SENSORS}

    def pass_by(self, stream: str, came: int, lost: int) -> None:
        for _ in range(came):
            self.arrivals[stream].arrived()
        self.arrivals[stream].lose(lost)
        self.arrivals[stream].measure()


def test_losses_in_transport_are_told_of_by_camera_from_two_percent_and_three_images_on():
    inputs, lines = Lossy(), []
    for stream, came, lost in ((VISIBLE, 20, 2), (INFRARED, 200, 3)):
        inputs.pass_by(stream, came, lost)
    assert losses_of(inputs, ThrottledLog(lines.append)) == [], "two are few, and 3 of 203 are less than 2 %"
    inputs.pass_by(VISIBLE, 20, 8)
    (report,) = losses_of(inputs, ThrottledLog(lines.append))
    assert report.startswith("visible: 10 of the last 50 images (20 %) were lost in transport; set FASTRTPS_DEFAULT_")
    assert lines == [report.replace("visible: ", "visible transport: ")]
    for _ in range(11):
        inputs.pass_by(VISIBLE, 20, 0)
    assert losses_of(inputs, ThrottledLog(lines.append)) == [], "ten reports later it is forgiven"
    assert inputs.arrivals[VISIBLE].lost == 10, "but not forgotten"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "set FASTRTPS_DEFAULT_PROFILES_FILE to the package's config/fastdds_shm.xml here and in the camera"),
        ({"ROS_DISTRO": "kilted"}, "set FASTDDS_DEFAULT_PROFILES_FILE to the package's"),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "x.xml"}, "set FASTRTPS_DEFAULT_PROFILES_FILE in the camera drivers"),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, "give the middleware larger buffers, or check the network"),
    ],
)
def test_what_to_set_against_losses_depends_on_what_is_set_already(environment, said):
    assert loss_remedy(environment).startswith(said)


@pytest.mark.parametrize("reason", ["unmatched", "partner_missing", "time_jump"])
def test_an_infrared_camera_that_is_twice_as_fast_is_no_fault(reason):
    lines: list[str] = []
    warn_of_drop(Drop(INFRARED, 1, None, reason), FusionNodeConfig(), ThrottledLog(lines.append))
    assert not lines


def test_after_an_error_in_a_transition_the_node_says_that_it_needs_to_be_configured(
    tiny_checkpoint, pair, monkeypatch
):
    """In this process: the time that a fusion has to end is made shorter than any fusion."""
    monkeypatch.setattr(fusion_node, "STOP_TIMEOUT", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with node_in_process(f"model:={tiny_checkpoint}", "steps:=100") as (node, rig):
        assert node.autostart()
        rig.wait_until_active()
        large = np.full((240, 320), 90, np.uint8)
        rig.send(*rig.pair(np.repeat(large[:, :, None], 3, 2), large))
        assert rig.wait_for(lambda: node.statistics()["waiting"] == 1)
        assert node.trigger_deactivate() == fusion_node.TransitionCallbackReturn.ERROR
        assert node.statistics()["state"] == "unconfigured"
        rig.statuses.clear()
        assert rig.wait_for(lambda: rig.statuses)
        assert rig.statuses[-1].level == DiagnosticStatus.ERROR
        assert "did not end within" in rig.statuses[-1].message
        assert "configure and activate the node again" in rig.statuses[-1].message
        monkeypatch.setattr(fusion_node, "STOP_TIMEOUT", 20.0)
        assert node.autostart()
        rig.statuses.clear()
        assert rig.wait_for(lambda: rig.statuses and rig.statuses[-1].level == DiagnosticStatus.OK)
