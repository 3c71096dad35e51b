"""Supervises the nodes of a demo or an endurance run through ROS and through their processes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from textdifuse_ros.demo.children import Children
from textdifuse_ros.demo.domain import free_domain
from textdifuse_ros.demo.plans import RunPlan
from textdifuse_ros.errors import InputError, TextDifuseError
from textdifuse_ros.nodes.process import StopRequest

START_TIMEOUT = 180.0  # [s] to load the weights and fuse the first image
RESEND_AFTER = 5.0  # [s] without a response, after which a request is sent again
END_TIMEOUT = 60.0  # [s] for the last pairs
SETTLE = 1.0  # [s] without a change of the counters, after which no message is expected any more
PREFIX = "textdifuse_ros.nodes."

P = TypeVar("P", bound=RunPlan)


class Interrupted(Exception):
    """A signal was received, or the parent process has ended."""


class Supervisor:
    """Observes the other processes: the ROS graph, the statistics of fusion_node, and whether the children run.

    :param node: node for the service clients
    :param children: the child processes
    :param stop: set by SIGINT and SIGTERM
    :param parent: process id of the program that started this one
    :param name: what is run, for errors
    """

    def __init__(self, node: Node, children: Children, stop: StopRequest, parent: int, name: str) -> None:
        self._name = name
        self._node = node
        self._children = children
        self._stop = stop
        self._parent = parent
        self._client = node.create_client(Trigger, "/fusion_node/statistics")
        self._parameters = node.create_client(SetParameters, "/fusion_node/set_parameters")

    def until(self, condition: Callable[[], bool], what: str, timeout: float, *alive: str) -> None:
        """Spin until a condition holds, while watching the children.

        :param condition: checked after each event
        :param what: completes "... must be able to ...", for the error
        :param timeout: longest time to wait [s]
        :param alive: names of the children that must keep running
        :raises Interrupted: a signal was received, or the parent process has ended
        :raises InputError: timeout, or a child has ended; quotes its log
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

    def spin(self, seconds: float, *alive: str) -> None:
        """Spin for ``seconds`` while the children ``alive`` keep running; raises as :meth:`until` does."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, "keep running", seconds + END_TIMEOUT, *alive)

    def failure(self, what: str, found: str, *names: str) -> InputError:
        """Return an error that quotes the logs of children.

        :param what: completes "... must be able to ..."
        :param found: what happened instead
        :param names: names of the children
        """
        quoted = "; ".join(f"{name}: {self._children.tail(name, 2)}" for name in names)
        return InputError(self._name, f"able to {what}", found, " ".join(quoted.split()))

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of fusion_node."""
        answer = self._request(self._client, Trigger.Request(), "read the node's statistics")
        numbers: dict[str, Any] = json.loads(answer.message)
        return numbers

    def set_text(self, text: str) -> None:
        """Set the parameter ``target_text`` of fusion_node to ``text``.

        :raises InputError: the node rejects it
        """
        parameter = Parameter("target_text", value=text).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        (result,) = self._request(self._parameters, request, "change the text").results
        if not result.successful:
            raise InputError("the text", "one that the node accepts", repr(text), result.reason)

    def _request(self, client: Client, request: Any, what: str) -> Any:
        """Call a service of fusion_node that may be called twice; returns its response.

        A server drops the response while it has not discovered the client's reader, although the client has already
        discovered the server. So the request is sent again.
        """
        future = client.call_async(request)
        again = time.monotonic() + RESEND_AFTER

        def answered() -> bool:
            nonlocal future, again
            if not future.done() and time.monotonic() > again:
                client.remove_pending_request(future)
                future, again = client.call_async(request), time.monotonic() + RESEND_AFTER
            return bool(future.done())

        self.until(answered, what, START_TIMEOUT, "fusion_node")
        return future.result()

    def clear_stop(self) -> bool:
        """Return whether a signal was received since the last call, and clear it."""
        requested, self._stop.requested = self._stop.requested, False
        return requested

    def await_active(self, *alive: str) -> None:
        """Wait until fusion_node is active, while the children ``alive`` keep running.

        :raises InputError: it does not become active; quotes its log
        """
        self.until(self._client.service_is_ready, "start fusion_node", START_TIMEOUT, *alive)
        if self.statistics()["state"] != "active":
            raise self.failure("start fusion_node", "a node that refused", "fusion_node")

    def await_subscribers(self, topics: list[str]) -> None:
        """Wait until the recorder has subscribed to all ``topics``.

        :raises InputError: it does not; quotes its log
        """
        self.until(
            lambda: all(self._node.count_subscribers(topic) > 0 for topic in topics),
            "record the fused images",
            START_TIMEOUT,
            "recorder",
        )


def run_plan(plan: P, run: Callable[[P, StopRequest], dict[str, Any]]) -> int:
    """Run a plan in a ROS domain of its own, and write its report to ``OUTPUT/logs/run.json``.

    :param plan: what to run
    :param run: runs it and returns the report
    :returns: 0 if it ran to its end, 2 if it failed, 130 if it was interrupted
    """
    stop = StopRequest()
    try:
        # Isolates the run from a robot on the same network, and the robot from the run.
        os.environ["ROS_DOMAIN_ID"] = str(free_domain())
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        if plan.profile:
            os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = plan.profile
        report = run(plan, stop)
        (Path(plan.output) / "logs" / "run.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    except Interrupted:
        return 130
    except TextDifuseError as error:
        print(f"textdifuse: {error}", file=sys.stderr, flush=True)
        return 2
    return 0
