"""Fuses a visible and an infrared camera: two image topics in, one out.

    fusion_node --ros-args -p steps:=4 -r visible/image:=/camera/color -r infrared/image:=/camera/thermal

A managed (lifecycle) node that configures and activates itself unless ``autostart`` is false. It subscribes to
``visible/image`` and ``infrared/image``, publishes ``~/fused``, ``~/provenance`` and ``/diagnostics``, and answers
``~/statistics``, ``~/sync_doctor``, ``~/enable``, ``~/reset`` and ``~/reload_weights``. What ``target_text`` names is
made to stand out, and published as ``~/mask``, ``~/instances``, ``~/overlay`` and ``~/objects``.

Threads: a single-threaded executor receives, pairs and reports, and never waits for a fusion; one worker fuses. The
worker also publishes: ``rcl_publish`` may be called from any thread, and handing the message back to the executor would
only add its wake-up and its queue of arriving images to the latency. The worker is stopped before the publisher is
disabled or destroyed. A localizer has a thread of its own beside them, which nobody waits for.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import CheckpointError, DeviceError, TextDifuseError
from textdifuse_ros.image.intake import SensorIntake
from textdifuse_ros.nodes.diagnostics import Complaints, diagnostic_array
from textdifuse_ros.nodes.dispatch import Dispatch
from textdifuse_ros.nodes.health import DEACTIVATED, ERROR, OK, RECONFIGURED, RESET, WARN, Health
from textdifuse_ros.nodes.images import info_from
from textdifuse_ros.nodes.inputs import Inputs
from textdifuse_ros.nodes.outputs import FUSED_TOPIC, INFO_TOPIC, Outputs
from textdifuse_ros.nodes.pair_fusion import PairFusion
from textdifuse_ros.nodes.parameters import NodeParameters
from textdifuse_ros.nodes.process import run_program
from textdifuse_ros.nodes.qos import transport_warning
from textdifuse_ros.nodes.services import Services, Ticker
from textdifuse_ros.runtime.engine import Engine
from textdifuse_ros.runtime.text_target import Found, TextTarget
from textdifuse_ros.sensors import INFRARED, VISIBLE, stamp_of
from textdifuse_ros.sync.base import JUMP_BACK_NS

POLL_PERIOD = 0.05
STOP_TIMEOUT = 10.0
EXIT_TIMEOUT = 1.0
LONGEST_AGE = 3600.0
"""A stamp that is older [s], or from the future, is on another clock than the node's, and tells no age."""

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
        self._busy_with = ""
        self._engine = Engine(self._complaints.tell)
        self._target = TextTarget(self._complaints.tell)
        self._settings.check_by(self._target.check)
        self._intake = SensorIntake(self._config)
        self._outputs: Outputs | None = None
        self._poll_timer: Any = None
        self._begin_books(enabled=True)
        # A steady clock: under simulated time a timer of the node's own clock stands still without /clock.
        self._report_timer = self.create_timer(self._config.statistics_period, self._report, clock=self._steady)
        Services(self, self._engine, self.statistics, self._reset, lambda: self._inputs)
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-JUMP_BACK_NS), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(back, post_callback=self._time_went_back)
        warning = transport_warning()
        if warning:
            self.get_logger().warning(warning)
        # Last: who sees it may take the node for complete, and send it a signal.
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

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
        """Check the parameters, load the weights, fuse one image; FAILURE names the parameter in the log."""
        try:
            self._config = self._settings.config
            self._intake = SensorIntake(self._config)
            self._begin_books(self._inputs.enabled)  # standby is kept over a new configuration
            self._inputs.check_calibrations(self._intake)
            self._open_engine()
            self._report_timer.timer_period_ns = int(1e9 * self._config.statistics_period)
            self._outputs = Outputs(self, self._config, self._calibration)
        except Exception as error:
            return self._refuse("configure", error)
        self._settings.fixed = True
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take the device again where it was freed; subscribe and begin to fuse."""
        try:
            if not self._engine.is_open:
                self._open_engine()
        except Exception as error:
            return self._refuse("activate", error)
        outcome = super().on_activate(state)
        try:
            self._begin_work()
        except Exception as error:
            self._problem = f"cannot activate: {type(error).__name__}: {error}"
            return TransitionCallbackReturn.ERROR
        self.get_logger().info(
            f"active: {self._inputs.topic(VISIBLE)} + {self._inputs.topic(INFRARED)} -> "
            f"{self.resolve_topic_name(FUSED_TOPIC)}, {self._config.steps} steps on {self._engine.told['device']}"
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
        """Free all; the parameters may change again."""
        self._free()
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None
        self._settings.fixed = False
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As deactivate and cleanup, from whatever state."""
        if self._stop(STOP_TIMEOUT):
            self._free()
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
        """Stop for the end of the process; returns whether all threads have ended."""
        return self._stop(EXIT_TIMEOUT) and self._target.close(EXIT_TIMEOUT)

    def _refuse(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        self._free()
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

    def _open_engine(self) -> None:
        """Seconds, in which the executor stands still, so that a thread of its own says what is waited for."""
        self._problem, self._busy_with = "", f"waiting for the weights of {self._config.model} and a first fusion"
        try:
            with Ticker(self._config.statistics_period, self._report):
                self._target.open(self._config)  # first: it is the quicker one to say what is wrong
                self._engine.open(self._config, self._config.warm_up_size, self.context.ok)
        finally:
            self._busy_with = ""

    def _free(self) -> None:
        self._engine.close()
        self._target.close()

    def _begin_books(self, enabled: bool) -> None:
        self._dispatch = Dispatch(lambda: self._config, self._hold, self._complaints, self.get_logger())
        dispatch = self._dispatch
        self._inputs = Inputs(self, self._config, lambda outcome: dispatch.take(outcome, self._inputs.partner))
        self._inputs.enabled = enabled
        self._health = Health(self, self._inputs, self._complaints)

    def _begin_work(self) -> None:
        dispatch = self._dispatch
        work = PairFusion(
            self._engine,
            self._intake,
            lambda: self._config,
            functools.partial(self._publish, dispatch),
            self._complaints,
            dispatch.latencies,
            dispatch.budget,
            self._target,
        )
        if self._outputs is not None:
            self._outputs.forget()
        dispatch.worker.start(work)
        self._health.restart()
        self._intake.reset()
        self._inputs.open(self._intake)
        self._poll_timer = self.create_timer(POLL_PERIOD, self._inputs.poll, clock=self._steady)

    def _stop(self, timeout: float) -> bool:
        if self._poll_timer is not None:
            self.destroy_timer(self._poll_timer)
            self._poll_timer = None
        self._inputs.close(DEACTIVATED)
        return self._dispatch.worker.stop(DEACTIVATED, timeout)

    # ---- at work

    def _publish(
        self, dispatch: Dispatch, image: Image, how: str, told: Mapping[str, Any], found: Found | None
    ) -> None:
        """In the worker's thread; what a fusion gives that was given up when the node was stopped is thrown away."""
        outputs = self._outputs
        if outputs is None or dispatch is not self._dispatch:
            return
        outputs.publish(image, how, told, found)
        age = (self.get_clock().now().nanoseconds - stamp_of(image.header)) / 1e9
        if 0 <= age < LONGEST_AGE:
            self._dispatch.ages.add(age)

    def _calibration(self, image: Image) -> CameraInfo | None:
        """Of a fused image, which shares the visible camera's frame: what that camera says, or a calibration file."""
        header = image.header
        said, camera = self._inputs.visible_info, self._intake.visible_camera
        if self._config.rectify or self._config.visible_calibration or said is None:
            if camera is None:
                return None
            if (camera.width, camera.height) != (image.width, image.height):
                text = f"{INFO_TOPIC} is left out: visible_calibration is for {camera.width} x {camera.height} pixels"
                self.get_logger().warning(f"{text}, the images have {image.width} x {image.height}", once=True)
                return None
            return info_from(camera, self._config.rectify, header)
        return CameraInfo(
            header=header, height=said.height, width=said.width, distortion_model=said.distortion_model, d=said.d,
            k=said.k, r=said.r, p=said.p, binning_x=said.binning_x, binning_y=said.binning_y, roi=said.roi,
        )  # fmt: skip

    def _hold(self) -> None:
        if self._outputs is not None:
            self._outputs.hold()

    def _time_went_back(self, jump: TimeJump) -> None:
        self._inputs.rewind(self.get_clock().now().nanoseconds)

    def _apply(self, config: FusionNodeConfig) -> None:
        """Take changed parameters over; those that are not live change only while unconfigured."""
        self._config = config
        self._inputs.apply(config, RECONFIGURED)
        self._target.apply(config)

    def _reset(self) -> None:
        """Begin anew, as after a bag's loop: nothing waits, nothing is known; the counters stay."""
        self._inputs.reset(RESET)
        self._intake.reset()
        self._target.reset()
        self._engine.forget()
        self._dispatch.budget.reset()
        self._dispatch.latencies.clear()
        self._dispatch.ages.clear()
        self._health.restart()
        if self._outputs is not None:
            self._outputs.forget()

    def statistics(self) -> dict[str, Any]:
        """All numbers of this moment, plain; call from the executor's thread."""
        config, dispatch, engine = self._config, self._dispatch, self._engine
        effort = dispatch.budget.effort(config.latency_budget, config.steps)
        numbers = {
            "state": self._state_machine.current_state[1],  # rclpy has no public way to it but the service
            "enabled": self._inputs.enabled,
            **dispatch.numbers(self._inputs.pairs),
            "held": self._outputs.held if self._outputs is not None else 0,
            "missing": dispatch.missing,
            **engine.told,
            "steps": config.steps,
            "sampler": config.sampler,
            "seed": config.seed,
            "effort": {"steps": effort.steps, "scale": effort.scale, "changes": dispatch.budget.changes},
            "memory_mb": engine.memory(),
            "text": {**self._target.told, "plain_because": engine.plain_because},
        }
        for stream, arrivals in self._inputs.arrivals.items():
            lost, sent = arrivals.recent_losses
            numbers[stream]["lost_in_transport"] = arrivals.lost
            numbers[stream]["transport_loss"] = round(lost / sent, 4) if sent else 0.0
            numbers[stream]["rate_hz"] = round(arrivals.rate, 2)
            numbers[stream]["silent_for"] = round(arrivals.silent_for, 2) if self._inputs.is_open else None
        return numbers

    def _report(self) -> None:
        """Publish ``/diagnostics``."""
        for arrivals in self._inputs.arrivals.values():
            arrivals.measure()
        numbers = self.statistics()
        level, message = OK, numbers["state"]
        if self._problem:
            level, message = ERROR, self._problem
        elif self._busy_with:
            level, message = WARN, self._busy_with
        elif self._inputs.is_open:
            missing = self._dispatch.look(self._inputs.partner)
            masks = "; ".join(filter(None, (self._target.trouble, self._engine.plain_because)))
            level, found = self._health.judge(numbers, self._config, missing, masks)
            message = found or message
        # With the namespace: two rigs of one vehicle report to the same topic, and each status goes by its name.
        name = f"{self.get_fully_qualified_name().lstrip('/')}: fusion"
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostic_array(stamp, name, numbers["device"], level, message, numbers))


def _run(argv: Sequence[str] | None) -> int:
    node = None
    ended = True
    # rclpy shuts its context down on either signal, and all below goes by that. A KeyboardInterrupt besides could come
    # anywhere, as while PyTorch is imported, where the interpreter prints it or remembers it as the exit status.
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
        # What is still running (large image, many steps, a slow localizer) cannot be interrupted, and the interpreter
        # must not be taken down around a thread inside PyTorch.
        print("fusion_node: ended without waiting for what is still running", file=sys.stderr, flush=True)
        os._exit(0)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM; returns the exit status, 0 on either."""
    return run_program("fusion_node", __doc__, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
