"""What pairing speaks of: the two streams, pairs, drops and their reasons, and the counters of a stream."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

ZERO_STAMP = "zero_stamp"
"""The stamp is zero or negative: the driver does not stamp its images."""
UNMATCHED = "unmatched"
"""The other stream passed by and had nothing free within the tolerance."""
COUNTERPART_MISSING = "partner_missing"
"""Waited in vain for ``wait_ns``, or was the oldest of more than ``queue``: the other camera is silent or too late."""
TIME_JUMP = "time_jump"
"""From before a jump back in time."""
COUNTERPART_SET_BACK = "partner_set_back"
"""The other stream's time went back, and this one has not followed: one camera's clock was set."""
LATE = "late"
"""Older than a pair that has already come out."""
SAME_STAMP = "same_stamp"
"""Another image with the very same stamp took its place (stock policies only)."""


@dataclass(frozen=True)
class StampedPair(Generic[T]):
    """Two images that belong together.

    :ivar difference_ns: infrared stamp minus visible stamp, offsets added
    """

    visible: T
    infrared: T
    difference_ns: int


@dataclass(frozen=True)
class Drop(Generic[T]):
    """An image that will be in no pair.

    :ivar nearest_ns: the smallest difference (infrared stamp minus visible stamp, offsets added) to any of the other
        stream's last images, paired or not; None where there are none
    :ivar behind_ns: how much older it is than the newest of its own stream
    """

    stream: str
    stamp_ns: int
    item: T
    reason: str
    nearest_ns: int | None = None
    behind_ns: int = 0


@dataclass
class Outcome(Generic[T]):
    """What one call settled: pairs in the order of their stamps, and drops."""

    pairs: list[StampedPair[T]] = field(default_factory=list)
    drops: list[Drop[T]] = field(default_factory=list)


@dataclass
class StreamCounters:
    """Of one stream; ``received = paired + sum(dropped.values()) + waiting``."""

    received: int = 0
    paired: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
