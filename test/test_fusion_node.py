"""``fusion_node`` as a real process over real rclpy and DDS: this process is the cameras and the listener."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.srv import DescribeParameters, SetParameters  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

import textdifuse_ros  # noqa: E402
from textdifuse_ros.config import FuserConfig  # noqa: E402
from textdifuse_ros.fusion.fuser import Fuser  # noqa: E402
from textdifuse_ros.nodes import diagnostics  # noqa: E402
from textdifuse_ros.nodes.diagnostics import Complaints, Latencies  # noqa: E402
from textdifuse_ros.nodes.pair_fusion import PairFusion, Received  # noqa: E402
from textdifuse_ros.nodes.qos import input_profile, output_profile, transport_warning  # noqa: E402
from textdifuse_ros.nodes.worker import LatestWorker  # noqa: E402
from textdifuse_ros.sync.pairing import StampedPair  # noqa: E402

FAST = ("statistics_period:=0.2", "silence_after:=0.5", "pairing_wait:=0.2", "warm_up_size:=[48, 64]")
START_TIMEOUT = 20.0


def environment_in(domain: int, **more: str) -> dict[str, str]:
    """For a process in a domain; the mark of the wheels' start-up belongs to this interpreter and is not handed on."""
    inherited = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    path = os.pathsep.join(filter(None, (str(Path(textdifuse_ros.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": path, "ROS_DOMAIN_ID": str(domain), **more}


class Process:
    """One ``fusion_node`` process, its output in a file."""

    def __init__(self, folder: Path, domain: int, *parameters: str) -> None:
        self.log = folder / "node.log"
        environment = environment_in(domain, PYTHONUNBUFFERED="1", OMP_NUM_THREADS="1")
        arguments = [part for parameter in parameters for part in ("-p", parameter)]
        with self.log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "textdifuse_ros.nodes.fusion_node", "--ros-args", *arguments],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        self.popen.send_signal(signal.SIGINT)  # a killed process would leave its shared-memory segments behind
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Rig:
    """Two cameras and a listener in a domain of their own, and the services of the node under test."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self.node = rclpy.create_node("rig", context=self.context, use_global_arguments=False)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.cameras = {s: self.node.create_publisher(Image, f"/{s}/image", output_profile(50)) for s in STREAMS}
        self.fused: list[Image] = []
        self.fused_best_effort: list[Image] = []
        self.statuses: list[Any] = []
        for profile, received in ((output_profile(50), self.fused), (input_profile(50, "best_effort"),
                                                                     self.fused_best_effort)):
            self.node.create_subscription(Image, "/fusion_node/fused", received.append, profile)
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda array: self.statuses.extend(array.status), 10
        )
        self._clients: dict[str, Any] = {}
        self.now_ns = 1_000_000_000_000

    def wait_for(self, condition: Callable[[], Any], seconds: float = 10.0) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.executor.spin_once(timeout_sec=0.02)
        return True

    def spin(self, seconds: float) -> None:
        self.wait_for(lambda: False, seconds)

    def call(self, kind: Any, name: str, request: Any, seconds: float = START_TIMEOUT) -> Any:
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, f"/fusion_node/{name}")
        assert self.wait_for(client.service_is_ready, seconds), f"no service {name}"
        future = client.call_async(request)
        assert self.wait_for(future.done, seconds), f"{name} did not answer"
        return future.result()

    def wait_until_active(self) -> None:
        def heard() -> bool:
            return (
                all(camera.get_subscription_count() == 1 for camera in self.cameras.values())
                and self.node.count_publishers("/fusion_node/fused") == 1
            )

        assert self.wait_for(heard, START_TIMEOUT), "the node did not become active"
        assert self.wait_for(lambda: self.state() == "active")
        self.spin(0.3)  # both ends have now discovered one another

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "change_state", request).success)

    def set(self, name: str, value: Any) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def books(self) -> dict[str, Any]:
        """The node's numbers of one moment, which must add up."""
        numbers = json.loads(self.call(Trigger, "statistics", Trigger.Request()).message)
        assert numbers["received"] == numbers["fused"] + sum(numbers["dropped"].values()) + numbers["waiting"], numbers
        for stream in STREAMS:
            own = numbers[stream]
            assert own["received"] == own["paired"] + sum(own["dropped"].values()) + own["waiting"], numbers
        return dict(numbers)

    def settled(self) -> dict[str, Any]:
        """The books once nothing waits any more."""
        assert self.wait_for(lambda: self.books()["waiting"] == 0, 20.0), self.books()
        return self.books()

    def send(self, visible: Image | None, infrared: Image | None) -> None:
        for stream, message in ((VISIBLE, visible), (INFRARED, infrared)):
            if message is not None:
                self.cameras[stream].publish(message)

    def fuse(self, visible: np.ndarray, infrared: np.ndarray) -> Image:
        """Send a good pair and return what comes out for it."""
        message, other = self.pair(visible, infrared)
        self.send(message, other)
        assert self.wait_for(lambda: self.output_for(message) is not None), "nothing came out"
        return self.output_for(message)

    def output_for(self, visible: Image) -> Any:
        return next((out for out in self.fused if out.header == visible.header), None)

    def pair(self, visible: np.ndarray, infrared: np.ndarray) -> tuple[Image, Image]:
        """Messages with a new stamp each."""
        self.now_ns += 100_000_000
        return image(visible, self.now_ns, "color_frame"), image(infrared, self.now_ns, "thermal_frame")

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


VISIBLE, INFRARED = STREAMS = ("visible", "infrared")


def image(picture: np.ndarray, stamp_ns: int, frame: str = "frame", encoding: str = "") -> Image:
    message = Image(height=picture.shape[0], width=picture.shape[1], step=picture[0].nbytes)
    message.encoding = encoding or ("rgb8" if picture.ndim == 3 else "mono8")
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.data = array("B", np.ascontiguousarray(picture).tobytes())
    return message


def pixels(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


@pytest.fixture(scope="module")
def domain() -> int:
    return random.SystemRandom().randint(20, 90)


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_checkpoint, domain) -> Iterator[tuple[Process, Rig]]:
    """An active node that most tests share; each compares the books before and after."""
    rig = Rig(domain)
    process = Process(tmp_path_factory.mktemp("shared"), domain, f"model:={tiny_checkpoint}", *FAST)
    try:
        rig.wait_until_active()
        yield process, rig
    finally:
        process.close()
        rig.close()


@pytest.fixture
def rig(running) -> Iterator[Rig]:
    """The shared node's rig; after each test the node still fuses and its books still balance."""
    process, rig = running
    rig.settled()
    rig.fused.clear()
    rig.fused_best_effort.clear()
    yield rig
    assert process.alive, process.text()
    grey = np.full((32, 40), 90, np.uint8)
    rig.fuse(np.repeat(grey[:, :, None], 3, 2), grey)
    rig.settled()


@pytest.fixture
def start(tmp_path, domain) -> Iterator[Callable[..., tuple[Process, Rig]]]:
    """Starts a node of one's own in another domain."""
    opened: list[Any] = []

    def begin(*parameters: str) -> tuple[Process, Rig]:
        own = domain + 1 + len(opened)
        opened.append(Rig(own))
        opened.append(Process(tmp_path, own, *parameters))
        return opened[-1], opened[-2]

    yield begin
    for item in reversed(opened):
        item.close()


def dropped_since(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    old = before["dropped"]
    return {reason: n - old.get(reason, 0) for reason, n in after["dropped"].items() if n > old.get(reason, 0)}


# ---- pictures in, pictures out


def test_a_pair_comes_out_fused_with_the_visible_header_and_the_fusers_own_bytes(rig, pair, tiny_checkpoint):
    visible, infrared = pair
    message, other = rig.pair(visible, infrared)
    rig.send(message, other)
    assert rig.wait_for(lambda: rig.fused and rig.fused_best_effort)
    (out,) = rig.fused
    assert out.header == message.header and out.header.frame_id == "color_frame"
    assert (out.encoding, out.height, out.width, out.step) == ("rgb8", 45, 70, 210)
    expected = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint)))(visible, infrared).image
    np.testing.assert_array_equal(pixels(out), expected)
    assert rig.fused_best_effort[0] == out
    numbers = rig.settled()
    assert numbers["device"] in ("cpu", "cuda:0") and len(numbers["weights"]) == 64 and numbers["steps"] == 4
    assert 0 < numbers["latency_ms"]["median"] <= numbers["latency_ms"]["p99"]


def test_stamps_within_tolerance_pair_and_others_do_not(rig, pair):
    before = rig.books()
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


def test_ten_times_too_many_pictures_are_superseded_and_the_books_balance_all_the_while(rig, pair):
    assert rig.set("steps", 100).successful
    try:
        before = rig.books()
        sent = []
        for _ in range(60):
            sent.append(rig.pair(*pair))
            rig.send(*sent[-1])
            rig.spin(0.01)
            rig.books()
        after = rig.settled()
        assert after["received"] - before["received"] == 60
        assert dropped_since(before, after).keys() == {"superseded"}
        assert 1 <= after["fused"] - before["fused"] <= 30
        assert rig.wait_for(lambda: rig.output_for(sent[-1][0]) is not None), "the newest pair is always fused"
        stamps = [out.header.stamp.sec * 10**9 + out.header.stamp.nanosec for out in rig.fused]
        assert stamps == sorted(stamps)
    finally:
        rig.set("steps", 4)


# ---- bad input


def short(message: Image) -> None:
    message.data = message.data[: len(message.data) // 2]


def other_encoding(message: Image) -> None:
    message.encoding = "rgb565"


def half_size(message: Image) -> None:
    message.height //= 2


def small_step(message: Image) -> None:
    message.step = 3


def with_nan(message: Image) -> None:
    picture = np.full((message.height, message.width), 300, np.float32)
    picture[3, 4] = np.nan
    message.encoding, message.step = "32FC1", 4 * message.width
    message.data = array("B", picture.tobytes())


def unstamped(message: Image) -> None:
    message.header.stamp.sec = message.header.stamp.nanosec = 0


@pytest.mark.parametrize(
    ("stream", "spoil", "reason"),
    [
        (VISIBLE, short, "bad_visible"),
        (VISIBLE, other_encoding, "bad_visible"),
        (VISIBLE, small_step, "bad_visible"),
        (VISIBLE, with_nan, "bad_visible"),
        (VISIBLE, unstamped, "zero_stamp"),
        (VISIBLE, half_size, "size_mismatch"),
        (INFRARED, short, "bad_infrared"),
        (INFRARED, other_encoding, "bad_infrared"),
        (INFRARED, with_nan, "bad_infrared"),
        (INFRARED, half_size, "size_mismatch"),
        (INFRARED, unstamped, "partner_missing"),
    ],
)
def test_a_bad_message_is_counted_by_reason_and_the_next_pair_comes_out(rig, pair, stream, spoil, reason):
    before = rig.books()
    messages = dict(zip(STREAMS, rig.pair(*pair), strict=True))
    spoil(messages[stream])
    rig.send(messages[VISIBLE], messages[INFRARED])
    assert rig.wait_for(lambda: dropped_since(before, rig.books()) == {reason: 1}), rig.books()
    assert rig.fused == []
    rig.fuse(*pair)


def test_bad_messages_are_logged_with_what_was_expected(running, rig, pair):
    process, _ = running
    message, other = rig.pair(*pair)
    short(message)
    rig.send(message, other)
    assert rig.wait_for(lambda: "bad_visible: data must be at least step * height" in process.text())


def test_a_constant_picture_is_fused_like_any_other(rig):
    rig.fuse(np.zeros((32, 40, 3), np.uint8), np.full((32, 40), 255, np.uint8))


def test_sixteen_bit_infrared_and_bgr_visible_are_taken(rig, pair):
    visible, infrared = pair
    expected = pixels(rig.fuse(visible, infrared))
    message, other = rig.pair(visible[:, :, ::-1], infrared.astype(np.uint16) * 20 + 7000)
    message.encoding, other.encoding = "bgr8", "mono16"
    rig.send(message, other)
    assert rig.wait_for(lambda: rig.output_for(message) is not None)
    assert pixels(rig.output_for(message)).shape == expected.shape


def test_a_recording_that_loops_goes_on_at_once(rig, pair):
    begin = rig.now_ns
    for _ in range(3):
        rig.now_ns = begin
        for _ in range(10):
            before = len(rig.fused)
            rig.send(*rig.pair(*pair))
            assert rig.wait_for(lambda before=before: len(rig.fused) > before)
    assert len(rig.fused) == 30


def test_one_silent_camera_is_reported_counted_and_forgiven(running, rig, pair):
    process, _ = running
    before = rig.books()
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


def test_complaints_of_one_reason_do_not_flood_the_log(monkeypatch):
    lines: list[str] = []
    complaints = Complaints(lines.append)
    for _ in range(3):
        complaints.tell("bad_visible", "too short")
    complaints.tell("bad_infrared", "NaN")
    assert lines == ["bad_visible: too short", "bad_infrared: NaN"]
    monkeypatch.setattr(diagnostics, "COMPLAINT_PERIOD", 0.0)
    complaints.tell("bad_visible", "too short")
    assert lines[2:] == ["bad_visible: too short (2 more like it since the last line)"]


def test_a_fusion_that_fails_is_counted_and_logged(tiny_checkpoint, pair):
    fuser = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint)))
    fuser.close()
    lines: list[str] = []
    published: list[Image] = []
    fusion = PairFusion(fuser, FuserConfig, published.append, Complaints(lines.append), Latencies())
    visible, infrared = (Received(image(picture, 1), 0.0) for picture in pair)
    assert fusion(StampedPair(visible, infrared, 0)) == "fusion_error"
    assert published == [] and lines == ["fusion_error: the fuser must be open, got closed"]


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


# ---- parameters


def test_steps_change_while_running_and_the_next_picture_shows_it(rig, pair, tiny_checkpoint):
    try:
        assert rig.set("steps", 1).successful
        expected = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), steps=1))(*pair).image
        np.testing.assert_array_equal(pixels(rig.fuse(*pair)), expected)
        assert rig.books()["steps"] == 1
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
    before = rig.books()
    result = rig.set(name, value)
    assert not result.successful
    assert name in result.reason
    assert rig.books()["steps"] == before["steps"]


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
    assert rig.wait_for(lambda: "not started" in process.text(), START_TIMEOUT), process.text()
    assert named in process.text()
    assert process.alive
    assert rig.state() == "unconfigured"
    assert not rig.change(Transition.TRANSITION_CONFIGURE)
    assert rig.wait_for(lambda: any(named in status.message for status in rig.statuses))
    assert rig.statuses[-1].level == b"\x02"


# ---- life cycle


def test_the_life_cycle_frees_and_takes_up_again(start, tiny_checkpoint, pair):
    """Also: sim time without /clock holds nothing up; a wrong value at start is mended by a service call."""
    process, rig = start(*FAST, "autostart:=false", "use_sim_time:=true", "steps:=0", "model:=/nowhere")
    assert rig.state() == "unconfigured"
    assert not rig.change(Transition.TRANSITION_CONFIGURE)
    assert rig.set("steps", 1).successful
    assert rig.set("model", str(tiny_checkpoint)).successful
    assert rig.set("input_reliability", "reliable").successful
    assert rig.change(Transition.TRANSITION_CONFIGURE), process.text()
    assert rig.state() == "inactive"
    assert not rig.set("model", "other").successful

    assert rig.change(Transition.TRANSITION_ACTIVATE)
    rig.wait_until_active()
    rig.fuse(*pair)
    first = rig.settled()["fused"]
    rig.statuses.clear()
    assert rig.wait_for(lambda: rig.statuses), "diagnostics tick although the simulated clock stands still"

    assert rig.change(Transition.TRANSITION_DEACTIVATE)
    assert rig.wait_for(lambda: rig.cameras[VISIBLE].get_subscription_count() == 0)
    rig.send(*rig.pair(*pair))
    rig.spin(0.3)
    assert rig.books()["received"] == first

    assert rig.change(Transition.TRANSITION_ACTIVATE)
    rig.wait_until_active()
    rig.fuse(*pair)
    assert rig.settled()["fused"] == first + 1

    rig.node.create_publisher(Image, "/visible/image", input_profile(5, "best_effort"))
    assert rig.wait_for(lambda: "offers another RELIABILITY than asked for" in process.text()), process.text()

    assert rig.change(Transition.TRANSITION_DEACTIVATE)
    assert rig.change(Transition.TRANSITION_CLEANUP)
    assert rig.state() == "unconfigured"
    assert rig.set("model", "other").successful
    assert rig.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert rig.state() == "finalized"
    assert process.alive


def test_deactivation_under_load_counts_what_waited(start, tiny_checkpoint, pair):
    _, rig = start(f"model:={tiny_checkpoint}", "steps:=100", "input_depth:=20", *FAST, "pairing_wait:=60.0")
    rig.wait_until_active()
    for _ in range(8):
        rig.send(*rig.pair(*pair))
    rig.send(rig.pair(*pair)[0], None)
    assert rig.wait_for(lambda: rig.books()["received"] == 9)
    assert rig.books()["visible"]["waiting"] == 1
    assert rig.change(Transition.TRANSITION_DEACTIVATE)
    numbers = rig.books()
    assert numbers["waiting"] == 0
    assert numbers["dropped"]["deactivated"] in (1, 2)  # the lone one, and a pair if one was in the slot


@pytest.mark.parametrize(
    ("number", "size"),
    [(signal.SIGINT, (45, 70)), (signal.SIGTERM, (45, 70)), (signal.SIGINT, (480, 1000))],
    ids=["ctrl-c", "terminate", "ctrl-c in a fusion of several seconds"],
)
def test_a_signal_under_load_ends_the_process_cleanly_within_two_seconds(start, tiny_checkpoint, number, size):
    # Reliable, for pictures that all but fill the default shared-memory segment.
    process, rig = start(f"model:={tiny_checkpoint}", "steps:=100", "input_reliability:=reliable", *FAST)
    rig.wait_until_active()
    grey = np.full(size, 90, np.uint8)
    for _ in range(5):
        rig.send(*rig.pair(grey, grey))
        rig.spin(0.02)
    assert rig.wait_for(lambda: rig.books()["waiting"] > 0)
    begun = time.monotonic()
    process.popen.send_signal(number)
    assert process.popen.wait(10) == 0, process.text()
    assert time.monotonic() - begun < 2.0
    assert "Traceback" not in process.text() and "error" not in process.text().lower()


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


def test_with_the_shipped_profile_vga_pictures_arrive_between_processes(domain, tmp_path):
    """Without it the default segment loses up to all of them, depending on the timing."""
    profile = Path(__file__).parents[1] / "config" / "fastdds_shm.xml"
    helper = Path(__file__).parent / "ros_helpers" / "vga_transport.py"
    environment = environment_in(domain, FASTRTPS_DEFAULT_PROFILES_FILE=str(profile))
    run = [sys.executable, str(helper)]
    listener = subprocess.Popen([*run, "listen", "60"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        subprocess.run([*run, "send", "60"], env=environment, check=True, timeout=30)
        heard = json.loads(listener.communicate(timeout=30)[0])
    finally:
        listener.kill()
        listener.wait()
    assert heard["visible"] >= 57 and heard["infrared"] >= 57, heard


def test_unreadable_ros_arguments_are_one_line_and_status_2(domain):
    run = [sys.executable, "-m", "textdifuse_ros.nodes.fusion_node", "--ros-args", "--params-file", "/nowhere.yaml"]
    ended = subprocess.run(run, env=environment_in(domain), capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "fusion_node: the ROS arguments must be readable" in ended.stderr and "Traceback" not in ended.stderr
