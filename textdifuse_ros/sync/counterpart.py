"""Whether a camera is missing, and which images are then to be used alone."""

from __future__ import annotations

from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor
from textdifuse_ros.sync.outcome import COUNTERPART_MISSING, COUNTERPART_SET_BACK, UNMATCHED

ALONE = (UNMATCHED, COUNTERPART_MISSING, COUNTERPART_SET_BACK)
"""Reasons of a drop after which an image may still be used alone: nothing is wrong with the image itself."""


class CounterpartWatch:
    """Knows for how long one camera has sent without the other; times in seconds, of any clock that never goes back.

    One camera is **missing** when images have come for ``after`` seconds and no pair was among them: the other one
    is silent, too late, or stamps wrongly. The visible camera is the reference: where both send, its images are the
    ones used. Counted is from the first image, not from the last pair: cameras that are slow, or paused together,
    miss nothing.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget all."""
        self._unpaired_since: float | None = None
        self._alone_since: dict[str, float | None] = dict.fromkeys(SENSORS)
        self._alone = dict.fromkeys(SENSORS, 0)

    def arrived(self, stream: str, now: float) -> None:
        """An image has come."""
        if self._unpaired_since is None:
            self._unpaired_since = now
        if self._alone_since[stream] is None:
            self._alone_since[stream] = now
        self._alone[stream] += 1
        self._alone_since[other_sensor(stream)], self._alone[other_sensor(stream)] = None, 0

    def paired(self) -> None:
        """A pair has come out."""
        self._unpaired_since = None

    def silent(self, stream: str, now: float, after: float) -> bool:
        """Whether a camera has sent nothing while the other one has for ``after`` seconds.

        One image of the other's is not enough: slow cameras that take turns send one each.
        """
        since = self._alone_since[other_sensor(stream)]
        return since is not None and now - since >= after and self._alone[other_sensor(stream)] > 1

    def missing(self, now: float, after: float) -> str:
        """The camera that is missing, or ''."""
        if self._unpaired_since is None or now - self._unpaired_since < after:
            return ""
        return VISIBLE if self.silent(VISIBLE, now, after) else INFRARED

    def waits_in_vain(self, now: float, after: float) -> bool:
        """Whether images need not wait for a counterpart: the missing camera is silent altogether."""
        missing = self.missing(now, after)
        return bool(missing) and self.silent(missing, now, after)

    def alone(self, stream: str, reason: str, now: float, after: float) -> bool:
        """Whether an image of ``stream`` that the pairing dropped for ``reason`` is to be used alone."""
        return reason in ALONE and self.missing(now, after) == other_sensor(stream)
