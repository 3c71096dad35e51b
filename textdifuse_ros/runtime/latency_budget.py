"""Keep a latency budget: fewer reverse steps first, then smaller images, before images are lost.

The ladder halves the configured steps down to one, and then shrinks the images. It goes one rung down when three of the
last six images exceeded the budget or were superseded. It goes one rung up when the last images predict that the rung
above would keep the budget with some room, and not within some seconds of the last change. A rung that was left soon
after it was reached is tried again at increasing intervals.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

SCALES = (0.75, 0.5)
WINDOW = 6
OVER = 3
ROOM = 0.85
FIRST_PAUSE, LONGEST_PAUSE = 3.0, 60.0


@dataclass(frozen=True)
class Effort:
    """The effort of one image.

    :ivar steps: reverse steps
    :ivar scale: of the image's sides, in (0, 1]
    """

    steps: int
    scale: float = 1.0

    @property
    def cost(self) -> float:
        """Relative cost, if all of the work depended on the steps."""
        return self.steps * self.scale**2


def ladder(steps: int) -> list[Effort]:
    """The rungs from full effort down: the steps halve to one, then the image shrinks.

    :param steps: of the full effort
    """
    rungs = [Effort(steps)]
    while rungs[-1].steps > 1:
        rungs.append(Effort(rungs[-1].steps // 2))
    return rungs + [Effort(1, scale) for scale in SCALES]


class LatencyBudget:
    """Chooses the effort of the next image by the latencies of the last ones; thread-safe.

    :param clock: monotonic seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._budget = 0.0
        self._rungs = [Effort(1)]
        self._rung = 0
        self._changes = 0
        self._begin(0)

    def effort(self, budget: float, steps: int) -> Effort:
        """The effort of the next image.

        :param budget: maximum latency [s]; 0 for none
        :param steps: of the full effort; a changed budget or number of steps restarts at the top rung
        """
        with self._lock:
            if (budget, steps) != (self._budget, self._rungs[0].steps):
                self._budget, self._rungs = budget, ladder(steps)
                self._begin(0)
            return self._rungs[self._rung]

    def observe(self, seconds: float, effort: Effort) -> None:
        """Record a published image.

        :param seconds: its latency [s]
        :param effort: with which it was made
        """
        with self._lock:
            if self._budget and effort == self._rungs[self._rung]:  # else started before the last change
                self._note(seconds)

    def lost(self) -> None:
        """Record an image that was superseded by a newer one."""
        with self._lock:
            if self._budget:
                self._note(float("inf"))

    def reset(self) -> None:
        """Return to full effort and forget all latencies."""
        with self._lock:
            self._begin(0)

    @property
    def changes(self) -> int:
        """Number of changes of the effort so far."""
        return self._changes

    def _begin(self, rung: int) -> None:
        """Start at a rung without history."""
        self._pause = FIRST_PAUSE
        self._gains: dict[int, float] = {}
        self._take(rung, climbed=False)

    def _take(self, rung: int, *, climbed: bool, before: float | None = None) -> None:
        self._rung, self._climbed, self._before = rung, climbed, before
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._seen = 0
        self._since = self._clock()

    def _note(self, seconds: float) -> None:
        self._recent.append(seconds)
        self._seen += 1
        if sum(latency > self._budget for latency in self._recent) >= OVER:
            if self._rung + 1 < len(self._rungs):
                self._descend()
        elif self._rung and self._seen >= WINDOW and max(self._recent) <= self._budget:
            self._consider_climbing(statistics.median(self._recent))

    def _descend(self) -> None:
        if self._climbed:
            soon = self._clock() - self._since < self._pause or self._seen < 3 * WINDOW
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if soon else FIRST_PAUSE
        finite = [latency for latency in self._recent if latency != float("inf")]
        self._gains.pop(self._rung + 1, None)
        self._changes += 1
        self._take(self._rung + 1, climbed=False, before=statistics.median(finite) if finite else float("inf"))

    def _consider_climbing(self, median: float) -> None:
        if self._clock() - self._since < self._pause or median * self._gain(median) > ROOM * self._budget:
            return
        self._changes += 1
        self._take(self._rung - 1, climbed=True)

    def _gain(self, median: float) -> float:
        """How many times longer the rung above takes.

        As measured when this rung was reached, since part of the work does not depend on the steps; at most as if all
        of it did, for beyond that something else was slow at that time.
        """
        most = self._rungs[self._rung - 1].cost / self._rungs[self._rung].cost
        if self._before is not None and self._rung not in self._gains:
            self._gains[self._rung] = min(most, max(1.0, self._before / max(median, 1e-9)))
        return self._gains.get(self._rung, most)
