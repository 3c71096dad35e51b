"""Publishers of the objects that a text names: masks, an overlay, and the objects as data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecyclePublisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from textdifuse_ros.localize.base import Localization
from textdifuse_ros.localize.overlay import draw_overlay
from textdifuse_ros.nodes.images import message_from
from textdifuse_ros.nodes.qos import latched_profile
from textdifuse_ros.runtime.text_target import Detections

try:
    from vision_msgs import msg as vision_msgs
except ImportError:  # optional; ~/objects has the same content
    vision_msgs = None

MASK_TOPIC, INSTANCES_TOPIC, OVERLAY_TOPIC, OBJECTS_TOPIC = "~/mask", "~/instances", "~/overlay", "~/objects"
DETECTIONS_TOPIC, LABELS_TOPIC = "~/detections", "~/label_info"

Open = Callable[[Any, str, Any], LifecyclePublisher]


class TextOutputs:
    """Publishes the objects that a text names, with the header of the fused image.

    Nothing is computed without a subscriber. ``~/detections`` and the latched ``~/label_info`` require vision_msgs.

    :param open_publisher: creates a publisher from message type, topic and profile
    :param profile: of the fused images
    :param threshold: minimum score of an object, for the label info
    """

    def __init__(self, open_publisher: Open, profile: QoSProfile, threshold: float) -> None:
        self._mask = open_publisher(Image, MASK_TOPIC, profile)
        self._instances = open_publisher(Image, INSTANCES_TOPIC, profile)
        self._overlay = open_publisher(Image, OVERLAY_TOPIC, profile)
        self._objects = open_publisher(String, OBJECTS_TOPIC, profile)
        self._threshold = threshold
        self._labels: LifecyclePublisher | None = None
        self._named: tuple[tuple[int, str], ...] | None = None
        if vision_msgs is not None:
            self._detections = open_publisher(vision_msgs.Detection2DArray, DETECTIONS_TOPIC, profile)
            self._labels = open_publisher(vision_msgs.LabelInfo, LABELS_TOPIC, latched_profile())

    def publish(self, image: Image, detections: Detections) -> None:
        """Publish the objects of an image, even if there are none.

        :param image: the fused image, ``rgb8``
        :param detections: its objects
        """
        header, objects = image.header, detections.localization
        if self._objects.get_subscription_count():
            self._objects.publish(String(data=json.dumps(objects_document(header, detections))))
        if self._mask.get_subscription_count():
            self._mask.publish(message_from(objects.label_map(), "mono8", header))
        if self._instances.get_subscription_count():
            self._instances.publish(message_from(objects.instance_map(), "mono16", header))
        if self._labels is not None:
            named = tuple((phrase.index, phrase.text) for phrase in objects.phrases)
            if named != self._named:
                self._labels.publish(label_info(vision_msgs, header, objects, self._threshold))
                self._named = named
            if self._detections.get_subscription_count():
                self._detections.publish(detection_array(vision_msgs, header, objects))
        if self._overlay.get_subscription_count():
            pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
            self._overlay.publish(message_from(draw_overlay(pixels, objects), "rgb8", header))


def objects_document(header: Header, detections: Detections) -> Mapping[str, Any]:
    """Convert the objects of an image to JSON-able values; keys and boxes as in COCO (docs/ros-interface.md).

    :param header: of the image
    :param detections: its objects
    """
    provenance, objects = detections.provenance, detections.localization
    return {
        "header": {
            "stamp": {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec},
            "frame_id": header.frame_id,
        },
        "height": objects.size[0],
        "width": objects.size[1],
        "text": provenance.text,
        "strength": detections.strength,
        "masks": {
            "state": provenance.state,
            "text": provenance.text if provenance.stamp is not None else "",
            "stamp": provenance.stamp,
            "localizer": provenance.localizer,
            "seconds": provenance.seconds,
            "error": provenance.error,
        },
        "categories": [
            {"id": phrase.index, "name": phrase.text, "strength": phrase.strength} for phrase in objects.phrases
        ],
        "objects": [
            {
                "id": item.track,
                "category_id": item.phrase,
                "score": round(item.score, 5),
                "bbox": [round(edge, 2) for edge in _left_top_width_height(item.box)],
                "area": int(np.count_nonzero(item.mask)),
                "stamp": item.stamp,
            }
            for item in objects.instances
        ],
    }


def detection_array(messages: Any, header: Header, objects: Localization) -> Any:
    """Convert objects to ``vision_msgs/Detection2DArray``.

    :param messages: the module ``vision_msgs.msg``
    :param header: of the image
    :param objects: of the image
    """
    array = messages.Detection2DArray(header=header)
    for item in objects.instances:
        left, top, width, height = _left_top_width_height(item.box)
        result = messages.ObjectHypothesisWithPose()
        result.hypothesis.class_id = str(item.phrase)
        result.hypothesis.score = float(item.score)
        detection = messages.Detection2D(header=header, id=str(item.track))
        detection.results = [result]
        detection.bbox.center.position.x = left + width / 2
        detection.bbox.center.position.y = top + height / 2
        detection.bbox.size_x, detection.bbox.size_y = width, height
        array.detections.append(detection)
    return array


def label_info(messages: Any, header: Header, objects: Localization, threshold: float) -> Any:
    """Describe the class numbers of masks and detections as ``vision_msgs/LabelInfo``.

    :param messages: the module ``vision_msgs.msg``
    :param header: of the image
    :param objects: of the image, with their phrases
    :param threshold: minimum score of an object
    """
    classes = [messages.VisionClass(class_id=phrase.index, class_name=phrase.text) for phrase in objects.phrases]
    return messages.LabelInfo(header=header, class_map=classes, threshold=float(threshold))


def _left_top_width_height(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, box)
    return left, top, right - left, bottom - top
