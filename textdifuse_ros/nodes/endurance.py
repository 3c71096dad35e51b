"""Runs player and fusion_node over DDS for minutes or hours, and measures image ages, memory and counters.

Started by ``textdifuse endurance``, which prepares the input and evaluates the results. Takes one JSON
object (:class:`.EndurancePlan`), and writes a report to ``OUTPUT/logs/run.json``, also if it was interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from tqdm import tqdm

from textdifuse_ros.demo.children import Children
from textdifuse_ros.demo.plans import EndurancePlan
from textdifuse_ros.nodes.process import StopRequest
from textdifuse_ros.nodes.qos import output_profile
from textdifuse_ros.nodes.supervisor import (
    END_TIMEOUT,
    PREFIX,
    SETTLE,
    START_TIMEOUT,
    Interrupted,
    Supervisor,
    run_plan,
)
from textdifuse_ros.runtime.processor import FUSED
from textdifuse_ros.sensors import stamp_of

SAMPLE_PERIOD = 5.0  # [s] between two samples of the node's memory
SAMPLES_PER_RUN = 10  # at least, in a short run


class Listener:
    """Subscribes to the provenance and the fused images of fusion_node, and measures their ages.

    The provenance is small and is published just before its image, so its arrival is the time of publication.

    :param node: node for the subscriptions
    :ivar ages: age of each fused image at its publication [ms], wall clock minus stamp
    :ivar works: processing time of each fused image [ms]
    :ivar images: number of fused images received
    """

    def __init__(self, node: Node) -> None:
        self.ages: list[float] = []
        self.works: list[float] = []
        self.images = 0
        node.create_subscription(DiagnosticArray, "/fusion_node/provenance", self._add_age, output_profile(1000))
        # Raw bytes: deserializing an image would delay the next ones.
        node.create_subscription(Image, "/fusion_node/fused", self._count_image, output_profile(5), raw=True)

    def _add_age(self, message: DiagnosticArray) -> None:
        now = time.time_ns()
        (status,) = message.status
        if status.message == FUSED:
            self.ages.append(round((now - stamp_of(message.header)) / 1e6, 3))
            self.works.append(float(next(item.value for item in status.values if item.key == "work_ms")))

    def _count_image(self, message: bytes) -> None:
        self.images += 1


def sample_memory(supervisor: Supervisor, seconds: float) -> list[tuple[float, float]]:
    """Sample the memory of fusion_node for ``seconds``, or until a signal is received.

    :param supervisor: observes the processes
    :param seconds: how long to play [s]
    :returns: time since the start [s] and resident memory [MB]; empty if the system does not report it
    :raises InputError: player or fusion_node ended
    """
    samples = []
    begin = time.monotonic()
    period = min(SAMPLE_PERIOD, seconds / SAMPLES_PER_RUN)
    with tqdm(total=round(seconds), desc="running", unit="s", disable=None) as bar:
        try:
            while (passed := time.monotonic() - begin) < seconds:
                if (resident := supervisor.statistics()["memory_mb"].get("resident")) is not None:
                    samples.append((round(passed, 2), resident))
                bar.update(round(passed) - bar.n)
                supervisor.spin(min(period, seconds - passed), "fusion_node", "player")
        except Interrupted:
            if not supervisor.clear_stop():  # the parent process has ended: nobody reads the report
                raise
    return samples


def settle(supervisor: Supervisor) -> dict[str, Any]:
    """Return the statistics of fusion_node after it has processed all pairs; ``supervisor`` observes it."""
    deadline = time.monotonic() + END_TIMEOUT
    before: dict[str, Any] = {}
    while True:
        numbers = supervisor.statistics()
        if not numbers["waiting"] and numbers["received"] == before.get("received"):
            return numbers
        if time.monotonic() > deadline:
            raise supervisor.failure("fuse all pairs", f"{numbers['waiting']} still waiting", "fusion_node")
        before = numbers
        supervisor.spin(SETTLE, "fusion_node")


def run(plan: EndurancePlan, stop: StopRequest) -> dict[str, Any]:
    """Run everything once. The first signal ends the playback; the report covers the time until then.

    :param plan: what to run
    :param stop: set by SIGINT and SIGTERM
    :returns: ``player`` and ``node``, the reports of these programs; ``seconds``, ``ages_ms``, ``works_ms`` during
        playback; ``heard``, number of provenances of fused images; ``images``, ``memory``, ``interrupted``
    :raises InputError: a program failed; quotes its log
    :raises Interrupted: a signal was received before playback started, or for the second time
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
            supervisor.await_active("fusion_node")
            children.start("player", PREFIX + "player_node", {**plan.player, "wait_for": 1, "summary": report})
            supervisor.until(
                lambda: supervisor.statistics()["received"] > 0, "play", START_TIMEOUT, "fusion_node", "player"
            )
            print(
                f"playing for {plan.seconds:g} s in ROS domain {os.environ['ROS_DOMAIN_ID']}",
                file=sys.stderr,
                flush=True,
            )
            begin = time.monotonic()
            memory = sample_memory(supervisor, plan.seconds)
            seconds = time.monotonic() - begin
            # Later images are excluded: the last pair takes a whole inference, since no newer pair replaces it.
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
    """Run the plan given as the only argument; returns the exit status."""
    (text,) = sys.argv[1:] if argv is None else argv
    return run_plan(EndurancePlan(**json.loads(text)), run)


if __name__ == "__main__":
    sys.exit(main())
