"""What becomes of what the pairing settles: pairs to the worker, and by policy single images too; and the books.

Books, for visible messages and at every moment: ``received = fused + restored + dropped (by reason) + waiting``; for
each camera ``received = paired + alone + dropped + waiting``. A message is first the pairing's; once paired, or handed
on alone, it is the worker's. Both count for themselves; :meth:`Dispatch.numbers` only adds up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.nodes.diagnostics import Complaints, Latencies
from textdifuse_ros.nodes.health import complain_of
from textdifuse_ros.nodes.outputs import FUSED, RESTORED
from textdifuse_ros.nodes.pair_fusion import Job
from textdifuse_ros.runtime.latency_budget import LatencyBudget
from textdifuse_ros.runtime.worker import LatestWorker
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor
from textdifuse_ros.sync.counterpart import CounterpartWatch
from textdifuse_ros.sync.filters import PairFilter, Received
from textdifuse_ros.sync.outcome import Drop, Outcome

POLICIES = {
    "stop": "nothing is published",
    "restore": "the restored {other} image alone is published",
    "hold": "the last fused image, where there is one, is published again",
}


class Dispatch:
    """Hands jobs to the worker; the executor's thread only.

    :param settings: gives the configuration in force
    :param hold: publishes the last image again
    :param log: the node's logger
    """

    def __init__(
        self, settings: Callable[[], FusionNodeConfig], hold: Callable[[], Any], complaints: Complaints, log: Any
    ) -> None:
        self.worker: LatestWorker[Job] = LatestWorker()
        self.budget = LatencyBudget()
        self.latencies, self.ages = Latencies(), Latencies()
        self.missing = ""
        self._settings = settings
        self._hold = hold
        self._complaints = complaints
        self._log = log
        self._alone: dict[str, Counter[str]] = {stream: Counter() for stream in SENSORS}

    def take(self, outcome: Outcome[Received[Any]], partner: CounterpartWatch) -> None:
        """See to what the pairing has settled.

        :param partner: knows which camera is missing
        """
        now = time.monotonic()
        for pair in outcome.pairs:
            partner.paired()
            self._offer(Job(pair.visible, pair.infrared, pair.difference_ns), VISIBLE)
        for drop in outcome.drops:
            if not self._use_alone(drop, partner, now):
                complain_of(drop, self._settings(), self._complaints)

    def look(self, partner: CounterpartWatch) -> str:
        """Note and log which camera is missing, now and then; returns it and what is done, in words."""
        config = self._settings()
        missing = partner.missing(time.monotonic(), config.missing_after)
        done = POLICIES[config.on_missing].format(other=other_sensor(missing)) if missing else ""
        if missing != self.missing:
            self.missing = missing
            self._log.warning(f"{missing} is missing: {done}" if missing else "pairs come again")
        return f"{missing} is missing: {done}" if missing else ""

    def _use_alone(self, drop: Drop[Received[Any]], partner: CounterpartWatch, now: float) -> bool:
        config = self._settings()
        if config.on_missing == "stop" or not partner.alone(drop.stream, drop.reason, now, config.missing_after):
            return False
        if config.on_missing == "hold":
            self._hold()
            return False
        self._alone[drop.stream][drop.reason] += 1
        visible = drop.stream == VISIBLE
        self._offer(Job(drop.item if visible else None, None if visible else drop.item), drop.stream)
        return True

    def _offer(self, job: Job, book: str) -> None:
        if self.worker.offer(job, book):
            self.budget.lost()

    def numbers(self, pairs: PairFilter[Any]) -> dict[str, Any]:
        """The books of this moment, plain."""
        streams = {stream: pairs.counters(stream) for stream in SENSORS}
        worker = self.worker.counters(VISIBLE)
        own = streams[VISIBLE].dropped - self._alone[VISIBLE]
        lost = own + Counter({k: n for k, n in worker.finished.items() if k not in (FUSED, RESTORED)})
        numbers: dict[str, Any] = {
            "received": streams[VISIBLE].received,
            "fused": worker.finished[FUSED],
            "restored": worker.finished[RESTORED],
            "dropped": dict(lost),
            "waiting": streams[VISIBLE].waiting + worker.waiting,
            "latency_ms": self.latencies.summary(),
            "age_ms": self.ages.summary(),
        }
        for stream, counters in streams.items():
            numbers[stream] = {
                "received": counters.received,
                "paired": counters.paired,
                "alone": sum(self._alone[stream].values()),
                "dropped": dict(counters.dropped - self._alone[stream]),
                "waiting": counters.waiting,
            }
        numbers[INFRARED]["restored"] = self.worker.counters(INFRARED).finished[RESTORED]
        return numbers
