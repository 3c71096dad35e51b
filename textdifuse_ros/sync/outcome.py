"""Results of the pairing: pairs, dropped images with their reasons, and the counters of a stream."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

ZERO_STAMP = "zero_stamp"
"""The stamp is zero or negative: the driver does not stamp its images."""
UNMATCHED = "unmatched"
"""The other stream has passed this stamp without a free image within the tolerance."""
COUNTERPART_MISSING = "partner_missing"
"""No counterpart within ``wait_ns``, or the oldest of more than ``queue``: the other camera is silent or too late."""
TIME_JUMP = "time_jump"
"""Stamped before a jump back in time."""
COUNTERPART_SET_BACK = "partner_set_back"
"""The other stream jumped back in time and this one did not: the clock of one camera was set."""
LATE = "late"
"""Older than a pair that has already been released."""
SAME_STAMP = "same_stamp"
"""Replaced by another image with the same stamp (stock policies only)."""


@dataclass(frozen=True)
class StampedPair(Generic[T]):
    """Two images that belong together.

    :ivar visible: the visible image
    :ivar infrared: the infrared image
    :ivar difference_ns: infrared stamp minus visible stamp, offsets added [ns]
    """

    visible: T
    infrared: T
    difference_ns: int


@dataclass(frozen=True)
class Drop(Generic[T]):
    """An image that was dropped without a counterpart.

    :ivar stream: ``VISIBLE`` or ``INFRARED``
    :ivar stamp_ns: its own stamp, without offset [ns]
    :ivar item: the image
    :ivar reason: one of the reasons of this module, or the one passed to ``refuse`` or ``reset``
    :ivar nearest_ns: the smallest difference (infrared stamp minus visible stamp, offsets added) to any recent image of
        the other stream, paired or not [ns]; None if there is none
    :ivar behind_ns: how much older it is than the newest image of its own stream [ns]
    """

    stream: str
    stamp_ns: int
    item: T
    reason: str
    nearest_ns: int | None = None
    behind_ns: int = 0


@dataclass
class Outcome(Generic[T]):
    """What one call decided.

    :ivar pairs: in the order of their stamps
    :ivar drops: the images dropped
    """

    pairs: list[StampedPair[T]] = field(default_factory=list)
    drops: list[Drop[T]] = field(default_factory=list)


@dataclass
class StreamCounters:
    """Counters of one stream; ``received = paired + sum(dropped.values()) + waiting``.

    :ivar received: images added
    :ivar paired: images in pairs
    :ivar dropped: dropped images by reason
    :ivar waiting: images still in the queue
    """

    received: int = 0
    paired: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
