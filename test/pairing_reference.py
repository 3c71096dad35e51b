"""The definition of nearest-stamp pairing by brute force, for the tests of pairing."""

from __future__ import annotations

from collections.abc import Sequence

MS = 1_000_000
START = 1_000_000_000_000


def brute_force(visible: Sequence[int], infrared: Sequence[int], tolerance: int) -> list[tuple[int, int]]:
    """Pair sorted stamps as defined: closest first over the whole of both streams, without crossings."""
    every = sorted((abs(i - v), a, b) for a, v in enumerate(visible) for b, i in enumerate(infrared))
    taken: list[tuple[int, int]] = []
    for distance, a, b in every:
        free = all(a != x and b != y and (a < x) == (b < y) for x, y in taken)
        if distance <= tolerance and free:
            taken.append((a, b))
    return sorted(taken)
