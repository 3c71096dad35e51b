"""Health checks of the node: level, cause and remedy for ``/diagnostics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.image.intake import BAD_INFRARED, BAD_VISIBLE, NO_CALIBRATION, SIZE_MISMATCH
from textdifuse_ros.nodes.diagnostics import ThrottledLog
from textdifuse_ros.nodes.qos import loss_remedy
from textdifuse_ros.nodes.subscriptions import DISABLED, Subscriptions
from textdifuse_ros.runtime.worker import FUSION_ERROR, SUPERSEDED
from textdifuse_ros.sensors import INFRARED, VISIBLE
from textdifuse_ros.sync.base import JUMP_BACK_NS
from textdifuse_ros.sync.outcome import (
    COUNTERPART_MISSING,
    COUNTERPART_SET_BACK,
    LATE,
    SAME_STAMP,
    TIME_JUMP,
    UNMATCHED,
    ZERO_STAMP,
    Drop,
)

DEACTIVATED = "deactivated"
"""The node was deactivated while the image waited."""
RECONFIGURED = "reconfigured"
"""An offset was changed while the image waited."""
RESET = "reset"
"""The service ``~/reset`` was called while the image waited."""

REQUESTED = (DEACTIVATED, RECONFIGURED, RESET, DISABLED)
"""Reasons of drops that the user has caused."""
FAILURES = (ZERO_STAMP, BAD_VISIBLE, BAD_INFRARED, SIZE_MISMATCH, NO_CALIBRATION, FUSION_ERROR)
"""Reasons of images that are unusable; the other reasons are about time and counterparts."""

LOSS_SHARE, LOSS_LEAST = 0.02, 3
"""Minimum share and count of transport losses to report: with a large segment 0 to 1 % are lost."""

LATE_AT_MOST = 1.0
"""Delay of the stamps [s] up to which late delivery explains a missing counterpart."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def warn_of_drop(drop: Drop[Any], config: FusionNodeConfig, log: ThrottledLog) -> None:
    """Log why the pairing dropped an image.

    Every dropped visible image is reported. An infrared one is reported only if its driver is at fault: with a camera
    that is twice as fast, half of the images have no counterpart.

    :param drop: the image and the reason
    :param config: the parameters in force, for the remedies
    :param log: of the node
    """
    if drop.reason in (DEACTIVATED, RESET, DISABLED):
        return
    if drop.stream == INFRARED and drop.reason not in (ZERO_STAMP, LATE):
        return
    if drop.reason == ZERO_STAMP:
        text = "an image without stamp cannot be paired; let the driver stamp it"
    elif drop.reason == LATE:
        text = (
            f"an image came {drop.behind_ns / 1e6:.1f} ms behind a later one whose pair is already out; let the "
            "driver send in the order of the stamps"
        )
    elif drop.reason in (TIME_JUMP, COUNTERPART_SET_BACK) and abs(nearest := drop.nearest_ns or 0) > JUMP_BACK_NS:
        text = f"one camera's time went back, the other's did not: {_nearest(nearest)}; synchronize their clocks"
    elif drop.reason == TIME_JUMP:
        text = "time went back, pending images discarded; expected where a recording loops, else check the clocks"
    elif drop.reason == RECONFIGURED:
        text = "offset changed: pending images discarded; expected once per change"
    elif drop.reason == SAME_STAMP:
        text = "two images have the same stamp, the later one replaced the earlier; let the driver send each once"
    else:
        text = _no_counterpart(drop, config)
    log.warn(f"{drop.stream} {drop.reason}", text)


def _no_counterpart(drop: Drop[Any], config: FusionNodeConfig) -> str:
    found = f"no infrared image within tolerance ({config.tolerance:g} s)"
    if drop.reason != UNMATCHED:
        found += f" in pairing_wait ({config.pairing_wait:g} s)"
    if drop.nearest_ns is None:
        return f"{found}, nor any other with a stamp; see whether the infrared camera sends, and on which topic"
    seconds = drop.nearest_ns / 1e9
    found += f": {_nearest(drop.nearest_ns)}"
    if abs(seconds) <= config.tolerance:
        remedy = "set both cameras to the same frame rate, or raise pairing_wait"
        return f"{found} but came too late or has a nearer counterpart; {remedy}"
    if drop.reason == COUNTERPART_MISSING and 0 < -seconds <= max(LATE_AT_MOST, 2 * config.pairing_wait):
        # The infrared stream lags behind. Waiting longer is safe; an offset would pair images of different moments.
        return (
            f"{found}, and none after it had come yet; raise pairing_wait and pairing_queue "
            f"({config.pairing_wait:g} s, {config.pairing_queue} images) by more than that"
        )
    offset = config.infrared_offset - seconds
    if abs(offset) > 10.0:
        return f"{found}; set the clocks of the two cameras to the same time"
    return f"{found}; raise tolerance, or set infrared_offset to {offset:.3f} where both are of the same moment"


def _nearest(difference_ns: int) -> str:
    order = "later" if difference_ns > 0 else "earlier"
    return f"the nearest infrared image is {abs(difference_ns) / 1e6:.1f} ms {order}"


class Silence:
    """Logs once when a camera falls silent and once when it is back.

    :param subscriptions: of the node
    :param logger: of the node
    """

    def __init__(self, subscriptions: Subscriptions, logger: Any) -> None:
        self._subscriptions = subscriptions
        self._logger = logger
        self._silent: set[str] = set()

    def restart(self) -> None:
        """Reset."""
        self._silent.clear()

    def check(self, limit: float) -> list[str]:
        """The silent cameras and the most likely reasons, a line each.

        :param limit: minimum duration of the silence [s]
        """
        quiet = []
        for stream, arrivals in self._subscriptions.arrivals.items():
            seconds = arrivals.silent_for
            if seconds >= limit:
                quiet.append(f"{stream} silent for {seconds:.1f} s: {self._subscriptions.why_silent(stream)}")
                if stream not in self._silent:
                    self._silent.add(stream)
                    self._logger.warning(quiet[-1])
            elif stream in self._silent:
                self._silent.remove(stream)
                self._logger.info(f"{stream} is back")
        return quiet


class Namesakes:
    """Detects other nodes of the same name, whose topics, services and parameters clash with this one's.

    :param node: this node
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._warned = False

    def check(self) -> str:
        """A warning if there is another node of this name, else empty. Logs each change once."""
        node = self._node
        own = (node.get_name(), node.get_namespace())
        others = node.get_node_names_and_namespaces().count(own) - 1
        if others < 1:
            if self._warned:
                node.get_logger().info("no other node has this name any more")
            self._warned = False
            return ""
        text = (
            f"{others + 1} nodes have the name {node.get_fully_qualified_name()}, and their images and services mix; "
            "give each its own by -r __node:=NAME or -r __ns:=/NAMESPACE (one that was killed is listed for some "
            "seconds more)"
        )
        if not self._warned:
            node.get_logger().warning(text)
        self._warned = True
        return text


def losses_of(subscriptions: Subscriptions, log: ThrottledLog) -> list[str]:
    """Report the cameras whose images are lost in transport, with a remedy, a line each; also logged.

    The middleware detects losses by gaps in the sequence numbers of a publisher, even of a best-effort one.

    :param subscriptions: of the node
    :param log: of the node
    """
    lines = []
    for stream, arrivals in subscriptions.arrivals.items():
        lost, sent = arrivals.recent_losses
        if lost >= LOSS_LEAST and lost >= LOSS_SHARE * sent:
            share = f"{lost} of the last {sent} images ({100 * lost / sent:.0f} %) were lost in transport"
            log.warn(f"{stream} transport", f"{share}; {loss_remedy()}")
            lines.append(f"{stream}: {share}; {loss_remedy()}")
    return lines


class SimulatedClock:
    """Detects that simulated time has stopped.

    :param node: its clock is checked
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._before = -1

    def check(self) -> tuple[bytes, str]:
        """Level and message; OK and empty if time has advanced since the last call, or is not simulated."""
        now = self._node.get_clock().now().nanoseconds
        stopped, self._before = now == self._before, now
        if not stopped:
            return OK, ""
        if self._node.count_publishers("/clock") == 0:
            return WARN, "use_sim_time is on and nobody publishes /clock; play with the clock, or set it to false"
        return OK, "paused: /clock stands still"


class ProgressCheck:
    """Checks by the counters that images have been fused since the last report.

    :param log: the warnings of the node, quoted as the cause
    """

    def __init__(self, log: ThrottledLog) -> None:
        self._log = log
        self._before: Mapping[str, Any] | None = None

    def restart(self) -> None:
        """Reset; the next report only sets the reference."""
        self._before = None

    def judge(self, numbers: Mapping[str, Any], period: float) -> tuple[bytes, str]:
        """Judge the time since the last report.

        :param numbers: the node's ``statistics``
        :param period: time since the last report [s], for the text
        :returns: level and message. If both cameras have sent but nothing was fused: WARN, or ERROR if every image or
            pair was unusable; else OK and empty
        """
        before, self._before = self._before, numbers
        if before is None or numbers["fused"] > before["fused"]:
            return OK, ""
        if any(numbers[stream]["received"] <= before[stream]["received"] for stream in (VISIBLE, INFRARED)):
            return OK, ""  # a silent camera is reported elsewhere
        dropped = Counter(numbers["dropped"]) - Counter(before["dropped"])
        for reason in REQUESTED:
            del dropped[reason]
        unstamped = numbers[INFRARED]["dropped"].get(ZERO_STAMP, 0) - before[INFRARED]["dropped"].get(ZERO_STAMP, 0)
        all_unstamped = unstamped == numbers[INFRARED]["received"] - before[INFRARED]["received"]
        if not dropped and not before["waiting"] and not all_unstamped:
            return OK, ""  # the images are being processed
        reasons = [f"{reason} {count}" for reason, count in dropped.most_common()]
        if unstamped:
            reasons.append(f"infrared {ZERO_STAMP} {unstamped}")
        why = self._why(f"{INFRARED} {ZERO_STAMP}" if all_unstamped else "", dropped)
        failed = all_unstamped or (any(map(dropped.get, FAILURES)) and dropped.keys() <= {*FAILURES, SUPERSEDED})
        found = ", ".join(reasons) or f"{numbers['waiting']} waiting"
        return ERROR if failed else WARN, f"nothing fused in the last {period:g} s: {found}; {why}"

    def _why(self, cause: str, dropped: Counter[str]) -> str:
        """The latest warning of the most frequent reason."""
        for reason in (cause, *(reason for reason, _ in dropped.most_common() if reason != SUPERSEDED)):
            for name in (reason, f"{VISIBLE} {reason}"):
                if text := self._log.latest(name):
                    return f"{name}: {text}"
        return "one fusion takes longer than that; use fewer steps, smaller images or a faster device"


class Health:
    """The level and message of ``/diagnostics``.

    :param node: for its clock and its logger
    :param subscriptions: of the node
    :param log: of the node
    """

    def __init__(self, node: Node, subscriptions: Subscriptions, log: ThrottledLog) -> None:
        self._subscriptions = subscriptions
        self._log = log
        self._silence = Silence(subscriptions, node.get_logger())
        self._progress = ProgressCheck(log)
        self._clock = SimulatedClock(node)

    def restart(self) -> None:
        """Forget all previous reports."""
        self._silence.restart()
        self._progress.restart()

    def judge(
        self, numbers: Mapping[str, Any], config: FusionNodeConfig, missing: str, masks: str = ""
    ) -> tuple[bytes, str]:
        """Level and message of an active node; OK and empty if all is well.

        :param numbers: the node's ``statistics``
        :param config: the parameters in force
        :param missing: text about a missing camera, or empty
        :param masks: text about missing or stale masks, or empty
        """
        level, stalled = self._progress.judge(numbers, config.statistics_period)
        clock_level, clock = self._clock.check()
        if not self._subscriptions.enabled:
            return OK, "disabled; the service ~/enable switches it on"
        if clock and max(level, clock_level) == OK:  # paused: no images are expected
            return OK, clock
        silent = self._silence.check(config.silence_after)
        lossy = losses_of(self._subscriptions, self._log)
        messages = [text for text in (*silent, missing, stalled, *lossy, clock, masks) if text]
        return max(level, clock_level, WARN if silent or missing or lossy or masks else OK), "; ".join(messages)
