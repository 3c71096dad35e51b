"""The services of the fusion node, and a ticker for while its executor is busy."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from textdifuse_ros.errors import shorten

if TYPE_CHECKING:
    from textdifuse_ros.nodes.fusion_node import FusionNode


class Services:
    """``~/statistics``, ``~/sync_doctor``, ``~/enable``, ``~/reset`` and ``~/reload_weights``.

    :param node: answers them
    """

    def __init__(self, node: FusionNode) -> None:
        self._node = node
        node.create_service(Trigger, "~/statistics", self._answer_statistics)
        node.create_service(Trigger, "~/sync_doctor", self._answer_sync_doctor)
        node.create_service(SetBool, "~/enable", self._answer_enable)
        node.create_service(Trigger, "~/reset", self._answer_reset)
        # A group of its own: while the answer is awaited, nothing else of its group is executed.
        alone = MutuallyExclusiveCallbackGroup()
        node.create_service(Trigger, "~/reload_weights", self._answer_reload, callback_group=alone)

    def _answer_statistics(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, json.dumps(self._node.statistics())
        return response

    def _answer_sync_doctor(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        found = self._node.diagnose()
        response.success, response.message = found.suggestion is not None, json.dumps(found.to_mapping())
        return response

    def _answer_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._node.set_enabled(request.data)
        response.success, response.message = True, "enabled" if request.data else "disabled"
        self._node.get_logger().info(f"{response.message} by a service call")
        return response

    def _answer_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._node.reset()
        response.success, response.message = True, "reset"
        return response

    async def _answer_reload(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Load in a thread while the old weights serve; the executor does not wait."""
        executor = self._node.executor
        done: Future = Future(executor=executor)

        def load() -> None:
            try:
                done.set_result((True, f"weights {self._node.reload_weights()}"))
            except Exception as error:
                done.set_result((False, shorten(" ".join(str(error).split()))))
            executor.wake()

        threading.Thread(target=load, name="reload", daemon=True).start()
        response.success, response.message = await done
        log = self._node.get_logger()
        if response.success:  # on two lines: rclpy binds each call site to one severity
            log.info(f"reload_weights: {response.message}")
        else:
            log.error(f"reload_weights: the old weights stay in use: {response.message}")
        return response


class Ticker:
    """Calls a function at once and then periodically, in its own thread, within a ``with`` block.

    :param period: between two calls [s]
    :param call: the function
    """

    def __init__(self, period: float, call: Callable[[], Any]) -> None:
        self._period = period
        self._call = call
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="ticker", daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tick(self) -> None:
        while True:
            try:
                self._call()
            except Exception:  # the context was shut down; the main thread will notice
                return
            if self._ended.wait(self._period):
                return
