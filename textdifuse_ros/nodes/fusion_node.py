"""Fuses a visible and an infrared camera: two image topics in, one out.

    fusion_node --ros-args -p steps:=4 -r visible/image:=/camera/color -r infrared/image:=/camera/thermal

A managed (lifecycle) node that configures and activates itself unless ``autostart`` is false. It subscribes to
``visible/image`` and ``infrared/image``, publishes ``~/fused``, ``~/provenance`` and ``/diagnostics``, and offers the
services ``~/statistics``, ``~/sync_doctor``, ``~/enable``, ``~/reset`` and ``~/reload_weights``. The objects that
``target_text`` names are emphasized, and published as ``~/mask``, ``~/instances``, ``~/overlay`` and ``~/objects``.

Threads: a single-threaded executor receives, pairs and reports, and never waits for a fusion; one worker fuses and
publishes. ``rcl_publish`` may be called from any thread, and handing the message back to the executor would add its
wake-up and its queue of arriving images to the latency. The worker is stopped before a publisher is disabled or
destroyed. The localizer has a thread of its own, which nothing waits for.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import CheckpointError, DeviceError, TextDifuseError, shorten
from textdifuse_ros.nodes.diagnostics import Arrivals, ThrottledLog, diagnostic_array
from textdifuse_ros.nodes.health import ERROR, OK, WARN, Namesakes
from textdifuse_ros.nodes.parameters import NodeParameters
from textdifuse_ros.nodes.process import run_program
from textdifuse_ros.nodes.publishers import FUSED_TOPIC
from textdifuse_ros.nodes.qos import transport_warning
from textdifuse_ros.nodes.services import Services, Ticker
from textdifuse_ros.nodes.session import Session, empty_tally
from textdifuse_ros.runtime.engine import Engine
from textdifuse_ros.runtime.latency_budget import LatencyBudget
from textdifuse_ros.runtime.text_target import TextTarget
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE
from textdifuse_ros.sync.base import JUMP_BACK_NS
from textdifuse_ros.sync.doctor import Diagnosis, diagnose
from textdifuse_ros.sync.stamps import StampWindow

POLL_PERIOD = 0.05
STOP_TIMEOUT = 10.0
EXIT_TIMEOUT = 1.0

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class FusionNode(LifecycleNode):
    """The managed node ``fusion_node``; its parameters are :class:`.FusionNodeConfig`.

    :param options: for rclpy's node, for example ``cli_args``
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("fusion_node", **options)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._log = ThrottledLog(self.get_logger().warning)
        self._engine = Engine(self._log.warn)
        self._target = TextTarget(self._log.warn)
        self._settings = NodeParameters(self, FusionNodeConfig)
        self._settings.when_changed(self._apply)
        self._settings.check_by(self._target.check)
        self._session: Session | None = None
        self._enabled = True
        self._namesakes = Namesakes(self)
        self._problem = ""
        self._busy_with = ""
        self._poll_timer: Any = None
        # A steady clock: with simulated time a timer of the node's own clock stands still without /clock.
        self._report_timer = self.create_timer(self._config.statistics_period, self._report, clock=self._steady)
        Services(self)
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-JUMP_BACK_NS), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(back, post_callback=self._time_went_back)
        warning = transport_warning()
        if warning:
            self.get_logger().warning(warning)
        # Last: whoever sees this publisher may take the node for complete and send it a signal.
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    @property
    def _config(self) -> FusionNodeConfig:
        """The parameters in force; the defaults while a value given at start is invalid."""
        return FusionNodeConfig() if self._settings.faults else self._settings.config

    # ---- life cycle

    def autostart(self) -> bool:
        """Configure and activate if ``autostart`` is set; after a failure the node stays unconfigured and alive.

        :returns: whether the node is in the state that its parameters ask for
        """
        faults = self._settings.faults
        if not faults and not self._settings.config.autostart:
            return True
        if self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS:
            return True
        if not self.context.ok():  # shut down meanwhile
            return False
        self.get_logger().error("startup failed: fix the error above, then configure and activate the node")
        return False

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        """Refuse a transition that is not possible now, where rclpy lets an exception end the process (rclpy #1209)."""
        possible = {item[0]: item[1] for item in self._state_machine.available_transitions}
        if transition_id not in possible:
            state = self._state_machine.current_state[1]
            known = ", ".join(f"{number} ({label})" for number, label in possible.items()) or "none"
            self.get_logger().warning(f"transition {transition_id} refused: {state}, where these are possible: {known}")
            return FAILURE
        changed: TransitionCallbackReturn = super()._LifecycleNodeMixin__change_state(transition_id)
        return changed

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load the weights, fuse one image; on FAILURE the log names the parameter."""
        session = None
        try:
            config = self._settings.config
            session = Session(self, config, self._engine, self._target, self._log, enabled=self._enabled)
            self._open_engine(config)
            self._report_timer.timer_period_ns = int(1e9 * config.statistics_period)
        except Exception as error:
            if session is not None:
                session.close()
            return self._refuse("configure", error)
        self._session = session
        self._settings.fixed = True
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the device again where it was freed; subscribe and begin to fuse."""
        session = self._active_session()
        try:
            if not self._engine.is_open:
                self._open_engine(session.config)
        except Exception as error:
            return self._refuse("activate", error)
        outcome = super().on_activate(state)
        try:
            session.start()
            self._poll_timer = self.create_timer(POLL_PERIOD, session.subscriptions.poll, clock=self._steady)
        except Exception as error:
            self._problem = f"cannot activate: {type(error).__name__}: {shorten(str(error))}"
            return TransitionCallbackReturn.ERROR
        self.get_logger().info(
            f"active: {session.subscriptions.topic(VISIBLE)} + {session.subscriptions.topic(INFRARED)} -> "
            f"{self.resolve_topic_name(FUSED_TOPIC)}, {session.config.steps} steps on {self._engine.status['device']}"
        )
        return outcome

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, count what waits as dropped, free the device."""
        if not self._stop(STOP_TIMEOUT):
            self._problem = f"deactivated, but the running fusion did not end within {STOP_TIMEOUT:g} s"
            return TransitionCallbackReturn.ERROR
        self._free()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the session; all parameters may change again."""
        self._free()
        if self._session is not None:
            self._session.close()
            self._session = None
        self._settings.fixed = False
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up, from any state."""
        if self._stop(STOP_TIMEOUT):
            self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured; ``/diagnostics`` says so until the node is configured again."""
        self._problem = self._problem or f"a change from {state.label} failed"
        self._problem += "; configure and activate the node again"
        if self.context.ok():
            self.get_logger().error(self._problem)
        self._stop(0.0)
        return self.on_cleanup(state)

    def leave(self) -> bool:
        """Stop for the end of the process; returns whether all threads have ended."""
        return self._stop(EXIT_TIMEOUT) and self._target.close(EXIT_TIMEOUT)

    def _active_session(self) -> Session:
        assert self._session is not None, "the lifecycle allows this transition after configure only"
        return self._session

    def _refuse(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        self._free()
        if not self.context.ok():  # shut down meanwhile: nothing is wrong, and a log line would fail
            return FAILURE
        if isinstance(error, CheckpointError):
            cause = "parameter model: "
        elif isinstance(error, DeviceError):
            cause = "parameter device: "
        else:
            cause = "" if isinstance(error, TextDifuseError) else f"{type(error).__name__}: "
        self._problem = f"cannot {transition}: {cause}{shorten(str(error), 2000)}"
        self.get_logger().error(self._problem)
        return FAILURE

    def _open_engine(self, config: FusionNodeConfig) -> None:
        """Open text target and engine; takes seconds, in which a ticker reports in place of the blocked executor."""
        model = shorten(config.model, 200)
        self._problem, self._busy_with = "", f"waiting for the weights of {model} and a first fusion"
        try:
            with Ticker(config.statistics_period, self._report):
                self._target.open(config)  # first: it finds errors sooner
                to_cpu = config.on_device_error == "cpu"
                self._engine.open(config, config.warm_up_size, fall_back_to_cpu=to_cpu, go_on=self.context.ok)
        finally:
            self._busy_with = ""

    def _free(self) -> None:
        self._engine.close()
        self._target.close()

    def _stop(self, timeout: float) -> bool:
        if self._poll_timer is not None:
            self.destroy_timer(self._poll_timer)
            self._poll_timer = None
        return self._session is None or self._session.stop(timeout)

    # ---- at work

    def _time_went_back(self, jump: TimeJump) -> None:
        if self._session is not None:
            self._session.subscriptions.rewind(self.get_clock().now().nanoseconds)

    def _apply(self, config: FusionNodeConfig) -> None:
        """Apply changed parameters; those that are not live change only while unconfigured."""
        if self._session is not None:
            self._session.apply(config)
        self._target.apply(config)

    def reset(self) -> None:
        """Forget everything about previous images, as after a bag's loop; the counters stay."""
        if self._session is not None:
            self._session.reset()
        self._target.reset()

    def set_enabled(self, enabled: bool) -> None:
        """Process messages, or count and drop them; kept over a new configuration.

        :param enabled: whether to process
        """
        self._enabled = enabled
        if self._session is not None:
            self._session.subscriptions.enabled = enabled

    def reload_weights(self) -> str:
        """Read the weights again; returns their sha256. See :meth:`.Engine.reload`; for any thread."""
        digest, session = self._engine.reload(), self._session
        if session is not None:
            session.reset_video()
        return digest

    def diagnose(self) -> Diagnosis:
        """Diagnose the stamps of the last ``doctor_window`` seconds."""
        if self._session is not None:
            return self._session.subscriptions.diagnose()
        empty, now = StampWindow(0.0), time.monotonic_ns()
        return diagnose(*(empty.series(sensor, now) for sensor in SENSORS))

    # ---- status

    def statistics(self) -> dict[str, Any]:
        """All numbers of this moment, plain; for the executor's thread."""
        session, config = self._session, self._config
        budget = LatencyBudget() if session is None else session.budget
        effort = budget.effort(config.latency_budget, config.steps)
        numbers = {
            "state": self._state_machine.current_state[1],  # rclpy's only public way to it is the service
            "enabled": self._enabled,
            **(empty_tally() if session is None else session.tally()),
            "held": 0 if session is None else session.publishers.held,
            "missing": "" if session is None else session.missing,
            **self._engine.status,
            "steps": config.steps,
            "sampler": config.sampler,
            "seed": config.seed,
            "effort": {"steps": effort.steps, "scale": effort.scale, "changes": budget.changes},
            "memory_mb": self._engine.memory(),
            "text": {**self._target.status(), "plain_because": "" if session is None else session.plain_because},
        }
        for sensor in SENSORS:
            arrivals = Arrivals() if session is None else session.subscriptions.arrivals[sensor]
            lost, sent = arrivals.recent_losses
            numbers[sensor]["lost_in_transport"] = arrivals.lost
            numbers[sensor]["transport_loss"] = round(lost / sent, 4) if sent else 0.0
            numbers[sensor]["rate_hz"] = round(arrivals.rate, 2)
            is_open = session is not None and session.subscriptions.is_open
            numbers[sensor]["silent_for"] = round(arrivals.silent_for, 2) if is_open else None
        return numbers

    def _report(self) -> None:
        """Publish ``/diagnostics``."""
        session = self._session
        if session is not None:
            for arrivals in session.subscriptions.arrivals.values():
                arrivals.measure()
        numbers = self.statistics()
        level, message = OK, numbers["state"]
        if self._problem:
            level, message = ERROR, self._problem
        elif self._busy_with:
            level, message = WARN, self._busy_with
        elif session is not None and session.subscriptions.is_open:
            missing = session.check_missing()
            masks = "; ".join(filter(None, (self._target.problem, session.plain_because)))
            level, found = session.health.judge(numbers, session.config, missing, masks)
            message = found or message
        namesakes = self._namesakes.check()
        if namesakes:
            level, message = max(level, WARN), f"{message}; {namesakes}"
        # With the namespace: two rigs of one vehicle report to the same topic, and each status goes by its name.
        name = f"{self.get_fully_qualified_name().lstrip('/')}: fusion"
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostic_array(stamp, name, numbers["device"], level, message, numbers))


def _run(argv: Sequence[str] | None) -> int:
    node = None
    ended = True
    # rclpy shuts its context down on either signal, which the code below relies on. A KeyboardInterrupt could come
    # anywhere, for example during the import of PyTorch, where the interpreter prints it or exits with its status.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    rclpy.init(args=argv)
    try:
        executor = SingleThreadedExecutor()
        node = FusionNode()
        executor.add_node(node)
        node.autostart()
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception:
        # A signal shuts the context down at once, which makes a running start or configuration fail.
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
        # A running fusion or localizer cannot be interrupted, and the interpreter must not shut down around a thread
        # inside PyTorch.
        print("fusion_node: ended without waiting for what is still running", file=sys.stderr, flush=True)
        os._exit(0)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM; returns the exit status, 0 on either."""
    return run_program("fusion_node", __doc__, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
