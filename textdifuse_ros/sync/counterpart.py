"""Detects a missing camera, and decides which images are then processed alone."""

from __future__ import annotations

from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor
from textdifuse_ros.sync.outcome import COUNTERPART_MISSING, COUNTERPART_SET_BACK, UNMATCHED

USABLE_ALONE = (UNMATCHED, COUNTERPART_MISSING, COUNTERPART_SET_BACK)
"""Reasons of a drop after which an image may still be processed alone: the image itself is good."""


class CounterpartWatch:
    """Tracks how long one camera has sent images without the other. Times are seconds of any monotonic clock.

    A camera is **missing** if images have arrived for ``after`` seconds without a single pair: it is silent, too late,
    or stamps wrongly. The visible camera is the reference: if both cameras send, its images are processed alone. The
    time counts from the first unpaired image, not from the last pair, so that cameras that are slow, or pause together,
    are not missing.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget all images and pairs."""
        self._unpaired_since: float | None = None
        self._alone_since: dict[str, float | None] = dict.fromkeys(SENSORS)
        self._alone = dict.fromkeys(SENSORS, 0)

    def arrived(self, stream: str, now: float) -> None:
        """Record that an image of ``stream`` arrived at ``now`` [s]."""
        if self._unpaired_since is None:
            self._unpaired_since = now
        if self._alone_since[stream] is None:
            self._alone_since[stream] = now
        self._alone[stream] += 1
        self._alone_since[other_sensor(stream)], self._alone[other_sensor(stream)] = None, 0

    def paired(self) -> None:
        """Record that a pair was released."""
        self._unpaired_since = None

    def silent(self, stream: str, now: float, after: float) -> bool:
        """Return whether ``stream`` has sent nothing while the other camera has for ``after`` seconds until ``now``.

        A single image of the other is not enough: slow cameras that alternate send one each.
        """
        since = self._alone_since[other_sensor(stream)]
        return since is not None and now - since >= after and self._alone[other_sensor(stream)] > 1

    def missing(self, now: float, after: float) -> str:
        """Return the camera that is missing at ``now`` [s], or '' if there were pairs within ``after`` [s]."""
        if self._unpaired_since is None or now - self._unpaired_since < after:
            return ""
        return VISIBLE if self.silent(VISIBLE, now, after) else INFRARED

    def counterpart_silent(self, now: float, after: float) -> bool:
        """Return whether a camera is missing and silent, so that waiting for its images is useless.

        :param now: current time [s]
        :param after: how long a camera must be missing [s]
        """
        missing = self.missing(now, after)
        return bool(missing) and self.silent(missing, now, after)

    def alone(self, stream: str, reason: str, now: float, after: float) -> bool:
        """Return whether a dropped image should be processed alone.

        :param stream: the camera it came from
        :param reason: why the pairing dropped it
        :param now: current time [s]
        :param after: how long a camera must be missing [s]
        """
        return reason in USABLE_ALONE and self.missing(now, after) == other_sensor(stream)
