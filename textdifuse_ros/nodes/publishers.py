"""What the node publishes for every image: the image, its calibration, its provenance, and its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.nodes.images import message_from
from textdifuse_ros.nodes.qos import output_profile, publisher_events
from textdifuse_ros.nodes.text_outputs import TextOutputs
from textdifuse_ros.runtime.processor import FUSED
from textdifuse_ros.runtime.text_target import Detections

FUSED_TOPIC, INFO_TOPIC, PROVENANCE_TOPIC = "~/fused", "~/fused/camera_info", "~/provenance"
CONFIDENCE_TOPIC = "~/confidence"
HELD = "held"
"""Outcome of an image that is published again, beside ``fused`` and ``restored``."""


class Publishers:
    """The publishers of a configured node; :meth:`publish` is for the worker's thread, the rest for the executor's.

    ``~/fused`` carries the image. Under the same header ``~/fused/camera_info`` carries the calibration of its camera,
    where one is known, and ``~/provenance`` what made it: a ``diagnostic_msgs/DiagnosticArray`` with one status. Its
    message is ``fused``, ``restored`` or ``held``, its level WARN unless it is ``fused``, and its values name the
    sources, steps, model and so on. ``~/confidence`` carries the expected absolute error of each pixel in grey levels
    (``32FC1``), where somebody subscribes to it and the model knows it. With a text the objects are published under the
    same header, :class:`.TextOutputs`.

    :param node: creates the publishers
    :param config: the parameters in force
    :ivar held: how many images were published again
    """

    def __init__(self, node: LifecycleNode, config: FusionNodeConfig) -> None:
        self._node = node
        self._name = f"{node.get_name()}: picture"  # published and recorded under this name since 0.1: it stays
        self._last: tuple[Image, CameraInfo | None, Mapping[str, Any], Detections | None] | None = None
        self.held = 0
        profile = output_profile(config.output_depth, config.output_reliability)
        self._publishers: list[LifecyclePublisher] = []
        self._fused = self._create(Image, FUSED_TOPIC, profile)
        self._info = self._create(CameraInfo, INFO_TOPIC, profile)
        self._provenance = self._create(DiagnosticArray, PROVENANCE_TOPIC, profile)
        self._confidence = self._create(Image, CONFIDENCE_TOPIC, profile)
        threshold = {"builtin": config.localizer_threshold, "fixed": 0.0}.get(config.localizer, config.box_threshold)
        self._text = TextOutputs(self._create, profile, threshold)

    def _create(self, kind: Any, topic: str, profile: Any) -> LifecyclePublisher:
        events = publisher_events(self._node.resolve_topic_name(topic), self._node.get_logger().warning)
        publisher = self._node.create_lifecycle_publisher(kind, topic, profile, event_callbacks=events)
        self._publishers.append(publisher)
        return publisher

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    @property
    def confidence_requested(self) -> bool:
        """Whether somebody subscribes to ``~/confidence``."""
        return bool(self._confidence.get_subscription_count())

    def publish_confidence(self, confidence: np.ndarray, header: Header) -> None:
        """Publish how sure each pixel of an image is.

        :param confidence: float32 [H, W] [grey levels]
        :param header: of the image
        """
        self._confidence.publish(message_from(confidence, "32FC1", header))

    def publish(
        self,
        image: Image,
        info: CameraInfo | None,
        outcome: str,
        provenance: Mapping[str, Any],
        detections: Detections | None = None,
    ) -> None:
        """Publish an image; its provenance first, so that it is known when the image arrives.

        :param image: ``rgb8``
        :param info: calibration of its camera, or None
        :param outcome: ``fused`` or ``restored``
        :param provenance: plain values
        :param detections: the objects that the text names; None without a text
        """
        if outcome == FUSED:
            self._last = image, info, dict(provenance), detections
        self._send(image, info, outcome, provenance, detections)

    def hold(self) -> bool:
        """Publish the last fused image again, with its old header; returns whether there was one."""
        if self._last is None:
            return False
        image, info, provenance, detections = self._last
        self._send(image, info, HELD, provenance, detections)
        self.held += 1
        return True

    def forget(self) -> None:
        """Forget the last fused image."""
        self._last = None

    def _send(
        self,
        image: Image,
        info: CameraInfo | None,
        outcome: str,
        provenance: Mapping[str, Any],
        detections: Detections | None,
    ) -> None:
        level = DiagnosticStatus.OK if outcome == FUSED else DiagnosticStatus.WARN
        values = [KeyValue(key=key, value=str(value)) for key, value in provenance.items()]
        hardware = str(provenance.get("device", ""))
        status = DiagnosticStatus(level=level, name=self._name, message=outcome, hardware_id=hardware, values=values)
        try:
            self._provenance.publish(DiagnosticArray(header=image.header, status=[status]))
            if info is not None:
                self._info.publish(info)
            self._fused.publish(image)
            if detections is not None:
                self._text.publish(image, detections)
        except Exception:
            if self._node.context.ok():  # else Ctrl-C came during the fusion, and nobody listens
                raise
