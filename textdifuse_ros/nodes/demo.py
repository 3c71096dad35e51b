"""Runs player, fusion_node and recorder as separate processes over DDS until every pair is accounted for.

Started by ``textdifuse demo``, which prepares the input and shows the result. Takes one JSON object as its argument
(:class:`Plan`) and writes one to ``OUTPUT/logs/run.json``: what the player published, what the node counted, what the
recorder wrote.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger
from tqdm import tqdm

from textdifuse_ros.errors import InputError, TextDifuseError
from textdifuse_ros.nodes.children import Children
from textdifuse_ros.nodes.domain import free_domain
from textdifuse_ros.nodes.process import StopRequest

START_TIMEOUT = 180.0  # [s]; weights load and one image is fused
END_TIMEOUT = 60.0  # [s] for the last pairs
SETTLE = 1.0  # [s] without a change, after which no message is believed to be on its way
POLL = 0.25  # [s]
PREFIX = "textdifuse_ros.nodes."


@dataclass(frozen=True)
class Plan:
    """What to run.

    :ivar output: folder for ``fused_bag/`` and ``logs/``
    :ivar parent: process id of the program that started this one, and without which it ends
    :ivar node: parameters of fusion_node
    :ivar player: parameters of player_node
    :ivar pairs: how many the player will publish
    :ivar record: topics of fusion_node to record
    :ivar text_later: ``target_text`` from half of the pairs on; empty for no change
    :ivar profile: Fast DDS profile file; empty for none
    """

    output: str
    parent: int
    node: dict[str, Any]
    player: dict[str, Any]
    pairs: int
    record: list[str]
    text_later: str = ""
    profile: str = ""


class Interrupted(Exception):
    """A signal came, or the program that started this one is gone."""


class Supervisor:
    """Looks at the other processes through ROS: the graph, and the node's statistics.

    :param parent: process id of the program that started this one
    :param name: of what is run, for errors
    """

    def __init__(self, node: Node, children: Children, stop: StopRequest, parent: int, name: str = "the demo") -> None:
        self._name = name
        self._node = node
        self._children = children
        self._stop = stop
        self._parent = parent
        self._client = node.create_client(Trigger, "/fusion_node/statistics")
        self._parameters = node.create_client(SetParameters, "/fusion_node/set_parameters")

    def until(self, condition: Callable[[], bool], what: str, timeout: float, *alive: str) -> None:
        """Wait for a condition while watching the children.

        :param what: completes "... must be able to ..."
        :param alive: children that must not end meanwhile
        :raises Interrupted: told to stop
        :raises InputError: out of time, or a child has ended; quotes its log
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if self._stop.requested or os.getppid() != self._parent:
                raise Interrupted
            for name in alive:
                if self._children.ended(name):
                    raise self.failure(what, f"an end of {name}", name)
            if time.monotonic() > deadline:
                raise self.failure(what, f"nothing within {timeout:g} s", *alive)
            rclpy.spin_once(self._node, timeout_sec=0.05)

    def failure(self, what: str, found: str, *names: str) -> InputError:
        """An error that quotes the children's logs."""
        quoted = "; ".join(f"{name}: {self._children.tail(name, 2)}" for name in names)
        return InputError(self._name, f"able to {what}", found, " ".join(quoted.split()))

    def statistics(self) -> dict[str, Any]:
        """The node's own numbers."""
        future = self._client.call_async(Trigger.Request())
        self.until(future.done, "read the node's statistics", START_TIMEOUT, "fusion_node")
        numbers: dict[str, Any] = json.loads(future.result().message)
        return numbers

    def set_text(self, text: str) -> None:
        """Set ``target_text`` as anybody would: by the node's parameter service.

        :raises InputError: refused
        """
        parameter = Parameter("target_text", value=text).to_parameter_msg()
        future = self._parameters.call_async(SetParameters.Request(parameters=[parameter]))
        self.until(future.done, "change the text", START_TIMEOUT, "fusion_node")
        (result,) = future.result().results
        if not result.successful:
            raise InputError("the text", "one that the node takes", repr(text), result.reason)

    def told_to_stop(self) -> bool:
        """Whether a signal came since the last call; it is taken as heard."""
        requested, self._stop.requested = self._stop.requested, False
        return requested

    def await_service(self, *alive: str) -> None:
        """Wait until the node is active.

        :raises InputError: it is not; quotes its log
        """
        self.until(self._client.service_is_ready, "start fusion_node", START_TIMEOUT, *alive)
        if self.statistics()["state"] != "active":
            raise self.failure("start fusion_node", "a node that refused", "fusion_node")

    def await_node(self, topics: list[str]) -> None:
        """Wait until the node is active and its output is recorded.

        :param topics: those that the recorder is to record
        :raises InputError: it is not; quotes its log
        """
        self.await_service("fusion_node", "recorder")
        self.until(
            lambda: all(self._node.count_subscribers(topic) > 0 for topic in topics),
            "record the fused images",
            30.0,
            "recorder",
        )

    def play(self, pairs: int, text_later: str) -> None:
        """Show the progress until the player has ended and the node has nothing left to do.

        :param text_later: set when half of the pairs are done, unless it is empty
        """
        with tqdm(total=pairs, desc="fusing", unit="pair", disable=None) as bar:
            before: tuple[object, ...] = ()
            settled_at = ended_at = float("inf")
            while time.monotonic() < settled_at + SETTLE:
                numbers = self.statistics()
                done = min(int(numbers["fused"]) + sum(numbers["dropped"].values()), pairs)
                bar.update(max(0, done - bar.n))
                if text_later and done >= pairs // 2:
                    self.set_text(text_later)
                    text_later = ""
                counts = numbers["received"], numbers["fused"], numbers["dropped"]
                if self._children.ended("player"):
                    ended_at = min(ended_at, time.monotonic())
                    if numbers["waiting"] or counts != before:
                        settled_at = float("inf")
                    else:
                        settled_at = min(settled_at, time.monotonic())
                before = counts
                if time.monotonic() > ended_at + END_TIMEOUT:
                    raise self.failure("fuse all pairs", f"{numbers['waiting']} still waiting", "fusion_node")
                self.listen(POLL, "fusion_node", "recorder")

    def listen(self, seconds: float, *alive: str) -> None:
        """Let time pass [s], and take in what comes meanwhile."""
        until = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > until, "go on", seconds + END_TIMEOUT, *alive)


def run(plan: Plan, stop: StopRequest) -> dict[str, Any]:
    """Run everything once.

    :returns: ``player``, ``node`` and ``recorder``, each as that program tells it
    :raises InputError: a program failed; quotes its log
    :raises Interrupted: told to stop
    """
    output = Path(plan.output)
    logs = output / "logs"
    report = {name: logs / f"{name}.json" for name in ("player", "recorder")}
    with Children(logs, {"ROS_LOG_DIR": str(logs / "ros")}) as children:
        recorded = {"output": output / "fused_bag", "topics": ",".join(plan.record), "summary": report["recorder"]}
        children.start("recorder", PREFIX + "recorder_node", recorded)
        children.start("fusion_node", PREFIX + "fusion_node", plan.node)
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("demo")
        try:
            supervisor = Supervisor(node, children, stop, plan.parent)
            supervisor.await_node(plan.record)
            children.start(
                "player", PREFIX + "player_node", {**plan.player, "wait_for": 1, "summary": report["player"]}
            )
            supervisor.play(plan.pairs, plan.text_later)
            numbers = supervisor.statistics()
            for name in ("player", "recorder"):
                if children.stop(name) or not report[name].is_file():
                    raise supervisor.failure("run to its end", f"a failure of {name}", name)
            children.stop("fusion_node")
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    return {"node": numbers, **{name: json.loads(path.read_text(encoding="utf-8")) for name, path in report.items()}}


def run_plan(output: str, profile: str, body: Callable[[StopRequest], dict[str, Any]]) -> int:
    """Run a plan in a domain of its own, and write what it tells to ``OUTPUT/logs/run.json``.

    :param output: the plan's folder
    :param profile: Fast DDS profile file; empty for none
    :param body: runs everything once
    :returns: 0 when it was run, 2 when not, 130 when interrupted
    """
    stop = StopRequest()
    try:
        # Neither does it hear a robot, nor a robot it.
        os.environ["ROS_DOMAIN_ID"] = str(free_domain())
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        if profile:
            os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = profile
        found = body(stop)
        (Path(output) / "logs" / "run.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    except Interrupted:
        return 130
    except TextDifuseError as error:
        print(f"textdifuse: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the plan that is given as the one argument; returns the exit status."""
    (text,) = sys.argv[1:] if argv is None else argv
    plan = Plan(**json.loads(text))
    return run_plan(plan.output, plan.profile, partial(run, plan))


if __name__ == "__main__":
    sys.exit(main())
