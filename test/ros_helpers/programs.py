"""Player and recorder as real processes, and a node of the test beside them; a pytest plugin with fixtures."""

# ruff: noqa: E402 (ROS is imported after the skip)
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

import textdifuse_ros
from textdifuse_ros.demo.domain import free_domain
from textdifuse_ros.nodes.messages import message_class
from textdifuse_ros.nodes.qos import input_profile

ROOT = Path(textdifuse_ros.__file__).parents[1]
PATIENCE = 120.0
"""How long to wait for an event [s], on a busy machine."""


def wait_for(condition: Callable[[], Any], what: str) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"timeout while waiting for {what}"
        time.sleep(0.05)


class Observer:
    """A node of the test in the domain of the programs."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self.node = rclpy.create_node("observer", context=self.context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        """Spin until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"timeout while waiting for {what}"
            self._executor.spin_once(timeout_sec=0.05)

    def await_subscribers(self, *topics: str) -> None:
        """Wait until each of the topics has a subscriber."""
        for topic in topics:
            self.wait_for(lambda topic=topic: self.node.count_subscribers(topic), f"a subscriber of {topic}")

    def subscribe(self, topic: str) -> list[bytes]:
        """Subscribe once the topic is published; returns the list that receives its serialized messages."""
        self.wait_for(lambda: self.node.get_publishers_info_by_topic(topic), f"a publisher of {topic}")
        kind = dict(self.node.get_topic_names_and_types())[topic][0]
        received: list[bytes] = []
        profile = input_profile(50, "best_effort")
        self.node.create_subscription(message_class(kind), topic, received.append, profile, raw=True)
        return received

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class Program:
    """A running program; its output goes to files."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        logs = folder / "output"
        logs.mkdir(exist_ok=True)
        number = len(list(logs.iterdir()))
        self._out, self._err = logs / f"{number}.out", logs / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(command, env=env, stdout=out, stderr=err, cwd=folder)

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8", errors="replace")

    def finish(self) -> int:
        """Wait for its end; returns its exit status."""
        return self.popen.wait(PATIENCE)

    def report(self) -> dict[str, Any]:
        """Wait for its end, and return the counts that it prints."""
        assert self.finish() == 0, self.err
        report: dict[str, Any] = json.loads(self.out)
        return report

    def stop(self, number: int = signal.SIGINT) -> dict[str, Any]:
        """Send a signal, and return the counts that it prints."""
        self.popen.send_signal(number)
        return self.report()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


class Programs:
    """Starts player and recorder in a DDS domain of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domain = free_domain()
        self._running: list[Program] = []
        self.env = {name: value for name, value in os.environ.items() if name != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
        self.env.update(
            ROS_DOMAIN_ID=str(self.domain),
            ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
            HOME=str(folder),
            ROS_LOG_DIR=str(folder / "log"),
            PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        )
        self.observer = Observer(self.domain)

    def start(
        self, name: str, *, most_bytes: int = 0, remap: dict[str, str] | None = None, **parameters: object
    ) -> Program:
        """Start a node.

        :param most_bytes: limit on the size of a file, which the system reports as a full disk
        """
        limit = ["prlimit", f"--fsize={most_bytes}"] if most_bytes else []
        arguments = [item for rule in (remap or {}).items() for item in ("-r", ":=".join(rule))]
        arguments += [item for key, value in parameters.items() for item in ("-p", f"{key}:={value}")]
        command = [*limit, sys.executable, "-m", f"textdifuse_ros.nodes.{name}", "--ros-args", *arguments]
        program = Program(command, self.folder, self.env)
        self._running.append(program)
        return program

    def recorder(self, output: str, *topics: str, **parameters: Any) -> Program:
        """Start a recorder, and wait until it handles signals and has created its recording."""
        program = self.start("recorder_node", output=output, topics=f'"{",".join(topics)}"', **parameters)
        path = self.folder / output.replace("~", str(self.folder))
        wait_for(lambda: path.exists() or not program.running, "the recording")
        return program

    def play(
        self,
        *recorded: str,
        cameras: tuple[str, str] = ("/visible/image", "/infrared/image"),
        remap: dict[str, str] | None = None,
        **parameters: Any,
    ) -> Program:
        """Start a player that begins when the topics ``recorded`` have a subscriber, however slow the machine is.

        The observer is one of the subscribers of the camera topics that the player waits for, and subscribes last.
        """
        wait_for_count = 1 + max(topic in recorded for topic in cameras)
        program = self.start("player_node", wait_for=wait_for_count, wait_timeout=PATIENCE, remap=remap, **parameters)
        self.observer.await_subscribers(*recorded)
        for topic in cameras:
            for _ in range(wait_for_count - (topic in recorded)):
                self.observer.subscribe(topic)
        return program

    def close(self) -> None:
        for program in self._running:
            if program.running:
                program.kill()
        self.observer.close()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    found = Programs(tmp_path)
    yield found
    found.close()
