"""Runs player, fusion_node and recorder as separate processes over DDS until every pair is accounted for.

Started by ``textdifuse demo``, which prepares the input and reports the results. Takes one JSON object
(:class:`.DemoPlan`), and writes the reports of the three programs to ``OUTPUT/logs/run.json``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions
from tqdm import tqdm

from textdifuse_ros.demo.children import Children
from textdifuse_ros.demo.plans import DemoPlan
from textdifuse_ros.nodes.process import StopRequest
from textdifuse_ros.nodes.supervisor import END_TIMEOUT, PREFIX, SETTLE, Supervisor, run_plan

POLL = 0.25  # [s]


def play(supervisor: Supervisor, children: Children, pairs: int, text_later: str) -> None:
    """Show the progress until the player has ended and fusion_node has nothing left to do.

    :param supervisor: observes the processes
    :param children: the child processes
    :param pairs: number of pairs that the player publishes
    :param text_later: ``target_text`` after half of the pairs; empty for no change
    """
    with tqdm(total=pairs, desc="fusing", unit="pair", disable=None) as bar:
        before: tuple[object, ...] = ()
        settled_at = ended_at = float("inf")
        while time.monotonic() < settled_at + SETTLE:
            numbers = supervisor.statistics()
            done = min(int(numbers["fused"]) + sum(numbers["dropped"].values()), pairs)
            bar.update(max(0, done - bar.n))
            if text_later and done >= pairs // 2:
                supervisor.set_text(text_later)
                text_later = ""
            counts = numbers["received"], numbers["fused"], numbers["dropped"]
            if children.ended("player"):
                ended_at = min(ended_at, time.monotonic())
                if numbers["waiting"] or counts != before:
                    settled_at = float("inf")
                else:
                    settled_at = min(settled_at, time.monotonic())
            before = counts
            if time.monotonic() > ended_at + END_TIMEOUT:
                raise supervisor.failure("fuse all pairs", f"{numbers['waiting']} still waiting", "fusion_node")
            supervisor.spin(POLL, "fusion_node", "recorder")


def run(plan: DemoPlan, stop: StopRequest) -> dict[str, Any]:
    """Run the demo once.

    :param plan: what to run
    :param stop: set by SIGINT and SIGTERM
    :returns: the reports ``player``, ``node`` and ``recorder`` of these programs
    :raises InputError: a program failed; quotes its log
    :raises Interrupted: a signal was received
    """
    output = Path(plan.output)
    logs = output / "logs"
    reports = {name: logs / f"{name}.json" for name in ("player", "recorder")}
    with Children(logs, {"ROS_LOG_DIR": str(logs / "ros")}) as children:
        recorder = {"output": output / "fused_bag", "topics": ",".join(plan.record), "summary": reports["recorder"]}
        children.start("recorder", PREFIX + "recorder_node", recorder)
        children.start("fusion_node", PREFIX + "fusion_node", plan.node)
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("demo")
        try:
            supervisor = Supervisor(node, children, stop, plan.parent, "the demo")
            supervisor.await_active("fusion_node", "recorder")
            supervisor.await_subscribers(plan.record)
            player = {**plan.player, "wait_for": 1, "summary": reports["player"]}
            children.start("player", PREFIX + "player_node", player)
            play(supervisor, children, plan.pairs, plan.text_later)
            numbers = supervisor.statistics()
            for name in ("player", "recorder"):
                if children.stop(name) or not reports[name].is_file():
                    raise supervisor.failure("run to its end", f"a failure of {name}", name)
            children.stop("fusion_node")
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    return {"node": numbers, **{name: json.loads(path.read_text(encoding="utf-8")) for name, path in reports.items()}}


def main(argv: list[str] | None = None) -> int:
    """Run the plan given as the only argument; returns the exit status."""
    (text,) = sys.argv[1:] if argv is None else argv
    return run_plan(DemoPlan(**json.loads(text)), run)


if __name__ == "__main__":
    sys.exit(main())
