"""The two sensors of a pair, by the names that topics, parameters and counters use; and the stamp of a message."""

from __future__ import annotations

from typing import Any

VISIBLE, INFRARED = "visible", "infrared"
SENSORS = (VISIBLE, INFRARED)


def other_sensor(sensor: str) -> str:
    """The counterpart of a sensor.

    :param sensor: ``visible`` or ``infrared``
    """
    return INFRARED if sensor == VISIBLE else VISIBLE


def stamp_of(header: Any) -> int:
    """The time stamp of a ``std_msgs/Header`` [ns].

    :param header: whatever has ``stamp.sec`` and ``stamp.nanosec``, from rclpy or from ``rosbags``
    """
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
