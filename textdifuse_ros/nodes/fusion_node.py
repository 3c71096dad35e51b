"""Fuses a visible and an infrared camera: two picture topics in, one out.

    fusion_node --ros-args -p steps:=4 -r visible/image:=/camera/color -r infrared/image:=/camera/thermal

A managed (lifecycle) node that configures and activates itself unless ``autostart`` is false. It subscribes to
``visible/image`` and ``infrared/image``, publishes ``~/fused`` and ``/diagnostics``, and answers ``~/statistics``.

Threads: a single-threaded executor receives, pairs and reports, and never waits for a fusion; one worker fuses. The
worker also publishes: ``rcl_publish`` may be called from any thread, and handing the message back to the executor would
only add its wake-up and its queue of arriving pictures to the latency. The worker is stopped before the publisher is
disabled or destroyed.

Books: ``received = fused + dropped (by reason) + waiting`` for visible messages, at every moment. A visible message is
first the matcher's; once paired it is the worker's. Both count for themselves; ``statistics`` only adds up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState, TransitionCallbackReturn
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from textdifuse_ros.config_nodes import FusionNodeConfig
from textdifuse_ros.errors import CheckpointError, ConfigError, DeviceError, TextDifuseError
from textdifuse_ros.nodes.diagnostics import Arrivals, Complaints, Latencies, diagnostic_array
from textdifuse_ros.nodes.health import DEACTIVATED, ERROR, OK, RECONFIGURED, WARN, Progress, Silence, complain_of
from textdifuse_ros.nodes.images import stamp_of
from textdifuse_ros.nodes.pair_fusion import FUSED, PairFusion, Received
from textdifuse_ros.nodes.parameters import NodeParameters
from textdifuse_ros.nodes.process import run_program
from textdifuse_ros.nodes.qos import (
    input_profile,
    output_profile,
    publisher_events,
    subscription_events,
    transport_warning,
)
from textdifuse_ros.nodes.worker import LatestWorker
from textdifuse_ros.sync.pairing import INFRARED, VISIBLE, NearestPairing, Outcome, StampedPair

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

POLL_PERIOD = 0.05
STOP_TIMEOUT = 10.0
EXIT_TIMEOUT = 1.0

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class FusionNode(LifecycleNode):
    """The managed node ``fusion_node``; its parameters are :class:`.FusionNodeConfig`.

    :param options: handed to rclpy's node, for example ``cli_args``
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("fusion_node", **options)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._settings = NodeParameters(self, FusionNodeConfig)
        self._settings.when_changed(self._apply)
        self._config = FusionNodeConfig()
        self._complaints = Complaints(self.get_logger().warning)
        self._problem = ""
        self._fuser: Fuser | None = None
        self._provenance: dict[str, Any] = {}
        self._publisher: LifecyclePublisher | None = None
        self._subscriptions_open: list[Subscription] = []
        self._poll_timer: Any = None
        self._arrivals = {VISIBLE: Arrivals(), INFRARED: Arrivals()}
        self._silence = Silence(self._arrivals, self._input_topic, self.get_logger())
        self._progress = Progress(self._complaints)
        self._begin_books()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: under simulated time a timer of the node's own clock stands still without /clock.
        self._report_timer = self.create_timer(self._config.statistics_period, self._report, clock=self._steady)
        self.create_service(Trigger, "~/statistics", self._answer_statistics)
        warning = transport_warning()
        if warning:
            self.get_logger().warning(warning)

    # ---- life cycle

    def autostart(self) -> bool:
        """Configure and activate where the parameters say so; on failure the node stays unconfigured and lives on.

        :returns: whether the node is now as its parameters want it
        """
        faults = self._settings.faults
        if not faults and not self._settings.config.autostart:
            return True
        if self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS:
            return True
        if not self.context.ok():  # told to end meanwhile
            return False
        self.get_logger().error("not started; mend what the line above names, then configure and activate the node")
        return False

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load the weights, fuse one picture; FAILURE names the parameter in the log."""
        try:
            self._config = self._settings.config
            self._open_fuser()
            self._begin_books()
            self._report_timer.timer_period_ns = int(1e9 * self._config.statistics_period)
            events = publisher_events(self.resolve_topic_name("~/fused"), self.get_logger().warning)
            profile = output_profile(self._config.output_depth)
            self._publisher = self.create_lifecycle_publisher(Image, "~/fused", profile, event_callbacks=events)
        except Exception as error:
            return self._refuse("configure", error)
        self._settings.fixed = True
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take the device again where it was freed; subscribe and begin to fuse."""
        try:
            if self._fuser is None:
                self._open_fuser()
        except Exception as error:
            return self._refuse("activate", error)
        outcome = super().on_activate(state)
        try:
            self._begin_work()
        except Exception as error:
            self._problem = f"cannot activate: {type(error).__name__}: {error}"
            return TransitionCallbackReturn.ERROR
        self.get_logger().info(
            f"active: {self._input_topic(VISIBLE)} + {self._input_topic(INFRARED)} -> "
            f"{self.resolve_topic_name('~/fused')}, {self._config.steps} steps on {self._provenance['device']}"
        )
        return outcome

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, count what waits as dropped, free the device."""
        if not self._stop(STOP_TIMEOUT):
            self._problem = f"deactivated, but the running fusion did not end within {STOP_TIMEOUT:g} s"
            return TransitionCallbackReturn.ERROR
        self._close_fuser()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free all; the parameters may change again."""
        self._close_fuser()
        if self._publisher is not None:
            self.destroy_lifecycle_publisher(self._publisher)
            self._publisher = None
        self._settings.fixed = False
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As deactivate and cleanup, from whatever state."""
        if self._stop(STOP_TIMEOUT):
            self._close_fuser()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured; ``/diagnostics`` says so until the node is configured again."""
        self._problem = self._problem or f"a change from {state.label} failed"
        self._problem += "; configure and activate the node again"
        if self.context.ok():
            self.get_logger().error(self._problem)
        self._stop(0.0)
        return self.on_cleanup(state)

    def leave(self) -> bool:
        """Stop for the end of the process; returns whether the worker has ended."""
        return self._stop(EXIT_TIMEOUT)

    def _refuse(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        self._close_fuser()
        if not self.context.ok():  # told to end meanwhile: nothing is wrong, and a log line would fail
            return FAILURE
        if isinstance(error, CheckpointError):
            cause = "parameter model: "
        elif isinstance(error, DeviceError):
            cause = "parameter device: "
        else:
            cause = "" if isinstance(error, TextDifuseError) else f"{type(error).__name__}: "
        self._problem = f"cannot {transition}: {cause}{error}"
        self.get_logger().error(self._problem)
        return FAILURE

    def _open_fuser(self) -> None:
        # Not at the top: it imports PyTorch, seconds in which a node with a misspelt parameter could already say so.
        from textdifuse_ros.fusion.fuser import Fuser

        config = self._config
        if len(config.warm_up_size) != 2:
            raise ConfigError("warm_up_size", "height and width [pixel]", list(config.warm_up_size))
        self._fuser = fuser = Fuser.from_config(config)
        if self.context.ok():
            fuser.warm_up(*config.warm_up_size)
        self._provenance = {"device": fuser.device, "model": fuser.model_name, "weights": fuser.weights}
        self._problem = ""

    def _close_fuser(self) -> None:
        if self._fuser is not None:
            self._fuser.close()
        self._fuser = None

    def _begin_books(self) -> None:
        config = self._config
        self._pairing: NearestPairing[Received] = NearestPairing(
            round(1e9 * config.tolerance),
            round(1e9 * config.infrared_offset),
            config.pairing_queue,
            round(1e9 * config.pairing_wait),
        )
        self._worker: LatestWorker[StampedPair[Received]] = LatestWorker()
        self._latencies = Latencies()

    def _begin_work(self) -> None:
        assert self._fuser is not None
        work = PairFusion(self._fuser, lambda: self._config, self._publish, self._complaints, self._latencies)
        self._worker.start(work)
        self._silence.restart()
        self._progress.restart()
        for stream in (VISIBLE, INFRARED):
            self._subscriptions_open.append(self._subscribe(stream))
        self._poll_timer = self.create_timer(POLL_PERIOD, self._poll, clock=self._steady)

    def _stop(self, timeout: float) -> bool:
        for subscription in self._subscriptions_open:
            self.destroy_subscription(subscription)
        self._subscriptions_open.clear()
        if self._poll_timer is not None:
            self.destroy_timer(self._poll_timer)
            self._poll_timer = None
        self._take(self._pairing.reset(DEACTIVATED))
        return self._worker.stop(DEACTIVATED, timeout)

    # ---- the executor's thread

    def _input_topic(self, stream: str) -> str:
        return str(self.resolve_topic_name(f"{stream}/image"))

    def _subscribe(self, stream: str) -> Subscription:
        name, arrivals = self._input_topic(stream), self._arrivals[stream]
        return self.create_subscription(
            Image,
            f"{stream}/image",
            lambda message: self._receive(stream, message),
            input_profile(self._config.input_depth, self._config.input_reliability),
            event_callbacks=subscription_events(name, self.get_logger().warning, arrivals.lose),
        )

    def _receive(self, stream: str, message: Image) -> None:
        self._arrivals[stream].arrived()
        received = Received(message, time.monotonic())
        self._take(self._pairing.add(stream, stamp_of(message.header), received, time.monotonic_ns()))

    def _publish(self, fused: Image) -> None:
        """In the worker's thread."""
        assert self._publisher is not None
        try:
            self._publisher.publish(fused)
        except Exception:
            if self.context.ok():  # else Ctrl-C has come while this was fused: nobody listens, nothing to complain of
                raise

    def _poll(self) -> None:
        self._take(self._pairing.poll(time.monotonic_ns()))

    def _take(self, outcome: Outcome[Received]) -> None:
        for pair in outcome.pairs:
            self._worker.offer(pair)
        for drop in outcome.drops:
            complain_of(drop, self._config, self._complaints)

    def _apply(self, config: FusionNodeConfig) -> None:
        """Take changed parameters over; those that are not live change only while unconfigured."""
        self._config = config
        self._pairing.tolerance_ns = round(1e9 * config.tolerance)
        offset = round(1e9 * config.infrared_offset)
        if offset != self._pairing.offset_ns:
            self._take(self._pairing.set_offset(offset, RECONFIGURED))

    def statistics(self) -> dict[str, Any]:
        """All numbers of this moment, plain; call from the executor's thread."""
        active = bool(self._subscriptions_open)
        worker = self._worker.counters()
        streams = {stream: self._pairing.counters(stream) for stream in (VISIBLE, INFRARED)}
        visible = streams[VISIBLE]
        dropped = visible.dropped + Counter({k: n for k, n in worker.finished.items() if k != FUSED})
        numbers: dict[str, Any] = {
            "state": self._state_machine.current_state[1],  # rclpy has no public way to it but the service
            "received": visible.received,
            "fused": worker.finished[FUSED],
            "dropped": dict(dropped),
            "waiting": visible.waiting + worker.waiting,
            "latency_ms": self._latencies.summary(),
            **{name: self._provenance.get(name, "") for name in ("device", "model", "weights")},
            "steps": self._config.steps,
            "sampler": self._config.sampler,
            "seed": self._config.seed,
        }
        for stream, counters in streams.items():
            arrivals = self._arrivals[stream]
            numbers[stream] = {
                "received": counters.received,
                "paired": counters.paired,
                "dropped": dict(counters.dropped),
                "waiting": counters.waiting,
                "lost_in_transport": arrivals.lost,
                "rate_hz": round(arrivals.rate, 2),
                "silent_for": round(arrivals.silent_for, 2) if active else None,
            }
        return numbers

    def _answer_statistics(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = True
        response.message = json.dumps(self.statistics())
        return response

    def _report(self) -> None:
        """Publish ``/diagnostics``."""
        for arrivals in self._arrivals.values():
            arrivals.measure_rate()
        numbers, level, messages = self.statistics(), OK, []
        if self._subscriptions_open:
            messages = self._silence.look(self._config.silence_after)
            level, stalled = self._progress.judge(numbers, self._config.statistics_period)
            if messages:
                level = max(level, WARN)
            if stalled:
                messages.append(stalled)
        if self._problem:
            level, messages = ERROR, [self._problem]
        stamp, name = self.get_clock().now().to_msg(), f"{self.get_name()}: fusion"
        message = "; ".join(messages) or numbers["state"]
        self._diagnostics.publish(diagnostic_array(stamp, name, numbers["device"], level, message, numbers))


def _run(argv: Sequence[str] | None) -> int:
    node = None
    ended = True
    rclpy.init(args=argv)
    try:
        node = FusionNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        node.autostart()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        # A signal shuts the context down at once; what was being started or configured then stumbles over that.
        if rclpy.ok():
            raise
    finally:
        # A launch file and the terminal may both send Ctrl-C; the second must not cut the clean-up short.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if node is not None:
            ended = node.leave()
            if ended:
                node.destroy_node()
        rclpy.try_shutdown()
    if not ended:
        # A fusion that is still running (large picture, many steps) cannot be interrupted, and the interpreter must not
        # be taken down around a thread inside PyTorch.
        print("fusion_node: ended without waiting for the fusion that is running", file=sys.stderr, flush=True)
        os._exit(0)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM; returns the exit status, 0 on either."""
    return run_program("fusion_node", __doc__, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
