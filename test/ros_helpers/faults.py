"""Faults of image messages; each function changes a message in place."""

from __future__ import annotations

from array import array

import numpy as np
from sensor_msgs.msg import Image


def short(message: Image) -> None:
    message.data = message.data[: len(message.data) // 2]


def other_encoding(message: Image) -> None:
    message.encoding = "rgb565"


def half_size(message: Image) -> None:
    message.height //= 2


def small_step(message: Image) -> None:
    message.step = 3


def with_nan(message: Image) -> None:
    image = np.full((message.height, message.width), 300, np.float32)
    image[3] = np.nan
    message.encoding, message.step = "32FC1", 4 * message.width
    message.data = array("B", image.tobytes())


def without_values(message: Image) -> None:
    """All pixels are NaN; a few would be pixels without a value, which an infrared image may have."""
    message.encoding, message.step = "32FC1", 4 * message.width
    message.data = array("B", np.full((message.height, message.width), np.nan, np.float32).tobytes())


def unstamped(message: Image) -> None:
    message.header.stamp.sec = message.header.stamp.nanosec = 0


def shifted(message: Image, seconds: float) -> None:
    """Shift the stamp by ``seconds``."""
    stamp = message.header.stamp
    at = stamp.sec * 10**9 + stamp.nanosec + round(1e9 * seconds)
    stamp.sec, stamp.nanosec = divmod(at, 10**9)
