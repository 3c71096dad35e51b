"""The services of the fusion node, and a ticker for while its executor is busy."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from textdifuse_ros.nodes.inputs import Inputs
from textdifuse_ros.runtime.engine import Engine


class Services:
    """``~/statistics``, ``~/sync_doctor``, ``~/enable``, ``~/reset`` and ``~/reload_weights``.

    :param statistics: gives the node's numbers
    :param reset: begins anew
    :param inputs: gives the inputs in force
    """

    def __init__(
        self,
        node: Node,
        engine: Engine,
        statistics: Callable[[], Mapping[str, Any]],
        reset: Callable[[], Any],
        inputs: Callable[[], Inputs],
    ) -> None:
        self._node = node
        self._engine = engine
        self._statistics = statistics
        self._reset = reset
        self._inputs = inputs
        node.create_service(Trigger, "~/statistics", self._answer_statistics)
        node.create_service(Trigger, "~/sync_doctor", self._answer_sync_doctor)
        node.create_service(SetBool, "~/enable", self._answer_enable)
        node.create_service(Trigger, "~/reset", self._answer_reset)
        # A group of its own: while the answer is awaited, nothing else of its group is executed.
        alone = MutuallyExclusiveCallbackGroup()
        node.create_service(Trigger, "~/reload_weights", self._answer_reload, callback_group=alone)

    def _answer_statistics(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, json.dumps(self._statistics())
        return response

    def _answer_sync_doctor(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        found = self._inputs().diagnose()
        response.success, response.message = found.suggestion is not None, json.dumps(found.to_mapping())
        return response

    def _answer_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._inputs().enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled"
        self._node.get_logger().info(f"{response.message} by a service call")
        return response

    def _answer_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._reset()
        response.success, response.message = True, "begun anew"
        return response

    async def _answer_reload(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Read in a thread, while the old weights serve; the executor does not wait."""
        executor = self._node.executor
        done: Future = Future(executor=executor)

        def read() -> None:
            try:
                done.set_result((True, f"weights {self._engine.reload()}"))
            except Exception as error:
                done.set_result((False, " ".join(str(error).split())))
            executor.wake()

        threading.Thread(target=read, name="reload", daemon=True).start()
        response.success, response.message = await done
        log = self._node.get_logger()
        if response.success:  # in two lines of code: rclpy ties each to one severity
            log.info(f"reload_weights: {response.message}")
        else:
            log.error(f"reload_weights: the old ones stay: {response.message}")
        return response


class Ticker:
    """Calls something at once and then every ``period`` seconds, in a thread of its own, within a ``with`` block."""

    def __init__(self, period: float, call: Callable[[], Any]) -> None:
        self._period = period
        self._call = call
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="ticker", daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _tick(self) -> None:
        while True:
            try:
                self._call()
            except Exception:  # the context went away; whoever is waited for will notice
                return
            if self._ended.wait(self._period):
                return
