"""Pictures to ``sensor_msgs/Image``; :mod:`textdifuse_ros.image.intake` reads them."""

from __future__ import annotations

import sys
from array import array

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from textdifuse_ros.image.encodings import encode_image


def message_from(picture: np.ndarray, encoding: str, header: Header) -> Image:
    """A message with the given header, unchanged.

    :param picture: uint8 [H, W, 3] RGB, or uint8 or uint16 [H, W]
    :param encoding: ``rgb8``, ``bgr8``, ``mono8`` or ``mono16``
    """
    data, step = encode_image(picture, encoding)
    message = Image(header=header, height=picture.shape[0], width=picture.shape[1], encoding=encoding, step=step)
    # rclpy takes an array('B') as it is; bytes are checked item by item (65 ms for 640 x 480 x 3), a list copied so.
    values = array("B")
    values.frombytes(data)
    message.data = values
    message.is_bigendian = int(sys.byteorder == "big")
    return message


def stamp_of(header: Header) -> int:
    """The stamp of a header [ns]."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
