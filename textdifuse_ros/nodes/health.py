"""Whether the node does its job and, where it does not, why and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from textdifuse_ros.config_nodes import FusionNodeConfig
from textdifuse_ros.nodes.diagnostics import Arrivals, Complaints
from textdifuse_ros.nodes.pair_fusion import BAD_INFRARED, BAD_VISIBLE, SIZE_MISMATCH
from textdifuse_ros.nodes.worker import FUSION_ERROR, SUPERSEDED
from textdifuse_ros.sync.pairing import INFRARED, JUMP_BACK_NS, LATE, TIME_JUMP, UNMATCHED, VISIBLE, ZERO_STAMP, Drop

DEACTIVATED = "deactivated"
"""The node was taken out of service while it waited."""
RECONFIGURED = "reconfigured"
"""``infrared_offset`` was changed while it waited."""

WANTED = (DEACTIVATED, RECONFIGURED)
FAILURES = (ZERO_STAMP, BAD_VISIBLE, BAD_INFRARED, SIZE_MISMATCH, FUSION_ERROR)
"""A picture or pair was not fit to be fused; the other reasons are about time and partners."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def complain_of(drop: Drop[Any], config: FusionNodeConfig, complaints: Complaints) -> None:
    """Log why the pairing dropped a picture.

    Every visible one, since these are counted; of the infrared those whose driver is at fault, for a camera that is
    twice as fast has no partner for half of its pictures.
    """
    if drop.reason == DEACTIVATED or (drop.stream == INFRARED and drop.reason not in (ZERO_STAMP, LATE)):
        return
    if drop.reason == ZERO_STAMP:
        text = "a picture without stamp cannot be paired; let the driver stamp it"
    elif drop.reason == LATE:
        text = (
            f"a picture came {drop.behind_ns / 1e6:.1f} ms behind a later one whose pair is already out; let the "
            "driver send in the order of the stamps"
        )
    elif drop.reason == TIME_JUMP and drop.nearest_ns is not None and abs(drop.nearest_ns) > JUMP_BACK_NS:
        text = f"one camera's time went back, the other's did not: {_nearest(drop.nearest_ns)}; set their clocks alike"
    elif drop.reason == TIME_JUMP:
        text = "time went back, and what waited is from before; good where a recording loops, else see who sets clocks"
    elif drop.reason == RECONFIGURED:
        text = "infrared_offset was changed, and what waited was in the order of the old one; the next goes by the new"
    else:
        text = _no_partner(drop, config)
    complaints.tell(f"{drop.stream} {drop.reason}", text)


def _no_partner(drop: Drop[Any], config: FusionNodeConfig) -> str:
    found = f"no infrared picture within tolerance ({config.tolerance:g} s)"
    if drop.reason != UNMATCHED:
        found += f" in pairing_wait ({config.pairing_wait:g} s)"
    if drop.nearest_ns is None:
        return f"{found}, nor any other with a stamp; see whether the infrared camera sends, and on which topic"
    seconds = drop.nearest_ns / 1e9
    found += f": {_nearest(drop.nearest_ns)}"
    if abs(seconds) <= config.tolerance:
        return f"{found} but came too late or has a nearer partner; equal the cameras' rates, or raise pairing_wait"
    offset = config.infrared_offset - seconds
    if abs(offset) > 10.0:
        return f"{found}; set the clocks of the two cameras to the same time"
    return f"{found}; raise tolerance, or set infrared_offset to {offset:.3f} where both are of the same moment"


def _nearest(difference_ns: int) -> str:
    order = "later" if difference_ns > 0 else "earlier"
    return f"the nearest infrared picture is {abs(difference_ns) / 1e6:.1f} ms {order}"


class Silence:
    """Tells once when a camera falls silent and when it is back.

    :param topics: the topic of each stream
    :param logger: of the node
    """

    def __init__(self, arrivals: Mapping[str, Arrivals], topics: Callable[[str], str], logger: Any) -> None:
        self._arrivals = arrivals
        self._topics = topics
        self._logger = logger
        self._silent: set[str] = set()

    def restart(self) -> None:
        """Measure from now on."""
        self._silent.clear()
        for arrivals in self._arrivals.values():
            arrivals.restart()

    def look(self, limit: float) -> list[str]:
        """Which cameras have sent nothing for ``limit`` [s], in words."""
        quiet = []
        for stream, arrivals in self._arrivals.items():
            seconds = arrivals.silent_for
            if seconds >= limit:
                quiet.append(f"{stream} silent for {seconds:.1f} s")
                if stream not in self._silent:
                    self._silent.add(stream)
                    self._logger.warning(f"{quiet[-1]} on {self._topics(stream)}")
            elif stream in self._silent:
                self._silent.remove(stream)
                self._logger.info(f"{stream} is back")
        return quiet


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
            where every picture or pair that was looked at was unfit
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
        return "one fusion takes longer than that; take fewer steps, smaller pictures or a faster device"
