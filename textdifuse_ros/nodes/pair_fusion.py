"""What the worker does with one job: decode, fuse or restore, publish; and how it calls what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import TextDifuseError
from textdifuse_ros.image.intake import (
    BAD_INFRARED,
    BAD_VISIBLE,
    NO_CALIBRATION,
    SIZE_MISMATCH,
    IntakeError,
    SensorIntake,
)
from textdifuse_ros.nodes.diagnostics import Complaints, Latencies
from textdifuse_ros.nodes.images import message_from
from textdifuse_ros.nodes.outputs import FUSED, RESTORED
from textdifuse_ros.runtime.engine import Engine
from textdifuse_ros.runtime.latency_budget import LatencyBudget
from textdifuse_ros.runtime.text_target import Found, TextTarget
from textdifuse_ros.runtime.worker import FUSION_ERROR
from textdifuse_ros.sensors import stamp_of
from textdifuse_ros.sync.filters import Received

REMEDIES = {
    BAD_VISIBLE: "see what the driver of the visible camera sends",
    BAD_INFRARED: "see what the driver of the infrared camera sends",
    SIZE_MISMATCH: "set registration, and let textdifuse calibrate find the homography",
    NO_CALIBRATION: "see the parameters rectify and registration",
    FUSION_ERROR: "deactivate and activate the node; take smaller images where memory ran out",
}
"""For errors that name none themselves."""

Publish = Callable[[Image, str, Mapping[str, Any], Found | None], None]


@dataclass(frozen=True)
class Job:
    """A pair, or the image of one camera where the other is missing.

    :ivar difference_ns: infrared stamp minus visible stamp, offsets added
    """

    visible: Received[Any] | None
    infrared: Received[Any] | None
    difference_ns: int = 0

    @property
    def present(self) -> list[Received[Any]]:
        """What there is, the reference first."""
        return [received for received in (self.visible, self.infrared) if received is not None]

    @property
    def header(self) -> Header:
        """Of the reference: the visible, where there is one."""
        header: Header = self.present[0].message.header
        return header

    @property
    def arrived(self) -> float:
        """When the later one came [s, steady clock]."""
        return max(received.arrived for received in self.present)


class PairFusion:
    """Turns jobs into published images, in the worker's thread.

    :param intake: decodes and aligns
    :param settings: gives the configuration in force, for every job anew
    :param publish: takes the image, ``fused`` or ``restored``, what made it, and what the text names in it; see
        :class:`.Outputs`
    :param complaints: takes a line on every bad job
    :param target: finds what the text names
    """

    def __init__(
        self,
        engine: Engine,
        intake: SensorIntake,
        settings: Callable[[], FusionNodeConfig],
        publish: Publish,
        complaints: Complaints,
        latencies: Latencies,
        budget: LatencyBudget,
        target: TextTarget | None = None,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._settings = settings
        self._publish = publish
        self._complaints = complaints
        self._latencies = latencies
        self._budget = budget
        self._target = target

    def __call__(self, job: Job) -> str:
        """Fuse and publish; returns the outcome under which the job is counted and never raises."""
        now, begun = self._settings(), time.monotonic()
        try:
            self._intake.update_config(now)
            pair = self._intake.align(*(None if half is None else half.message for half in (job.visible, job.infrared)))
        except IntakeError as error:
            return self._bad(error.reason, error)
        effort = self._budget.effort(now.latency_budget, now.steps)
        how = FUSED if len(job.present) == 2 else RESTORED
        stamp = stamp_of(job.header) / 1e9
        try:
            found = None
            if self._target is not None:
                found = self._target.find(pair.visible, pair.infrared, stamp)
            emphasis = None if found is None or how == RESTORED else found.emphasis()
            result = self._engine.fuse(pair.visible, pair.infrared, now, effort, emphasis, stamp)
            told: dict[str, Any] = {"sources": "visible+infrared", "scale": "1", **result.provenance}
            if how == FUSED:
                told["stamp_difference_ms"] = f"{job.difference_ns / 1e6:.3f}"
            if found is not None:
                told.update(found.told())
                if self._engine.plain_because:
                    told["plain_because"] = self._engine.plain_because
            message = message_from(result.image, "rgb8", job.header)
            told["work_ms"] = f"{1e3 * (time.monotonic() - begun):.3f}"
            self._publish(message, how, told, found)
        except Exception as error:
            return self._bad(FUSION_ERROR, error)
        latency = time.monotonic() - job.arrived
        self._budget.observe(latency, effort)
        self._latencies.add(latency)
        return how

    def _bad(self, reason: str, error: Exception) -> str:
        text = " ".join(str(error).split())
        if not isinstance(error, TextDifuseError):
            text = f"{type(error).__name__}: {text}"
        if not getattr(error, "remedy", ""):
            text += f"; {REMEDIES[reason]}"
        self._complaints.tell(reason, text)
        return reason
