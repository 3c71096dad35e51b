"""Whether the node does its job and, where it does not, why and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.image.intake import BAD_INFRARED, BAD_VISIBLE, NO_CALIBRATION, SIZE_MISMATCH
from textdifuse_ros.nodes.diagnostics import Complaints
from textdifuse_ros.nodes.inputs import DISABLED, Inputs
from textdifuse_ros.nodes.qos import loss_remedy
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
"""The node was taken out of service while it waited."""
RECONFIGURED = "reconfigured"
"""An offset was changed while it waited."""
RESET = "reset"
"""The service ``~/reset`` was called while it waited."""

WANTED = (DEACTIVATED, RECONFIGURED, RESET, DISABLED)
FAILURES = (ZERO_STAMP, BAD_VISIBLE, BAD_INFRARED, SIZE_MISMATCH, NO_CALIBRATION, FUSION_ERROR)
"""An image or pair was not fit to be fused; the other reasons are about time and partners."""

LOSS_SHARE, LOSS_LEAST = 0.02, 3
"""Losses in transport are told of from this share, and this many, on: with a large segment 0 to 1 % are lost."""

LATE_AT_MOST = 1.0
"""A camera whose stamps are further behind [s] does not merely deliver late."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def complain_of(drop: Drop[Any], config: FusionNodeConfig, complaints: Complaints) -> None:
    """Log why the pairing dropped an image.

    Every visible one, since these are counted; of the infrared those whose driver is at fault, for a camera that is
    twice as fast has no partner for half of its images.
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
        text = f"one camera's time went back, the other's did not: {_nearest(nearest)}; set their clocks alike"
    elif drop.reason == TIME_JUMP:
        text = "time went back, and what waited is from before; good where a recording loops, else see who sets clocks"
    elif drop.reason == RECONFIGURED:
        text = "an offset was changed, and what waited was in the order of the old one; the next goes by the new"
    elif drop.reason == SAME_STAMP:
        text = "two images have the very same stamp, and the later took its place; let the driver send each once"
    else:
        text = _no_partner(drop, config)
    complaints.tell(f"{drop.stream} {drop.reason}", text)


def _no_partner(drop: Drop[Any], config: FusionNodeConfig) -> str:
    found = f"no infrared image within tolerance ({config.tolerance:g} s)"
    if drop.reason != UNMATCHED:
        found += f" in pairing_wait ({config.pairing_wait:g} s)"
    if drop.nearest_ns is None:
        return f"{found}, nor any other with a stamp; see whether the infrared camera sends, and on which topic"
    seconds = drop.nearest_ns / 1e9
    found += f": {_nearest(drop.nearest_ns)}"
    if abs(seconds) <= config.tolerance:
        return f"{found} but came too late or has a nearer partner; equal the cameras' rates, or raise pairing_wait"
    if drop.reason == COUNTERPART_MISSING and 0 < -seconds <= max(LATE_AT_MOST, 2 * config.pairing_wait):
        # The infrared stream has not come as far: waiting longer is safe, an offset would pair other moments.
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
    """Tells once when a camera falls silent and when it is back.

    :param logger: of the node
    """

    def __init__(self, inputs: Inputs, logger: Any) -> None:
        self._inputs = inputs
        self._logger = logger
        self._silent: set[str] = set()

    def restart(self) -> None:
        """Begin anew."""
        self._silent.clear()

    def look(self, limit: float) -> list[str]:
        """Which cameras have sent nothing for ``limit`` [s], and why, in words."""
        quiet = []
        for stream, arrivals in self._inputs.arrivals.items():
            seconds = arrivals.silent_for
            if seconds >= limit:
                quiet.append(f"{stream} silent for {seconds:.1f} s: {self._inputs.why_silent(stream)}")
                if stream not in self._silent:
                    self._silent.add(stream)
                    self._logger.warning(quiet[-1])
            elif stream in self._silent:
                self._silent.remove(stream)
                self._logger.info(f"{stream} is back")
        return quiet


def losses_of(inputs: Inputs, complaints: Complaints) -> list[str]:
    """Which cameras' images are lost between driver and node, and what to set, in words; also for the log.

    By what the middleware tells: a reader notices gaps in a writer's sequence numbers, also of a best-effort one.
    """
    told = []
    for stream, arrivals in inputs.arrivals.items():
        lost, sent = arrivals.recent_losses
        if lost >= LOSS_LEAST and lost >= LOSS_SHARE * sent:
            share = f"{lost} of the last {sent} images ({100 * lost / sent:.0f} %) were lost in transport"
            complaints.tell(f"{stream} transport", f"{share}; {loss_remedy()}")
            told.append(f"{stream}: {share}; {loss_remedy()}")
    return told


class SimulatedClock:
    """Notices under ``use_sim_time`` that time stands still."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._before = -1

    def look(self) -> tuple[bytes, str]:
        """Level and message; OK and empty where time goes on since the last call, or is not simulated."""
        now = self._node.get_clock().now().nanoseconds
        stands, self._before = now == self._before, now
        if not stands:
            return OK, ""
        if self._node.count_publishers("/clock") == 0:
            return WARN, "use_sim_time is on and nobody publishes /clock; play with the clock, or set it to false"
        return OK, "paused: /clock stands still"


class Progress:
    """Compares the node's books of one report with those of the last.

    :param complaints: know the reasons in words
    """

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._before: Mapping[str, Any] | None = None

    def restart(self) -> None:
        """Begin anew; the next report only opens the books."""
        self._before = None

    def judge(self, numbers: Mapping[str, Any], period: float) -> tuple[bytes, str]:
        """Of the time since the last report.

        :param numbers: as the node's ``statistics`` gives them
        :param period: its length [s], for the text
        :returns: level and message. OK and empty, unless both cameras sent and yet nothing was fused: WARN, and ERROR
            where every image or pair that was looked at was unfit
        """
        before, self._before = self._before, numbers
        if before is None or numbers["fused"] > before["fused"]:
            return OK, ""
        if any(numbers[stream]["received"] <= before[stream]["received"] for stream in (VISIBLE, INFRARED)):
            return OK, ""  # a silent camera is told of elsewhere
        dropped = Counter(numbers["dropped"]) - Counter(before["dropped"])
        for reason in WANTED:
            del dropped[reason]
        unstamped = numbers[INFRARED]["dropped"].get(ZERO_STAMP, 0) - before[INFRARED]["dropped"].get(ZERO_STAMP, 0)
        all_unstamped = unstamped == numbers[INFRARED]["received"] - before[INFRARED]["received"]
        if not dropped and not before["waiting"] and not all_unstamped:
            return OK, ""  # what has come is being worked on
        reasons = [f"{reason} {count}" for reason, count in dropped.most_common()]
        if unstamped:
            reasons.append(f"infrared {ZERO_STAMP} {unstamped}")
        why = self._why(f"{INFRARED} {ZERO_STAMP}" if all_unstamped else "", dropped)
        failed = all_unstamped or (any(map(dropped.get, FAILURES)) and dropped.keys() <= {*FAILURES, SUPERSEDED})
        found = ", ".join(reasons) or f"{numbers['waiting']} waiting"
        return ERROR if failed else WARN, f"nothing fused in the last {period:g} s: {found}; {why}"

    def _why(self, cause: str, dropped: Counter[str]) -> str:
        """The latest complaint about what was dropped most."""
        for reason in (cause, *(reason for reason, _ in dropped.most_common() if reason != SUPERSEDED)):
            for told in (reason, f"{VISIBLE} {reason}"):
                if text := self._complaints.latest(told):
                    return f"{told}: {text}"
        return "one fusion takes longer than that; take fewer steps, smaller images or a faster device"


class Health:
    """Puts together what the node says of itself in ``/diagnostics``.

    :param node: for its clock and its logger
    """

    def __init__(self, node: Node, inputs: Inputs, complaints: Complaints) -> None:
        self._inputs = inputs
        self._complaints = complaints
        self._silence = Silence(inputs, node.get_logger())
        self._progress = Progress(complaints)
        self._clock = SimulatedClock(node)

    def restart(self) -> None:
        """Measure from now on."""
        self._silence.restart()
        self._progress.restart()

    def judge(
        self, numbers: Mapping[str, Any], config: FusionNodeConfig, missing: str, masks: str = ""
    ) -> tuple[bytes, str]:
        """Level and message of an active node; OK and empty where all is well.

        :param numbers: as the node's ``statistics`` gives them
        :param missing: which camera is missing and what is done, in words
        :param masks: what is wrong with those of the text, in words
        """
        level, stalled = self._progress.judge(numbers, config.statistics_period)
        clock_level, clock = self._clock.look()
        if not self._inputs.enabled:
            return OK, "disabled; the service ~/enable switches it on"
        if clock and max(level, clock_level) == OK:  # paused: that nothing comes is as it should be
            return OK, clock
        silent = self._silence.look(config.silence_after)
        lossy = losses_of(self._inputs, self._complaints)
        messages = [text for text in (*silent, missing, stalled, *lossy, clock, masks) if text]
        return max(level, clock_level, WARN if silent or missing or lossy or masks else OK), "; ".join(messages)
