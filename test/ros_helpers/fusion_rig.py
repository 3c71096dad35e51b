"""``fusion_node`` as a real process, and a rig of cameras and a listener around it; a pytest plugin with fixtures."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

import textdifuse_ros
from textdifuse_ros.demo.domain import free_domain
from textdifuse_ros.nodes.fusion_node import FusionNode
from textdifuse_ros.nodes.qos import input_profile, output_profile
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE

FAST = ("statistics_period:=0.2", "silence_after:=0.5", "pairing_wait:=0.2", "warm_up_size:=[48, 64]")
START_TIMEOUT = 120.0
RESEND_AFTER = 5.0  # seconds


def environment_in(domain: int, **more: str) -> dict[str, str]:
    """Environment of a process in ``domain``, without the startup mark of the ROS wheels of this interpreter."""
    inherited = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    path = os.pathsep.join(filter(None, (str(Path(textdifuse_ros.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": path, "ROS_DOMAIN_ID": str(domain), **more}


class Process:
    """A ``fusion_node`` process with its output in a file; takes parameters and remappings (``-r FROM:=TO``)."""

    def __init__(self, folder: Path, domain: int, *parameters: str, namespace: str = "/") -> None:
        self.log = folder / "node.log"
        environment = environment_in(domain, PYTHONUNBUFFERED="1", OMP_NUM_THREADS="1")
        given = [part if part.startswith("-r ") else f"-p {part}" for part in parameters]
        arguments = [word for part in given for word in part.split(" ", 1)]
        arguments += ["-r", f"__ns:={namespace}"]
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
            self.popen.wait(30)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Rig:
    """Two cameras, a listener and clients of the node's services, in a domain of their own."""

    def __init__(self, domain: int) -> None:
        self.domain = domain
        self.context = Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self.node = rclpy.create_node("rig", context=self.context, use_global_arguments=False)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.cameras = {s: self.node.create_publisher(Image, f"/{s}/image", output_profile(50)) for s in SENSORS}
        self.fused: list[Image] = []
        self.fused_best_effort: list[Image] = []
        self.provenance: list[DiagnosticArray] = []
        self.statuses: list[Any] = []
        for profile, received in (
            (output_profile(50), self.fused),
            (input_profile(50, "best_effort"), self.fused_best_effort),
        ):
            self.node.create_subscription(Image, "/fusion_node/fused", received.append, profile)
        self.node.create_subscription(
            DiagnosticArray, "/fusion_node/provenance", self.provenance.append, output_profile(50)
        )
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda array: self.statuses.extend(array.status), 10
        )
        # Created together, so that a server which answers one has discovered the other.
        kinds = {"get_state": GetState, "change_state": ChangeState}
        self._clients = {name: self.node.create_client(kind, f"/fusion_node/{name}") for name, kind in kinds.items()}
        self.now_ns = 1_000_000_000_000

    def wait_for(self, condition: Callable[[], Any], seconds: float = 60.0) -> bool:
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
        # A server that has not discovered the client's reader yet drops its response. Sending again is harmless except
        # for a transition; `change` is therefore preceded by a request that was answered.
        deadline = time.monotonic() + seconds
        while True:
            future = client.call_async(request)
            once = kind is ChangeState
            if self.wait_for(future.done, seconds if once else RESEND_AFTER):
                return future.result()
            assert not once and time.monotonic() < deadline, f"{name} did not answer"

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
        self.state()
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "change_state", request).success)

    def begin_change(self, transition: int) -> None:
        """Request a transition without waiting for the response."""
        client = self._clients["change_state"]
        assert self.wait_for(client.service_is_ready, START_TIMEOUT)
        client.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def set(self, name: str, value: Any) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def counters(self) -> dict[str, Any]:
        """The node's statistics, whose counters must be consistent."""
        numbers = json.loads(self.call(Trigger, "statistics", Trigger.Request()).message)
        out = numbers["fused"] + numbers["restored"]
        assert numbers["received"] == out + sum(numbers["dropped"].values()) + numbers["waiting"], numbers
        for stream in SENSORS:
            own = numbers[stream]
            out = own["paired"] + own["alone"]
            assert own["received"] == out + sum(own["dropped"].values()) + own["waiting"], numbers
        return dict(numbers)

    def settled(self) -> dict[str, Any]:
        """The counters once no pair is waiting."""
        assert self.wait_for(lambda: self.counters()["waiting"] == 0, 60.0), self.counters()
        return self.counters()

    def send(self, visible: Image | None, infrared: Image | None) -> None:
        for stream, message in ((VISIBLE, visible), (INFRARED, infrared)):
            if message is not None:
                self.cameras[stream].publish(message)

    def fuse(self, visible: np.ndarray, infrared: np.ndarray) -> Image:
        """Send a pair and return its fused image."""
        message, other = self.pair(visible, infrared)
        self.send(message, other)
        assert self.wait_for(lambda: self.output_for(message) is not None), "nothing came out"
        return self.output_for(message)

    def output_for(self, visible: Image) -> Any:
        return next((out for out in self.fused if out.header == visible.header), None)

    def pair(self, visible: np.ndarray, infrared: np.ndarray) -> tuple[Image, Image]:
        """Messages of a pair with a new stamp."""
        self.now_ns += 100_000_000
        return image(visible, self.now_ns, "color_frame"), image(infrared, self.now_ns, "thermal_frame")

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def image(pixels: np.ndarray, stamp_ns: int, frame: str = "frame", encoding: str = "") -> Image:
    message = Image(height=pixels.shape[0], width=pixels.shape[1], step=pixels[0].nbytes)
    message.encoding = encoding or ("rgb8" if pixels.ndim == 3 else "mono8")
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.data = array("B", np.ascontiguousarray(pixels).tobytes())
    return message


def pixels(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


@pytest.fixture(scope="module")
def domain() -> int:
    return free_domain()


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_checkpoint, domain) -> Iterator[tuple[Process, Rig]]:
    """An active node shared by most tests of a module; each compares the counters before and after."""
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
    """The rig of the shared node; after each test the node must still fuse with consistent counters."""
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
def start(tmp_path) -> Iterator[Callable[..., tuple[Process, Rig]]]:
    """Starts a separate node in a domain of its own."""
    opened: list[Any] = []

    def begin(*parameters: str, namespace: str = "/") -> tuple[Process, Rig]:
        own = free_domain()
        opened.append(Rig(own))
        opened.append(Process(tmp_path, own, *parameters, namespace=namespace))
        return opened[-1], opened[-2]

    yield begin
    for item in reversed(opened):
        item.close()


def dropped_since(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    old = before["dropped"]
    return {reason: n - old.get(reason, 0) for reason, n in after["dropped"].items() if n > old.get(reason, 0)}


@contextmanager
def node_in_process(*parameters: str) -> Iterator[tuple[FusionNode, Rig]]:
    """A ``fusion_node`` in this process, for tests that patch it; spun by its rig."""
    rig = Rig(free_domain())
    arguments = ["--ros-args", *(part for item in (*parameters, *FAST) for part in ("-p", item))]
    node = FusionNode(context=rig.context, cli_args=arguments)
    rig.executor.add_node(node)
    try:
        yield node, rig
    finally:
        node.leave()
        rig.executor.remove_node(node)
        node.destroy_node()
        rig.close()
