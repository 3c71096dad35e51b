"""Images to ``sensor_msgs/Image``, cameras to ``CameraInfo``; :mod:`textdifuse_ros.image.intake` reads them."""

from __future__ import annotations

import sys
from array import array

import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from textdifuse_ros.image.camera import Camera
from textdifuse_ros.image.encodings import encode_image


def message_from(image: np.ndarray, encoding: str, header: Header) -> Image:
    """Convert an array to a message.

    :param image: uint8 [H, W, 3] RGB, or uint8, uint16 or float32 [H, W]
    :param encoding: ``rgb8``, ``bgr8``, ``mono8``, ``mono16`` or ``32FC1``
    :param header: of the message, unchanged
    """
    data, step = encode_image(image, encoding)
    message = Image(header=header, height=image.shape[0], width=image.shape[1], encoding=encoding, step=step)
    # rclpy takes an array('B') as it is; it would check bytes item by item (65 ms for 640 x 480 x 3) and copy a list.
    values = array("B")
    values.frombytes(data)
    message.data = values
    message.is_bigendian = int(sys.byteorder == "big")
    return message


def info_from(camera: Camera, rectified: bool, header: Header) -> CameraInfo:
    """The ``camera_info`` of a camera's images.

    :param camera: the calibration
    :param rectified: whether the images are rectified
    :param header: of the image, unchanged
    """
    projection = np.column_stack((np.reshape(camera.projection, (3, 3)), np.zeros(3))).reshape(-1).tolist()
    info = CameraInfo(header=header, width=camera.width, height=camera.height, p=projection)
    if rectified:
        info.distortion_model, info.d = "plumb_bob", [0.0] * 5
        info.k, info.r = list(camera.projection), np.eye(3).reshape(-1).tolist()
    else:
        info.distortion_model, info.d = camera.model, list(camera.distortion)
        info.k, info.r = list(camera.matrix), list(camera.rectification)
    return info
