"""A node with cameras that send faults: what is dropped meanwhile, and how soon good pairs come out again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_helpers.fusion_rig import FAST, INFRARED, SENSORS, VISIBLE, Process, Rig, dropped_since
from sensor_msgs.msg import Image

PATIENCE = 60.0  # [s]; a slow machine recovers late, a broken node never
Fault = Callable[[dict[str, Image]], Any]


@pytest.fixture(scope="module")
def recoveries(request) -> Iterator[dict[str, float]]:
    """Fault to seconds; printed as one JSON object at the end of the module, past pytest's capture."""
    found: dict[str, float] = {}
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nseconds to recover: {json.dumps(found)}", flush=True)


class Faulty:
    """A node of its own with cameras that send what they should not, and what is counted meanwhile."""

    def __init__(self, process: Process, rig: Rig, pair: tuple[np.ndarray, np.ndarray], note: Callable) -> None:
        self.process, self.rig, self.pair, self.note = process, rig, pair, note
        rig.wait_until_active()
        rig.fuse(*pair)

    def stream(self, count: int, inject: Fault = lambda messages: None, gap: float = 0.03) -> list[Image]:
        """Send pairs one after the other, each with the fault; returns the visible halves."""
        sent = []
        for _ in range(count):
            messages = dict(zip(SENSORS, self.rig.pair(*self.pair), strict=True))
            inject(messages)
            sent.append(messages[VISIBLE])
            self.rig.send(messages[VISIBLE], messages[INFRARED])
            self.rig.spin(gap)
        return sent

    def recovers(self, fault: str) -> None:
        """Good pairs come out again; noted is how soon. The process lives and its counters are consistent."""
        begun = time.monotonic()
        sent: list[Image] = []

        def again() -> bool:
            sent.extend(self.stream(1))
            return any(self.rig.output_for(message) is not None for message in sent)

        assert self.rig.wait_for(again, PATIENCE), f"{fault}: {self.rig.counters()}"
        self.note(fault, time.monotonic() - begun)
        assert self.process.alive
        self.rig.settled()

    def reported(self, text: str) -> bool:
        """Whether ``/diagnostics`` says so, sooner or later."""
        self.rig.statuses.clear()
        return self.rig.wait_for(lambda: any(text in status.message for status in self.rig.statuses), PATIENCE)


def unfit(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """What was dropped because of the fault: without what a slow machine had no time for."""
    return {reason: n for reason, n in dropped_since(before, after).items() if reason != "superseded"}


@pytest.fixture
def note(recoveries, record_property) -> Callable[[str, float], None]:
    def take(fault: str, seconds: float) -> None:
        recoveries[fault] = round(seconds, 3)
        record_property(f"recovery_s: {fault}", round(seconds, 3))

    return take


@pytest.fixture
def faulty(start, tiny_checkpoint, pair, note) -> Callable[..., Faulty]:
    def begin(*parameters: str, model: Path = tiny_checkpoint) -> Faulty:
        return Faulty(*start(f"model:={model}", *FAST, *parameters), pair, note)

    return begin
