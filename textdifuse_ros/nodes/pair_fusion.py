"""What the worker does with one pair of messages: decode, fuse, publish; and how it calls what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sensor_msgs.msg import Image

from textdifuse_ros.checks import check_infrared, check_same_size, check_visible
from textdifuse_ros.config import FuserConfig
from textdifuse_ros.errors import ImageError, TextDifuseError
from textdifuse_ros.nodes.diagnostics import Complaints, Latencies
from textdifuse_ros.nodes.images import infrared_from, message_from, visible_from
from textdifuse_ros.nodes.worker import FUSION_ERROR
from textdifuse_ros.sync.pairing import StampedPair

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

FUSED = "fused"
BAD_VISIBLE = "bad_visible"
"""The visible message cannot be decoded."""
BAD_INFRARED = "bad_infrared"
"""The infrared message cannot be decoded, or holds NaN."""
SIZE_MISMATCH = "size_mismatch"
"""The two pictures differ in size."""
REMEDIES = {
    BAD_VISIBLE: "see what the driver of the visible camera sends",
    BAD_INFRARED: "see what the driver of the infrared camera sends",
    SIZE_MISMATCH: "register the two pictures to one size first",
    FUSION_ERROR: "deactivate and activate the node; take smaller pictures where memory ran out",
}
"""For errors that name none themselves."""


@dataclass(frozen=True)
class Received:
    """A message and when it came [s, steady clock]."""

    message: Image
    arrived: float


class PairFusion:
    """Turns pairs of messages into published pictures, in the worker's thread.

    :param settings: gives the configuration in force, for every pair anew
    :param publish: takes the fused message; it has the visible message's header
    :param complaints: takes a line on every bad pair
    """

    def __init__(
        self,
        fuser: Fuser,
        settings: Callable[[], FuserConfig],
        publish: Callable[[Image], None],
        complaints: Complaints,
        latencies: Latencies,
    ) -> None:
        self._fuser = fuser
        self._settings = settings
        self._publish = publish
        self._complaints = complaints
        self._latencies = latencies

    def __call__(self, pair: StampedPair[Received]) -> str:
        """Fuse and publish one pair; returns the outcome under which it is counted and never raises."""
        try:
            visible = visible_from(pair.visible.message)
            check_visible(visible)
        except Exception as error:  # besides the project's errors whatever OpenCV makes of a strange picture
            return self._bad(BAD_VISIBLE, error)
        try:
            infrared = infrared_from(pair.infrared.message)
            check_infrared(infrared)
        except Exception as error:
            return self._bad(BAD_INFRARED, error)
        try:
            check_same_size(visible, infrared)
        except ImageError as error:
            return self._bad(SIZE_MISMATCH, error)
        now = self._settings()
        try:
            result = self._fuser(visible, infrared, steps=now.steps, sampler=now.sampler, seed=now.seed)
            self._publish(message_from(result.image, "rgb8", pair.visible.message.header))
        except Exception as error:
            return self._bad(FUSION_ERROR, error)
        self._latencies.add(time.monotonic() - max(pair.visible.arrived, pair.infrared.arrived))
        return FUSED

    def _bad(self, reason: str, error: Exception) -> str:
        text = " ".join(str(error).split())
        if not isinstance(error, TextDifuseError):
            text = f"{type(error).__name__}: {text}"
        if not getattr(error, "remedy", ""):
            text += f"; {REMEDIES[reason]}"
        self._complaints.tell(reason, text)
        return reason
