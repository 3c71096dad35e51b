"""A configured node at work: from a pairing result to the published image.

The route of a frame: :class:`.Subscriptions` receives and pairs; :class:`Session` hands the pair to the worker thread,
which decodes and aligns it (:class:`.SensorIntake`), processes it (:class:`.PairProcessor`) and publishes the result
(:class:`.Publishers`).

Counters of visible messages, consistent at every moment: ``received = fused + restored + dropped (by reason) +
waiting``; of each camera ``received = paired + alone + dropped + waiting``. A message belongs to the pairing first and,
once paired or used alone, to the worker. Both count on their own; :func:`tally` adds up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import TextDifuseError
from textdifuse_ros.image.intake import (
    BAD_INFRARED,
    BAD_VISIBLE,
    NO_CALIBRATION,
    SIZE_MISMATCH,
    IntakeError,
    SensorIntake,
    no_value_text,
)
from textdifuse_ros.nodes.diagnostics import Latencies, ThrottledLog
from textdifuse_ros.nodes.health import DEACTIVATED, RECONFIGURED, RESET, Health, warn_of_drop
from textdifuse_ros.nodes.images import info_from, message_from
from textdifuse_ros.nodes.publishers import CONFIDENCE_TOPIC, INFO_TOPIC, Publishers
from textdifuse_ros.nodes.subscriptions import Subscriptions
from textdifuse_ros.runtime.engine import Engine, FusionRequest
from textdifuse_ros.runtime.latency_budget import LatencyBudget
from textdifuse_ros.runtime.processor import FUSED, RESTORED, PairProcessor, ProcessedPair
from textdifuse_ros.runtime.text_target import TextTarget
from textdifuse_ros.runtime.worker import FUSION_ERROR, LatestWorker, WorkerCounters
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, other_sensor, stamp_of
from textdifuse_ros.sync.filters import Received
from textdifuse_ros.sync.outcome import Drop, Outcome, StampedPair, StreamCounters

PAIR_OR_ONE = StampedPair["Received[Any] | None"]
"""A pair, or the image of one camera where the other is missing."""

LONGEST_AGE = 3600.0
"""A stamp older than this [s], or in the future, is from another clock than the node's and gives no age."""

POLICIES = {
    "stop": "nothing is published",
    "restore": "the restored {other} image alone is published",
    "hold": "the last fused image, where there is one, is published again",
}
REMEDIES = {
    BAD_VISIBLE: "see what the driver of the visible camera sends",
    BAD_INFRARED: "see what the driver of the infrared camera sends",
    SIZE_MISMATCH: "set registration, and let textdifuse calibrate find the homography",
    NO_CALIBRATION: "see the parameters rectify and registration",
    FUSION_ERROR: "deactivate and activate the node; take smaller images where memory ran out",
}
"""Remedies for errors without one of their own, by reason."""


class Session:
    """The working parts of a node between ``on_configure`` and ``on_cleanup``.

    :meth:`_process` runs in the worker's thread, the other methods in the executor's.

    :param node: creates subscriptions and publishers
    :param config: the parameters in force
    :param engine: fuses; opened and closed by the node
    :param target: finds the objects that the text names; likewise
    :param log: throttled warnings
    :param enabled: whether messages are processed, see :attr:`.Subscriptions.enabled`
    :ivar missing: the camera that is missing, or an empty string
    :ivar plain_because: why the objects of the last image were not emphasized; empty where they were
    :raises ConfigError: parameters contradict each other
    :raises CalibrationError: a calibration file is unusable
    """

    def __init__(
        self,
        node: LifecycleNode,
        config: FusionNodeConfig,
        engine: Engine,
        target: TextTarget,
        log: ThrottledLog,
        *,
        enabled: bool,
    ) -> None:
        self.config = config
        self.missing = ""
        self.plain_because = ""
        self.budget = LatencyBudget()
        self.latencies, self.ages = Latencies(), Latencies()
        self.alone: dict[str, Counter[str]] = {sensor: Counter() for sensor in SENSORS}
        self._node = node
        self._log = log
        self._closed = False
        self._no_value = empty_no_value()
        self._intake = SensorIntake(config)
        self._processor = PairProcessor(engine, target)
        self.worker: LatestWorker[PAIR_OR_ONE] = LatestWorker()
        self.subscriptions = Subscriptions(node, config, self._on_pairing_result)
        self.subscriptions.enabled = enabled
        self.subscriptions.check_calibrations(self._intake)
        self.health = Health(node, self.subscriptions, log)
        self.publishers = Publishers(node, config)

    # ---- life cycle

    def start(self) -> None:
        """Subscribe and begin to process."""
        self.publishers.forget()
        self._processor.reset()
        self.worker.start(self._process)
        self.health.restart()
        self._intake.reset()
        self.subscriptions.open(self._intake)

    def stop(self, timeout: float) -> bool:
        """Unsubscribe, drop the waiting images, and wait for the running fusion.

        :param timeout: longest wait [s]
        :returns: whether the worker has ended
        """
        self.subscriptions.close(DEACTIVATED)
        return self.worker.stop(DEACTIVATED, timeout)

    def close(self) -> None:
        """Destroy the publishers; the result of a fusion that still runs is discarded."""
        self._closed = True
        self.publishers.close()

    def reset(self) -> None:
        """Forget everything about previous images, as after a time jump; the counters stay."""
        self.subscriptions.reset(RESET)
        self._intake.reset()
        self._processor.reset()
        self.budget.reset()
        self.latencies.clear()
        self.ages.clear()
        self.health.restart()
        self.publishers.forget()

    def reset_video(self) -> None:
        """Make the next image independent of the previous ones; for any thread."""
        self._processor.reset()

    def apply(self, config: FusionNodeConfig) -> None:
        """Apply changed live parameters.

        :param config: the parameters in force from now on
        """
        self.config = config
        self.subscriptions.apply(config, RECONFIGURED)

    # ---- the route of a frame

    def _on_pairing_result(self, outcome: Outcome[Received[Any]]) -> None:
        """Hand pairs to the worker; handle dropped images by ``on_missing``."""
        now = time.monotonic()
        for pair in outcome.pairs:
            self.subscriptions.counterpart.paired()
            self._offer(StampedPair(pair.visible, pair.infrared, pair.difference_ns), VISIBLE)
        for drop in outcome.drops:
            if not self._use_alone(drop, now):
                warn_of_drop(drop, self.config, self._log)

    def _use_alone(self, drop: Drop[Received[Any]], now: float) -> bool:
        """Process the image alone, or repeat the last one, where its counterpart is missing."""
        config = self.config
        alone = self.subscriptions.counterpart.alone(drop.stream, drop.reason, now, config.missing_after)
        if config.on_missing == "stop" or not alone:
            return False
        if config.on_missing == "hold":
            self.publishers.hold()
            return False
        self.alone[drop.stream][drop.reason] += 1
        is_visible = drop.stream == VISIBLE
        self._offer(StampedPair(drop.item if is_visible else None, None if is_visible else drop.item, 0), drop.stream)
        return True

    def _offer(self, pair: PAIR_OR_ONE, sensor: str) -> None:
        if self.worker.offer(pair, sensor):
            self.budget.lost()

    def _process(self, pair: PAIR_OR_ONE) -> str:
        """Process one pair in the worker's thread and never raise; returns the outcome under which it is counted."""
        begun, config = time.monotonic(), self.config
        halves = [half for half in (pair.visible, pair.infrared) if half is not None]
        header: Header = halves[0].message.header  # the visible camera is the reference
        # 1. Decode both messages and align the images.
        try:
            self._intake.update_config(config)
            aligned = self._intake.align(
                *(None if half is None else half.message for half in (pair.visible, pair.infrared))
            )
            self._note_no_value(aligned.no_value)
        except IntakeError as error:
            return self._failed(error.reason, error)
        try:
            # 2. Locate objects, fuse and remove flicker, within the latency budget.
            effort = self.budget.effort(config.latency_budget, config.steps)
            request = FusionRequest(
                effort.steps,
                config.sampler,
                config.seed,
                effort.scale,
                keep_plain=config.video,
                confidence=self.publishers.confidence_requested,
            )
            stamp = stamp_of(header) / 1e9
            processed = self._processor.process(aligned, request, video=config.video, stamp=stamp)
            self.plain_because = processed.provenance.get("plain_because", "")
            # 3. Publish the image and its provenance.
            message = message_from(processed.image, "rgb8", header)
            provenance = processed.message_provenance(pair.difference_ns)
            provenance["work_ms"] = f"{1e3 * (time.monotonic() - begun):.3f}"
            if not self._closed:
                info = self._camera_info(message) if pair.visible is not None else None
                if request.confidence:
                    self._publish_confidence(processed, header)
                self.publishers.publish(message, info, processed.outcome, provenance, processed.detections)
                self._note_age(header)
        except Exception as error:
            return self._failed(FUSION_ERROR, error)
        latency = time.monotonic() - max(half.arrived for half in halves)
        self.budget.observe(latency, effort)
        self.latencies.add(latency)
        return processed.outcome

    def _publish_confidence(self, processed: ProcessedPair, header: Header) -> None:
        if processed.confidence is not None:
            self.publishers.publish_confidence(processed.confidence, header)
        elif processed.outcome == FUSED:
            model = processed.provenance.get("model")
            text = f"{CONFIDENCE_TOPIC} is left out: the model {model} does not know how sure its pixels are"
            self._node.get_logger().warning(text, once=True)

    def _failed(self, reason: str, error: Exception) -> str:
        text = " ".join(str(error).split())
        if not isinstance(error, TextDifuseError):
            text = f"{type(error).__name__}: {text}"
        if not getattr(error, "remedy", ""):
            text += f"; {REMEDIES[reason]}"
        self._log.warn(reason, text)
        return reason

    def _note_no_value(self, share: float) -> None:
        """Count an infrared image with pixels that have no value; the first one is logged."""
        if share:
            self._no_value["images"] += 1
            self._no_value["percent"] = round(100 * share, 3)
            if self._no_value["images"] == 1:
                self._node.get_logger().warning(f"infrared: {no_value_text(share)}")

    def _note_age(self, header: Header) -> None:
        age = (self._node.get_clock().now().nanoseconds - stamp_of(header)) / 1e9
        if 0 <= age < LONGEST_AGE:
            self.ages.add(age)

    def _camera_info(self, image: Image) -> CameraInfo | None:
        """The calibration of a fused image, which has the visible camera's frame; None if unknown."""
        info, camera = self.subscriptions.visible_info, self._intake.visible_camera
        if self.config.rectify or self.config.visible_calibration or info is None:
            if camera is None:
                return None
            if (camera.width, camera.height) != (image.width, image.height):
                text = f"{INFO_TOPIC} is left out: visible_calibration is for {camera.width} x {camera.height} pixels"
                text += f", the images have {image.width} x {image.height}"
                self._node.get_logger().warning(text, once=True)
                return None
            return info_from(camera, self.config.rectify, image.header)
        return CameraInfo(
            header=image.header, height=info.height, width=info.width, distortion_model=info.distortion_model, d=info.d,
            k=info.k, r=info.r, p=info.p, binning_x=info.binning_x, binning_y=info.binning_y, roi=info.roi,
        )  # fmt: skip

    # ---- status

    def check_missing(self) -> str:
        """Log when a camera goes missing or comes back; returns a text about the missing one, or ''."""
        counterpart, config = self.subscriptions.counterpart, self.config
        missing = counterpart.missing(time.monotonic(), config.missing_after)
        text = f"{missing} is missing: {POLICIES[config.on_missing]}" if missing else ""
        text = text.format(other=other_sensor(missing))
        if missing != self.missing:
            self.missing = missing
            self._node.get_logger().warning(text or "pairs come again")
        return text

    def tally(self) -> dict[str, Any]:
        """The counters of this moment."""
        return tally(
            {sensor: self.subscriptions.pairs.counters(sensor) for sensor in SENSORS},
            {sensor: self.worker.counters(sensor) for sensor in SENSORS},
            self.alone,
            self.latencies,
            self.ages,
            self._no_value,
        )


def tally(
    streams: Mapping[str, StreamCounters],
    workers: Mapping[str, WorkerCounters],
    alone: Mapping[str, Counter[str]],
    latencies: Latencies,
    ages: Latencies,
    no_value: Mapping[str, float],
) -> dict[str, Any]:
    """Combine the counters of the pairing and of the worker.

    :param streams: the pairing's counters, by sensor
    :param workers: the worker's counters, by the sensor of its jobs
    :param alone: number of images processed alone, by sensor and reason of their drop
    :param latencies: from the later arrival of a pair to its publication
    :param ages: of the stamps at publication
    :param no_value: infrared images of which some pixels have no value: how many, and the percentage in the last one
    """
    worker = workers[VISIBLE]
    lost = streams[VISIBLE].dropped - alone[VISIBLE]
    lost += Counter({k: n for k, n in worker.finished.items() if k not in (FUSED, RESTORED)})
    numbers: dict[str, Any] = {
        "received": streams[VISIBLE].received,
        "fused": worker.finished[FUSED],
        "restored": worker.finished[RESTORED],
        "dropped": dict(lost),
        "waiting": streams[VISIBLE].waiting + worker.waiting,
        "latency_ms": latencies.summary(),
        "age_ms": ages.summary(),
    }
    for sensor, counters in streams.items():
        numbers[sensor] = {
            "received": counters.received,
            "paired": counters.paired,
            "alone": sum(alone[sensor].values()),
            "dropped": dict(counters.dropped - alone[sensor]),
            "waiting": counters.waiting,
        }
    numbers[INFRARED]["restored"] = workers[INFRARED].finished[RESTORED]
    numbers[INFRARED]["no_value"] = dict(no_value)
    return numbers


def empty_tally() -> dict[str, Any]:
    """The counters of a node that was never configured."""
    return tally(
        {sensor: StreamCounters() for sensor in SENSORS},
        {sensor: WorkerCounters() for sensor in SENSORS},
        {sensor: Counter() for sensor in SENSORS},
        Latencies(),
        Latencies(),
        empty_no_value(),
    )


def empty_no_value() -> dict[str, float]:
    """The counters of infrared images with pixels without a value, at 0."""
    return {"images": 0, "percent": 0.0}
