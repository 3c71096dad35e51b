"""From a visible and an infrared message, as the cameras send them, to the aligned pair that is fused.

One object does all of it: decode (raw or compressed), gain of thermal counts, rectification, registration. It knows no
ROS: a message is whatever has the fields of ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``, from rclpy or
from ``rosbags``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from textdifuse_ros.checks import check_infrared, check_visible
from textdifuse_ros.config.sensors import NAMES, SensorConfig, check_sensors
from textdifuse_ros.errors import CalibrationError, ImageError, InputError, TextDifuseError
from textdifuse_ros.image.camera import Camera, camera_from_info, read_camera
from textdifuse_ros.image.coded import decode_compressed
from textdifuse_ros.image.encodings import decode_image, to_visible
from textdifuse_ros.image.gain import ThermalGain
from textdifuse_ros.image.registration import compute_alignment, compute_rectification, require_calibration
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.sensors import INFRARED, VISIBLE, stamp_of

BAD_VISIBLE = "bad_visible"
"""The visible message cannot be decoded."""
BAD_INFRARED = "bad_infrared"
"""The infrared message cannot be decoded, or holds many NaN."""
SIZE_MISMATCH = "size_mismatch"
"""The two images differ in size, and nothing registers them."""
NO_CALIBRATION = "no_calibration"
"""Rectification or registration needs a calibration that is missing, or not for these images."""


class IntakeError(InputError):
    """A pair of messages that gives no pair of images.

    :ivar reason: one of the constants of this module, under which the pair is counted
    """

    def __init__(self, reason: str, cause: Exception) -> None:
        self.reason = reason
        if isinstance(cause, TextDifuseError):
            super().__init__(cause.what, cause.expected, cause.actual, cause.remedy)
        else:  # whatever OpenCV makes of a strange image
            text = " ".join(str(cause).split())
            super().__init__("the message", "one that can be decoded", f"{type(cause).__name__}: {text}")


@dataclass(frozen=True)
class AlignedPair:
    """What is fused, or the one image that there is.

    :ivar visible: uint8 or uint16 [H, W, 3] RGB
    :ivar infrared: uint8 [H, W], as large as the visible where there are both
    """

    visible: np.ndarray | None
    infrared: np.ndarray | None


class SensorIntake:
    """Turns pairs of messages into aligned pairs; keeps the gain between them.

    ``set_calibration`` and ``reset`` may be called from another thread than the rest.

    :param config: a :class:`.SensorConfig`, or a configuration with the same fields
    :raises ConfigError: parameters that contradict one another
    :raises FileError: a calibration file is missing or none; CalibrationError: it holds no usable calibration
    """

    def __init__(self, config: Any) -> None:
        self._given = config
        self._config = _sensors(config)
        self._begins_anew = False
        check_sensors(self._config)
        self._gain = ThermalGain(self._config)
        self._cameras: dict[str, Camera | CalibrationError | None] = {VISIBLE: None, INFRARED: None}
        self._from_file: set[str] = set()
        for stream, path in (
            (VISIBLE, self._config.visible_calibration),
            (INFRARED, self._config.infrared_calibration),
        ):
            if path:
                self._cameras[stream] = read_camera(path, f"the {stream} camera")
                self._from_file.add(stream)

    @property
    def config(self) -> SensorConfig:
        """The parameters in force."""
        return self._config

    def update_config(self, config: Any) -> None:
        """Apply changed live parameters.

        :param config: as for the constructor; parameters that are not live must be unchanged
        """
        if config is not self._given:
            self._given = config
            self._config = self._gain.config = _sensors(config)

    @property
    def required_calibrations(self) -> tuple[str, ...]:
        """The streams whose ``camera_info`` is needed and does not come from a file."""
        needed = self._config.rectify or self._config.registration == "extrinsics"
        return tuple(stream for stream in (VISIBLE, INFRARED) if needed and stream not in self._from_file)

    @property
    def visible_camera(self) -> Camera | None:
        """The visible camera as calibrated; None where nothing usable is known of it."""
        camera = self._cameras[VISIBLE]
        return None if isinstance(camera, CalibrationError) else camera

    def set_calibration(self, stream: str, info: Any) -> None:
        """Take a ``sensor_msgs/CameraInfo``; one that is unfit is told with the next pair. A file goes before it."""
        if stream in self._from_file:
            return
        try:
            self._cameras[stream] = camera_from_info(info, f"the {stream} camera")
        except CalibrationError as error:
            self._cameras[stream] = error

    def reset(self) -> None:
        """Forget the gain before the next pair: for a time jump, or the start of another recording."""
        self._begins_anew = True

    def align(self, visible: Any | None, infrared: Any | None) -> AlignedPair:
        """The aligned pair of two messages; of one alone its image, the infrared one then in its own frame.

        :param visible: an Image or CompressedImage message, or None; ``infrared`` likewise
        :raises IntakeError: says why there is none, and under which reason it is counted
        """
        seen = warm = None
        if self._begins_anew:
            self._begins_anew = False
            self._gain.reset()
        try:
            if visible is not None:
                seen = _scaled(to_visible(decode_message(visible)), self._config.visible_bits)
                check_visible(seen)
        except Exception as error:  # besides the project's errors whatever OpenCV makes of a strange image
            raise IntakeError(BAD_VISIBLE, error) from error
        try:
            if infrared is not None:
                warm = self._gain.apply(_grey(decode_message(infrared)), stamp_of(infrared.header))
                check_infrared(warm)
                if self._config.infrared_polarity == "black_hot":
                    warm = 255 - warm
        except Exception as error:
            raise IntakeError(BAD_INFRARED, error) from error
        try:
            return self._aligned(seen, warm)
        except ImageError as error:
            raise IntakeError(SIZE_MISMATCH, error) from error
        except Exception as error:  # besides CalibrationError what OpenCV makes of a strange one
            raise IntakeError(NO_CALIBRATION, error) from error

    def _aligned(self, visible: np.ndarray | None, infrared: np.ndarray | None) -> AlignedPair:
        cameras: dict[str, Camera | None] = {VISIBLE: None, INFRARED: None}
        if self._config.rectify or (self._config.registration == "extrinsics" and visible is not None):
            for stream, image in ((VISIBLE, visible), (INFRARED, infrared)):
                camera = self._cameras[stream]
                if image is None or camera is None:
                    continue
                if isinstance(camera, CalibrationError):
                    # Raised again and again, it would keep the images of all these pairs in its traceback.
                    raise camera.with_traceback(None)
                camera.check_size(image, f"the {stream} camera")
                cameras[stream] = camera
        if visible is not None and infrared is not None:
            sizes = [(image.shape[1], image.shape[0]) for image in (visible, infrared)]
            mappings = compute_alignment(self._config, sizes[0], sizes[1], cameras[VISIBLE], cameras[INFRARED])
            return AlignedPair(*mappings.apply(visible, infrared))
        if self._config.rectify:
            alone = VISIBLE if visible is not None else INFRARED
            undistort = compute_rectification(require_calibration(cameras[alone], alone))
            if undistort is not None and visible is not None:
                visible = undistort.apply(visible)
            elif undistort is not None and infrared is not None:
                infrared = undistort.apply(infrared)
        return AlignedPair(visible, infrared)


def decode_message(message: Any) -> np.ndarray:
    """The image in a raw or compressed message.

    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float [H, W]
    :raises EncodingError: it cannot be decoded
    """
    # Received data are an array('B'), those of a recording a uint8 array: both go without a copy.
    data = np.frombuffer(message.data, np.uint8)
    if hasattr(message, "format"):
        return decode_compressed(data, message.format)
    return decode_image(data, message.height, message.width, message.step, message.encoding, bool(message.is_bigendian))


def _grey(decoded: np.ndarray) -> np.ndarray:
    """Color reduced to 8 bits of BT.601 luma, for it has no counts; counts and temperatures as they are."""
    return decoded if decoded.ndim == 2 else cv2.cvtColor(to_uint8(decoded), cv2.COLOR_RGB2GRAY)


def _scaled(visible: np.ndarray, bits: int) -> np.ndarray:
    """Sixteen bits of which a camera uses only the lower ones, brought to the whole range; what is above is white."""
    if visible.dtype != np.uint16 or bits == 16:
        return visible
    most = 2**bits - 1
    return (np.minimum(visible, most).astype(np.uint32) * 65535 // most).astype(np.uint16)


def _sensors(config: Any) -> SensorConfig:
    """The sensors' part of a larger configuration."""
    if type(config) is SensorConfig:
        return config
    return SensorConfig(**{name: getattr(config, name) for name in NAMES if hasattr(config, name)})
