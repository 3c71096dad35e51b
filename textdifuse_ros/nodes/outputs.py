"""What the node publishes for every image: the image, and what made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import CameraInfo, Image

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.nodes.qos import output_profile, publisher_events
from textdifuse_ros.nodes.text_outputs import TextOutputs
from textdifuse_ros.runtime.text_target import Found

FUSED_TOPIC, INFO_TOPIC, PROVENANCE_TOPIC = "~/fused", "~/fused/camera_info", "~/provenance"
FUSED, RESTORED, HELD = "fused", "restored", "held"
"""How an image came about: of both cameras; of one alone; the last one again."""


class Outputs:
    """The publishers of a configured node; :meth:`publish` is the worker's, the rest the executor's.

    ``~/fused`` carries the image. Under the very same header ``~/fused/camera_info`` carries the calibration of its
    camera, where one is known, and ``~/provenance`` what made it: a ``diagnostic_msgs/DiagnosticArray`` with one
    status, whose message is ``fused``, ``restored`` or ``held``, whose level is WARN unless it is ``fused``, and whose
    values name the sources, steps, model and so on. Where there is a text, what it names is published under the same
    header too: see :class:`.TextOutputs`.

    :param calibration: makes the ``camera_info`` of an image that has the visible camera's frame, or None
    """

    def __init__(
        self, node: LifecycleNode, config: FusionNodeConfig, calibration: Callable[[Image], CameraInfo | None]
    ) -> None:
        self._node = node
        self._calibration = calibration
        self._name = f"{node.get_name()}: picture"  # published and recorded under this name since 0.1: it stays
        self._last: tuple[Image, dict[str, Any], Found | None] | None = None
        self.held = 0
        profile = output_profile(config.output_depth, config.output_reliability)
        self._publishers: list[LifecyclePublisher] = []
        self._fused = self._open(Image, FUSED_TOPIC, profile)
        self._info = self._open(CameraInfo, INFO_TOPIC, profile)
        self._provenance = self._open(DiagnosticArray, PROVENANCE_TOPIC, profile)
        threshold = {"builtin": config.localizer_threshold, "fixed": 0.0}.get(config.localizer, config.box_threshold)
        self._text = TextOutputs(self._open, profile, threshold)

    def _open(self, kind: Any, topic: str, profile: Any) -> LifecyclePublisher:
        events = publisher_events(self._node.resolve_topic_name(topic), self._node.get_logger().warning)
        publisher = self._node.create_lifecycle_publisher(kind, topic, profile, event_callbacks=events)
        self._publishers.append(publisher)
        return publisher

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def publish(self, image: Image, how: str, told: Mapping[str, Any], found: Found | None = None) -> None:
        """Publish an image, its provenance first, so that whoever has the image can have the other.

        :param how: ``fused`` or ``restored``
        :param found: what the text names in it; None without a text
        """
        if how == FUSED:
            self._last = image, dict(told), found
        self._send(image, how, told, found)

    def hold(self) -> bool:
        """Publish the last fused image again, with its old header; returns whether there was one."""
        last = self._last
        if last is None:
            return False
        self._send(last[0], HELD, last[1], last[2])
        self.held += 1
        return True

    def forget(self) -> None:
        """There is no last fused image any more."""
        self._last = None

    def _send(self, image: Image, how: str, told: Mapping[str, Any], found: Found | None) -> None:
        level = DiagnosticStatus.OK if how == FUSED else DiagnosticStatus.WARN
        values = [KeyValue(key=key, value=str(value)) for key, value in told.items()]
        hardware = str(told.get("device", ""))
        status = DiagnosticStatus(level=level, name=self._name, message=how, hardware_id=hardware, values=values)
        try:
            self._provenance.publish(DiagnosticArray(header=image.header, status=[status]))
            # The infrared image alone has its own camera's frame.
            info = None if told.get("sources") == "infrared" else self._calibration(image)
            if info is not None:
                self._info.publish(info)
            self._fused.publish(image)
            if found is not None:
                self._text.publish(image, found)
        except Exception:
            if self._node.context.ok():  # else Ctrl-C has come while this was fused: nobody listens
                raise
