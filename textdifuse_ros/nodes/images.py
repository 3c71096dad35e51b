"""``sensor_msgs/Image`` to arrays and back."""

from __future__ import annotations

from array import array

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from textdifuse_ros.image.encodings import decode_image, encode_image, to_infrared, to_visible


def visible_from(message: Image) -> np.ndarray:
    """The picture of a colour camera: uint8 or uint16 [H, W, 3] RGB; grey is repeated.

    :raises EncodingError: an encoding that is not handled, or fewer bytes than ``step * height``
    """
    return to_visible(_decode(message))


def infrared_from(message: Image) -> np.ndarray:
    """The picture of a thermal camera: uint8 or uint16 [H, W]; colour is reduced to BT.601 luma.

    :raises EncodingError: an encoding that is not handled, or fewer bytes than ``step * height``
    """
    return to_infrared(_decode(message))


def message_from(picture: np.ndarray, encoding: str, header: Header) -> Image:
    """A message with the given header, unchanged.

    :param picture: uint8 [H, W, 3] RGB, or uint8 [H, W]
    :param encoding: ``rgb8``, ``bgr8`` or ``mono8``
    """
    data, step = encode_image(picture, encoding)
    message = Image(header=header, height=picture.shape[0], width=picture.shape[1], encoding=encoding, step=step)
    # rclpy takes an array('B') as it is; bytes are checked item by item (65 ms for 640 x 480 x 3), a list copied so.
    values = array("B")
    values.frombytes(data)
    message.data = values
    return message


def stamp_of(header: Header) -> int:
    """The stamp of a header [ns]."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _decode(message: Image) -> np.ndarray:
    # Received data are an array('B'); frombuffer takes it without a copy.
    data = np.frombuffer(message.data, dtype=np.uint8)
    return decode_image(data, message.height, message.width, message.step, message.encoding, bool(message.is_bigendian))
