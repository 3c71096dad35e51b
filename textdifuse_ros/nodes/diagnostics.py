"""What the node measures and reports: arrivals, latencies, throttled warnings, ``/diagnostics``."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from textdifuse_ros.errors import shorten

LATENCIES_KEPT = 1000
WARNING_PERIOD = 5.0
LOSS_REPORTS = 10
"""Transport losses are judged over this many reports; a single one holds too few images."""


class Arrivals:
    """Arrival times, rate and transport losses of one camera, on the steady clock."""

    def __init__(self) -> None:
        self.lost = 0
        self._count = 0
        self._last = time.monotonic()
        self._reports: deque[tuple[float, int, int]] = deque([(self._last, 0, 0)], LOSS_REPORTS + 1)
        self.rate = 0.0

    def restart(self) -> None:
        """Measure silence, rate and losses from now on."""
        self._last = time.monotonic()
        self._reports.clear()
        self._reports.append((self._last, self._count, self.lost))
        self.rate = 0.0

    def arrived(self) -> None:
        """Count a message."""
        self._count += 1
        self._last = time.monotonic()

    def lose(self, count: int) -> None:
        """Count messages that the middleware lost.

        :param count: how many
        """
        self.lost += count

    def measure(self) -> None:
        """Update ``rate`` [Hz] and the window of ``recent_losses``; called once per report."""
        now = time.monotonic()
        since, count, _ = self._reports[-1]
        self.rate = (self._count - count) / max(now - since, 1e-6)
        self._reports.append((now, self._count, self.lost))

    @property
    def recent_losses(self) -> tuple[int, int]:
        """Messages lost and messages sent in the last ten reports, or since ``restart``."""
        _, came, lost = self._reports[0]
        newly_lost = self.lost - lost
        return newly_lost, newly_lost + self._count - came

    @property
    def silent_for(self) -> float:
        """Seconds since the last message, or since ``restart``."""
        return time.monotonic() - self._last


class Latencies:
    """The last thousand latencies; may be added to and read from different threads."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def add(self, seconds: float) -> None:
        """Add one.

        :param seconds: the latency [s]
        """
        self._values.append(seconds)

    def summary(self) -> dict[str, float | int | None]:
        """``median``, ``p90`` and ``p99`` [ms], None without values, and their ``count``."""
        values = sorted(self._values.copy())
        if not values:
            return {"median": None, "p90": None, "p99": None, "count": 0}
        p90, p99 = (values[min(len(values) - 1, int(share * len(values)))] for share in (0.9, 0.99))
        return {
            "median": round(1e3 * statistics.median(values), 3),
            "p90": round(1e3 * p90, 3),
            "p99": round(1e3 * p99, 3),
            "count": len(values),
        }

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()


class ThrottledLog:
    """Warnings by reason, each logged at most every five seconds; for any thread.

    :param warn: logs one line
    """

    def __init__(self, warn: Callable[[str], Any]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._logged: dict[str, tuple[float, int]] = {}
        self._latest: dict[str, str] = {}

    def warn(self, reason: str, text: str) -> None:
        """Log a warning, or only count it where its reason was logged within the period.

        :param reason: short name, the beginning of the line
        :param text: the rest of it
        """
        now, text = time.monotonic(), shorten(text)
        with self._lock:
            self._latest[reason] = text
            last, withheld = self._logged.get(reason, (float("-inf"), 0))
            if now - last < WARNING_PERIOD:
                self._logged[reason] = (last, withheld + 1)
                return
            self._logged[reason] = (now, 0)
        more = f" ({withheld} more like it since the last line)" if withheld else ""
        self._warn(f"{reason}: {text}{more}")

    def latest(self, reason: str) -> str:
        """The last text of a reason, logged or not; empty where there was none.

        :param reason: as of :meth:`warn`
        """
        with self._lock:
            return self._latest.get(reason, "")


def diagnostic_array(
    stamp: Time, name: str, device: str, level: bytes, message: str, numbers: Mapping[str, Any]
) -> DiagnosticArray:
    """A ``/diagnostics`` message with one status.

    :param stamp: of the header
    :param name: of the status
    :param device: the hardware id
    :param level: of the status
    :param message: of the status
    :param numbers: its values; may be nested, inner keys are joined by dots
    """
    values = [KeyValue(key=key, value=value) for key, value in _flat(numbers)]
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id=device, values=values)
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _flat(numbers: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in numbers.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, "" if value is None else str(value)))
    return found
