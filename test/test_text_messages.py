"""The objects of a text as messages: vision_msgs where it is installed, and JSON always."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovariance
from std_msgs.msg import Header
from text_objects import square_detections

from textdifuse_ros.nodes.text_outputs import detection_array, label_info, objects_document

DEFINITIONS = {
    "Detection2DArray": "std_msgs/Header header|Detection2D[] detections",
    "Detection2D": "std_msgs/Header header|ObjectHypothesisWithPose[] results|BoundingBox2D bbox|string id",
    "ObjectHypothesisWithPose": "ObjectHypothesis hypothesis|geometry_msgs/PoseWithCovariance pose",
    "ObjectHypothesis": "string class_id|float64 score",
    "BoundingBox2D": "vision_msgs/Pose2D center|float64 size_x|float64 size_y",
    "Pose2D": "vision_msgs/Point2D position|float64 theta",
    "Point2D": "float64 x|float64 y",
    "LabelInfo": "std_msgs/Header header|vision_msgs/VisionClass[] class_map|float32 threshold",
    "VisionClass": "uint16 class_id|string class_name",
}
"""The fields of the messages of vision_msgs 4.1 (Jazzy), from its .msg files: the package has no wheel."""


KNOWN = {
    "string": str,
    "float64": float,
    "float32": float,
    "uint16": int,
    "std_msgs/Header": Header,
    "geometry_msgs/PoseWithCovariance": PoseWithCovariance,
}


class Definitions:
    """Replaces ``vision_msgs.msg`` with classes that accept exactly the defined fields and types."""

    def __getattr__(self, name: str) -> Any:
        kinds = dict(reversed(line.split()) for line in DEFINITIONS[name].split("|"))  # type: ignore[misc]
        definitions = self

        def of(kind: str) -> type:
            return KNOWN[kind] if kind in KNOWN else getattr(definitions, kind.removeprefix("vision_msgs/"))

        def begin(self: Any, **given: Any) -> None:
            for field, kind in kinds.items():
                setattr(self, field, [] if kind.endswith("[]") else given.pop(field, None) or of(kind)())
            for field, value in given.items():
                setattr(self, field, value)

        def check(self: Any, field: str, value: Any) -> None:
            kind = kinds[field]  # KeyError for an undefined field
            items = value if kind.endswith("[]") else [value]
            for item in items:
                expected = kind.removesuffix("[]").removeprefix("vision_msgs/")
                if expected in DEFINITIONS:
                    assert type(item).__name__ == expected, f"{name}.{field}"
                else:
                    assert type(item) is of(expected), f"{name}.{field}: {item!r}"
            object.__setattr__(self, field, value)

        return type(name, (), {"__init__": begin, "__setattr__": check})


def test_detections_and_label_info_fill_the_fields_that_vision_msgs_defines():
    header = Header(stamp=Time(sec=12, nanosec=5), frame_id="color_frame")
    objects = square_detections((45, 70)).localization
    array = detection_array(Definitions(), header, objects)
    assert array.header == header
    (detection,) = array.detections
    assert detection.header == header and detection.id == "7"
    box = detection.bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (25.0, 19.0, 30.0, 22.0)
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("2", 0.75)
    info = label_info(Definitions(), header, objects, 0.5)
    assert [(item.class_id, item.class_name) for item in info.class_map] == [(1, "person"), (2, "car")]
    assert info.threshold == 0.5 and info.header == header
    assert detection_array(Definitions(), header, replace(objects, instances=())).detections == []


def test_the_json_of_the_objects_has_their_provenance():
    header = Header(stamp=Time(sec=13, nanosec=500), frame_id="color_frame")
    report = json.loads(json.dumps(objects_document(header, square_detections((45, 70), 0.5))))
    assert report["header"] == {"stamp": {"sec": 13, "nanosec": 500}, "frame_id": "color_frame"}
    assert (report["text"], report["strength"], report["height"], report["width"]) == ("person, car", 0.5, 45, 70)
    assert report["masks"] == {
        "state": "located", "text": "person, car", "stamp": 12.5, "localizer": "gate", "seconds": 0.1, "error": ""
    }  # fmt: skip
    expected = {"id": 7, "category_id": 2, "score": 0.75, "bbox": [10, 8, 30, 22], "area": 660, "stamp": 12.5}
    assert report["objects"] == [expected]
