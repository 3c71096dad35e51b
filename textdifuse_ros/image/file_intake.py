"""Image files through the sensors' parameters of the node: gain, rectification and registration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from textdifuse_ros.errors import ConfigError
from textdifuse_ros.image.files import Pair, check_regular
from textdifuse_ros.image.intake import AlignedPair, SensorIntake


class FileIntake:
    """Aligns the files of a pair as the node aligns compressed messages with the same content.

    Each pair is one of its own: it has the gain of the first images of a stream.

    :param config: a :class:`.SensorConfig`, or a configuration with the same fields
    :raises ConfigError: parameters contradict one another, or require a ``camera_info``, which files do not have
    :raises FileError: a calibration file is missing or unreadable
    :raises CalibrationError: a calibration file holds no valid calibration
    """

    def __init__(self, config: Any) -> None:
        self._intake = SensorIntake(config)
        if missing := self._intake.required_calibrations:
            names = " and ".join(f"{sensor}_calibration" for sensor in missing)
            remedy = "image files have no camera_info; name files of it in the parameter file"
            raise ConfigError(names, "set for rectification and for registration by extrinsics", "empty", remedy)

    def align(self, pair: Pair) -> AlignedPair:
        """Read and align the files of a pair.

        :param pair: the files
        :raises OSError: a file cannot be read
        :raises IntakeError: a file cannot be decoded, or the images cannot be aligned
        """
        self._intake.reset()
        return self._intake.align(_message(pair.visible), _message(pair.infrared))


def _message(path: Any) -> SimpleNamespace:
    check_regular(path)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0))
    return SimpleNamespace(header=header, format="", data=path.read_bytes())
