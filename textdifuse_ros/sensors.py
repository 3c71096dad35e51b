"""Names of the two sensors, as topics, parameters and counters use them, and message stamps."""

from __future__ import annotations

from typing import Any

VISIBLE, INFRARED = "visible", "infrared"
SENSORS = (VISIBLE, INFRARED)


def other_sensor(sensor: str) -> str:
    """Return the name of the counterpart of ``sensor`` (``visible`` or ``infrared``)."""
    return INFRARED if sensor == VISIBLE else VISIBLE


def stamp_of(header: Any) -> int:
    """Return the stamp of a ``std_msgs/Header`` [ns].

    :param header: any object with ``stamp.sec`` and ``stamp.nanosec``, from rclpy or from ``rosbags``
    """
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
