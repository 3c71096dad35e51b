"""Runs player and fusion_node over DDS for minutes or hours, and watches ages, memory and counters.

Started by ``textdifuse endurance``, which prepares the input and judges the result. Takes one JSON object as its
argument (:class:`Plan`) and writes one to ``OUTPUT/logs/run.json``, also where it was interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from tqdm import tqdm

from textdifuse_ros.nodes.children import Children
from textdifuse_ros.nodes.demo import END_TIMEOUT, PREFIX, SETTLE, START_TIMEOUT, Interrupted, Supervisor, run_plan
from textdifuse_ros.nodes.process import StopRequest
from textdifuse_ros.nodes.qos import output_profile
from textdifuse_ros.runtime.processor import FUSED
from textdifuse_ros.sensors import stamp_of

SAMPLE_PERIOD = 5.0  # [s] of the node's memory
SHARE_OF_RUN = 0.1  # but at least so many samples in a short one


@dataclass(frozen=True)
class Plan:
    """What to run.

    :ivar output: folder for ``logs/``
    :ivar parent: process id of the program that started this one, and without which it ends
    :ivar node: parameters of fusion_node
    :ivar player: parameters of player_node
    :ivar seconds: how long to play
    :ivar profile: Fast DDS profile file; empty for none
    """

    output: str
    parent: int
    node: dict[str, Any]
    player: dict[str, Any]
    seconds: float
    profile: str = ""


class Listener:
    """What the node publishes, heard as anybody would.

    The provenance is small and leaves the node just before its image: when it comes is when that was published.

    :ivar ages: of each fused image at its publication [ms], wall clock less stamp
    :ivar works: for each, how long the node worked on it [ms]
    :ivar images: how many came
    """

    def __init__(self, node: Node) -> None:
        self.ages: list[float] = []
        self.works: list[float] = []
        self.images = 0
        node.create_subscription(DiagnosticArray, "/fusion_node/provenance", self._note, output_profile(1000))
        # Its bytes only: turning them into a message would take the time of the images that come after it.
        node.create_subscription(Image, "/fusion_node/fused", self._count, output_profile(5), raw=True)

    def _note(self, message: DiagnosticArray) -> None:
        now = time.time_ns()
        (status,) = message.status
        if status.message == FUSED:
            self.ages.append(round((now - stamp_of(message.header)) / 1e6, 3))
            self.works.append(float(next(item.value for item in status.values if item.key == "work_ms")))

    def _count(self, message: bytes) -> None:
        self.images += 1


def watch(supervisor: Supervisor, seconds: float) -> list[tuple[float, float]]:
    """Sample the node's memory while it works.

    :returns: seconds since the start and resident memory [MB]; not where the system does not tell it
    :raises InputError: player or node ended
    """
    samples = []
    begun = time.monotonic()
    period = min(SAMPLE_PERIOD, SHARE_OF_RUN * seconds)
    with tqdm(total=round(seconds), desc="running", unit="s", disable=None) as bar:
        try:
            while (passed := time.monotonic() - begun) < seconds:
                if (resident := supervisor.statistics()["memory_mb"].get("resident")) is not None:
                    samples.append((round(passed, 2), resident))
                bar.update(round(passed) - bar.n)
                supervisor.listen(min(period, seconds - passed), "fusion_node", "player")
        except Interrupted:
            if not supervisor.told_to_stop():  # the program that started this one is gone: nobody waits for a report
                raise
    return samples


def settle(supervisor: Supervisor) -> dict[str, Any]:
    """The node's numbers once nothing is on its way any more."""
    deadline = time.monotonic() + END_TIMEOUT
    before: dict[str, Any] = {}
    while True:
        numbers = supervisor.statistics()
        if not numbers["waiting"] and numbers["received"] == before.get("received"):
            return numbers
        if time.monotonic() > deadline:
            raise supervisor.failure("fuse all pairs", f"{numbers['waiting']} still waiting", "fusion_node")
        before = numbers
        supervisor.listen(SETTLE, "fusion_node")


def run(plan: Plan, stop: StopRequest) -> dict[str, Any]:
    """Run everything once; a first signal ends the playing, and what was measured so far is told.

    :returns: ``player`` and ``node`` as those programs tell it, ``seconds``, ``ages_ms`` and ``works_ms`` while it
        played, ``heard`` (how many fused images were told of in all), ``images``, ``memory`` and ``interrupted``
    :raises InputError: a program failed; quotes its log
    :raises Interrupted: told to stop before anything was played, or a second time
    """
    logs = Path(plan.output) / "logs"
    report = logs / "player.json"
    with Children(logs, {"ROS_LOG_DIR": str(logs / "ros")}) as children:
        children.start("fusion_node", PREFIX + "fusion_node", plan.node)
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("endurance")
        try:
            supervisor = Supervisor(node, children, stop, plan.parent, "the endurance run")
            listener = Listener(node)
            supervisor.await_service("fusion_node")
            children.start("player", PREFIX + "player_node", {**plan.player, "wait_for": 1, "summary": report})
            received = lambda: supervisor.statistics()["received"] > 0  # noqa: E731
            supervisor.until(received, "play", START_TIMEOUT, "fusion_node", "player")
            begun = time.monotonic()
            memory = watch(supervisor, plan.seconds)
            seconds = time.monotonic() - begun
            # Later ones do not count: the last pair waits for a whole inference, as no newer one takes its place.
            ages, works = listener.ages.copy(), listener.works.copy()
            if children.stop("player") or not report.is_file():
                raise supervisor.failure("play", "a failure of player", "player")
            numbers = settle(supervisor)
            children.stop("fusion_node")
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    return {
        "player": json.loads(report.read_text(encoding="utf-8")),
        "node": numbers,
        "seconds": round(seconds, 3),
        "interrupted": seconds < plan.seconds,
        "ages_ms": ages,
        "works_ms": works,
        "heard": len(listener.ages),
        "images": listener.images,
        "memory": memory,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the plan that is given as the one argument; returns the exit status."""
    (text,) = sys.argv[1:] if argv is None else argv
    plan = Plan(**json.loads(text))
    return run_plan(plan.output, plan.profile, partial(run, plan))


if __name__ == "__main__":
    sys.exit(main())
