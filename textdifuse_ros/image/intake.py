"""From camera messages to the aligned pair of images that is fused.

:class:`SensorIntake` decodes (raw or compressed), applies the thermal gain, rectifies and registers. It does not depend
on ROS: a message is any object with the fields of ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``, from rclpy
or from ``rosbags``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from textdifuse_ros.checks import check_infrared, check_same_size, check_visible
from textdifuse_ros.config.sensors import NAMES, SensorConfig, check_sensors
from textdifuse_ros.errors import CalibrationError, ImageError, InputError, TextDifuseError
from textdifuse_ros.image.camera import Camera, camera_from_info, read_camera
from textdifuse_ros.image.coded import decode_compressed
from textdifuse_ros.image.encodings import decode_image, to_visible
from textdifuse_ros.image.files import Pair, read_infrared_levels, read_visible
from textdifuse_ros.image.gain import ThermalGain
from textdifuse_ros.image.headers import MAX_PIXELS
from textdifuse_ros.image.nodata import declared_nodata
from textdifuse_ros.image.registration import compute_alignment, compute_rectification, require_calibration
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.image.validity import fill_from_visible, find_valid
from textdifuse_ros.sensors import INFRARED, SENSORS, VISIBLE, stamp_of

BAD_VISIBLE = "bad_visible"
"""The visible message cannot be decoded."""
BAD_INFRARED = "bad_infrared"
"""The infrared message cannot be decoded, or no pixel has a value."""
SIZE_MISMATCH = "size_mismatch"
"""The images differ in size and are not registered, or do not match ``homography_sizes``."""
NO_CALIBRATION = "no_calibration"
"""Rectification or registration needs a calibration that is missing or does not fit the images."""


class IntakeError(InputError):
    """A pair of messages cannot be turned into an aligned pair of images.

    :param reason: one of the constants of this module, under which the pair is counted
    :param cause: the original error
    """

    def __init__(self, reason: str, cause: Exception) -> None:
        self.reason = reason
        if isinstance(cause, TextDifuseError):
            super().__init__(cause.what, cause.expected, cause.actual, cause.remedy)
        else:  # an OpenCV error on a malformed image
            text = " ".join(str(cause).split())
            super().__init__("the message", "one that can be decoded", f"{type(cause).__name__}: {text}")


@dataclass(frozen=True)
class AlignedPair:
    """Aligned images of one moment; one of them is None if that sensor is missing.

    :ivar visible: uint8 or uint16 [H, W, 3] RGB
    :ivar infrared: uint8 [H, W], of the visible image's size if both are present; pixels without a value are filled
        from the visible image
    :ivar no_value: share of the infrared camera's pixels without a value, 0 .. 1
    """

    visible: np.ndarray | None
    infrared: np.ndarray | None
    no_value: float = 0.0

    @classmethod
    def of(cls, visible: np.ndarray, infrared: np.ndarray, valid: np.ndarray | None) -> AlignedPair:
        """Make a pair of images that are aligned as they are, such as those of files.

        :param visible: uint8 or uint16 [H, W, 3] RGB
        :param infrared: uint8 [H, W]
        :param valid: bool [H, W], the pixels of the infrared image that have a value; None for all
        :raises ImageError: wrong types or sizes
        """
        check_visible(visible)
        check_infrared(infrared)
        check_same_size(visible, infrared)
        if valid is None:
            return cls(visible, infrared)
        return cls(visible, fill_from_visible(infrared, valid, visible), _share(valid))


class SensorIntake:
    """Turns pairs of messages into aligned pairs; keeps the state of the thermal gain between them.

    ``set_calibration`` and ``reset`` may be called from another thread.

    :param config: a :class:`.SensorConfig`, or a configuration with the same fields
    :raises ConfigError: parameters contradict one another
    :raises FileError: a calibration file is missing or unreadable
    :raises CalibrationError: a calibration file holds no valid calibration
    """

    def __init__(self, config: Any) -> None:
        self._source = config
        self._config = _sensors(config)
        self._reset_pending = False
        check_sensors(self._config)
        self._gain = ThermalGain(self._config)
        self._cameras: dict[str, Camera | CalibrationError | None] = {VISIBLE: None, INFRARED: None}
        self._from_file: set[str] = set()
        paths = (self._config.visible_calibration, self._config.infrared_calibration)
        for sensor, path in zip(SENSORS, paths, strict=True):
            if path:
                self._cameras[sensor] = read_camera(path, f"the {sensor} camera")
                self._from_file.add(sensor)

    @property
    def config(self) -> SensorConfig:
        """The current parameters."""
        return self._config

    def update_config(self, config: Any) -> None:
        """Apply changed live parameters.

        :param config: as for the constructor; parameters that are not live must be unchanged
        """
        if config is not self._source:
            self._source = config
            self._config = self._gain.config = _sensors(config)

    @property
    def required_calibrations(self) -> tuple[str, ...]:
        """The sensors whose ``camera_info`` is required because no calibration file is given."""
        required = self._config.rectify or self._config.registration == "extrinsics"
        return tuple(sensor for sensor in SENSORS if required and sensor not in self._from_file)

    @property
    def visible_camera(self) -> Camera | None:
        """Calibration of the visible camera; None if missing or invalid."""
        camera = self._cameras[VISIBLE]
        return None if isinstance(camera, CalibrationError) else camera

    def set_calibration(self, sensor: str, info: Any) -> None:
        """Set a camera's calibration; ignored if the sensor has a calibration file.

        An invalid calibration raises with the next pair.

        :param sensor: ``visible`` or ``infrared``
        :param info: a ``sensor_msgs/CameraInfo``
        """
        if sensor in self._from_file:
            return
        try:
            self._cameras[sensor] = camera_from_info(info, f"the {sensor} camera")
        except CalibrationError as error:
            self._cameras[sensor] = error

    def reset(self) -> None:
        """Reset the gain before the next pair, after a time jump or at the start of another recording."""
        self._reset_pending = True

    def align(self, visible: Any | None, infrared: Any | None) -> AlignedPair:
        """Decode two messages and align their images.

        A single message gives its image only; the infrared image then keeps its own frame.

        :param visible: an Image or CompressedImage message, or None
        :param infrared: likewise
        :returns: the aligned images
        :raises IntakeError: with the reason under which the pair is counted
        """
        if self._reset_pending:
            self._reset_pending = False
            self._gain.reset()
        visible_image = infrared_image = valid = None
        try:
            if visible is not None:
                decoded = decode_message(visible, max_pixels=self._config.max_pixels)
                visible_image = _scale_bits(to_visible(decoded), self._config.visible_bits)
                check_visible(visible_image)
        except Exception as error:  # OpenCV raises its own errors on malformed images
            raise IntakeError(BAD_VISIBLE, error) from error
        try:
            if infrared is not None:
                decoded = decode_message(infrared, max_pixels=self._config.max_pixels)
                grey = _grey(decoded)
                valid = find_valid(grey, _nodata(infrared, decoded))
                infrared_image = self._gain.apply(grey, stamp_of(infrared.header), valid=valid)
                check_infrared(infrared_image)
                if self._config.infrared_polarity == "black_hot":
                    infrared_image = 255 - infrared_image
        except Exception as error:
            raise IntakeError(BAD_INFRARED, error) from error
        try:
            return AlignedPair(*self._align_images(visible_image, infrared_image, valid), _share(valid))
        except ImageError as error:
            raise IntakeError(SIZE_MISMATCH, error) from error
        except Exception as error:  # CalibrationError, or an OpenCV error on an unusual calibration
            raise IntakeError(NO_CALIBRATION, error) from error

    def _align_images(
        self, visible: np.ndarray | None, infrared: np.ndarray | None, valid: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        cameras: dict[str, Camera | None] = {VISIBLE: None, INFRARED: None}
        if self._config.rectify or (self._config.registration == "extrinsics" and visible is not None):
            for sensor, image in ((VISIBLE, visible), (INFRARED, infrared)):
                camera = self._cameras[sensor]
                if image is None or camera is None:
                    continue
                if isinstance(camera, CalibrationError):
                    # Raised repeatedly, it would keep the images of all those pairs alive in its traceback.
                    raise camera.with_traceback(None)
                camera.check_size(image, f"the {sensor} camera")
                cameras[sensor] = camera
        if visible is not None and infrared is not None:
            sizes = [(image.shape[1], image.shape[0]) for image in (visible, infrared)]
            alignment = compute_alignment(self._config, sizes[0], sizes[1], cameras[VISIBLE], cameras[INFRARED])
            return alignment.apply(visible, infrared, valid)
        if self._config.rectify:
            sensor = VISIBLE if visible is not None else INFRARED
            warp = compute_rectification(require_calibration(cameras[sensor], sensor))
            if warp is not None and visible is not None:
                visible = warp.apply(visible)
            elif warp is not None and infrared is not None:
                infrared = warp.apply(infrared)
        return visible, infrared


def read_aligned(pair: Pair, *, max_pixels: int = MAX_PIXELS) -> AlignedPair:
    """Read the files of an aligned pair.

    :param pair: the files
    :param max_pixels: largest accepted image [pixel]
    :raises FileError: a file is missing or not readable, or the infrared one has no value anywhere
    :raises ImageError: the images differ in size
    """
    infrared, valid = read_infrared_levels(pair.infrared, max_pixels=max_pixels)
    return AlignedPair.of(read_visible(pair.visible, max_pixels=max_pixels), infrared, valid)


def decode_message(message: Any, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a raw or compressed image message.

    :param message: a ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``
    :param max_pixels: largest accepted compressed image [pixel]
    :returns: uint8 or uint16 [H, W] or [H, W, 3] RGB, or float [H, W]
    :raises EncodingError: the message cannot be decoded
    """
    # rclpy gives an array('B'), rosbags a uint8 array: neither is copied here.
    data = np.frombuffer(message.data, np.uint8)
    if hasattr(message, "format"):
        return decode_compressed(data, message.format, max_pixels=max_pixels)
    return decode_image(data, message.height, message.width, message.step, message.encoding, bool(message.is_bigendian))


def _grey(decoded: np.ndarray) -> np.ndarray:
    """Reduce color, which has no counts, to 8-bit BT.601 luma; return counts and temperatures unchanged."""
    return decoded if decoded.ndim == 2 else cv2.cvtColor(to_uint8(decoded), cv2.COLOR_RGB2GRAY)


def _nodata(message: Any, decoded: np.ndarray) -> float | None:
    """The value that a compressed grey image declares as no data."""
    if decoded.ndim != 2 or not hasattr(message, "format"):
        return None
    return declared_nodata(np.frombuffer(message.data, np.uint8).tobytes())


def no_value_text(share: float) -> str:
    """Say what is done about infrared pixels without a value.

    :param share: of the pixels, 0 .. 1
    """
    found = f"{100 * share:.3g} % of the pixels have no value (as at a rectified border)"
    return f"{found} and are filled from the visible image"


def _share(valid: np.ndarray | None) -> float:
    """Share of the pixels without a value, 0 .. 1."""
    return 0.0 if valid is None else float(1 - valid.mean())


def _scale_bits(visible: np.ndarray, bits: int) -> np.ndarray:
    """Scale a 16-bit image of which only the lower ``bits`` are used to the full range, clipped to white."""
    if visible.dtype != np.uint16 or bits == 16:
        return visible
    white = 2**bits - 1
    return (np.minimum(visible, white).astype(np.uint32) * 65535 // white).astype(np.uint16)


def _sensors(config: Any) -> SensorConfig:
    """Extract the sensor parameters from a larger configuration."""
    if type(config) is SensorConfig:
        return config
    return SensorConfig(**{name: getattr(config, name) for name in NAMES if hasattr(config, name)})
