"""Read calibration files: of camera_calibration, of ``ros2 topic echo``, and of OpenCV's FileStorage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textdifuse_ros.config.yaml_text import parse_yaml, read_text
from textdifuse_ros.errors import FileError, shorten

FORMATS = "a calibration file of camera_calibration, `ros2 topic echo` of a camera_info, or OpenCV"
_UNKNOWN_R, _UNKNOWN_P = (0.0,) * 9, (0.0,) * 12
_OPENCV_K = ("camera_matrix", "cameraMatrix", "Camera_Matrix")
_OPENCV_D = ("distortion_coefficients", "distCoeffs", "dist_coeffs", "Distortion_Coefficients")


@dataclass(frozen=True)
class CalibrationFile:
    """The fields of a ``sensor_msgs/CameraInfo``, unchecked.

    :ivar size: width and height [pixel]
    :ivar model: distortion model
    :ivar d: coefficients of the model
    :ivar k: row-major
    :ivar r: row-major; zeros where the file has none
    :ivar p: row-major; zeros where the file has none
    :ivar binning: horizontal and vertical
    :ivar roi: x, y, width and height [pixel]; zeros for the whole image
    """

    size: tuple[int, int]
    model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...] = _UNKNOWN_R
    p: tuple[float, ...] = _UNKNOWN_P
    binning: tuple[int, int] = (1, 1)
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)


def read_calibration(path: str | Path) -> CalibrationFile:
    """Read a calibration file.

    :param path: of the file; of several messages the first counts
    :raises FileError: missing, not YAML, or in none of :data:`FORMATS`
    """
    content = parse_yaml(_first_document(read_text(path, "calibration file")), path)
    try:
        if not isinstance(content, dict):
            raise ValueError(type(content).__name__)
        if "rectification_matrix" in content:
            return _from_camera_calibration(content)
        if {"d", "k", "r", "p"} <= {name.lower() for name in content}:
            return _from_message(content)
        if any(name in content for name in _OPENCV_K):
            return _from_opencv(content)
        raise KeyError("rectification_matrix")
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        found = f"a file without {error}" if isinstance(error, LookupError) else shorten(str(error), 200)
        raise FileError(str(path), FORMATS, found) from error


def _first_document(text: str) -> str:
    """The text up to the second separator of documents, without the ``%YAML:1.0`` of OpenCV."""
    text = re.sub(r"\A\s*(?:%YAML[^\n]*\n)?\s*(?:---[^\S\n]*\n)?", "", text, count=1)
    return re.split(r"^(?:---|\.\.\.)[^\S\n]*$", text, maxsplit=1, flags=re.MULTILINE)[0]


def _from_camera_calibration(content: Mapping[str, Any]) -> CalibrationFile:
    k, r, p = (_numbers(content[f"{name}_matrix"]["data"]) for name in ("camera", "rectification", "projection"))
    d = _numbers(content["distortion_coefficients"]["data"])
    size = (int(content["image_width"]), int(content["image_height"]))
    return CalibrationFile(size, str(content["distortion_model"]), d, k, r, p)


def _from_message(content: Mapping[str, Any]) -> CalibrationFile:
    fields = {name.lower(): value for name, value in content.items()}  # ROS 1 has D, K, R, P
    d, k, r, p = (_numbers(fields[name]) for name in ("d", "k", "r", "p"))
    size = (int(fields["width"]), int(fields["height"]))
    binning = (max(int(fields.get("binning_x", 0)), 1), max(int(fields.get("binning_y", 0)), 1))
    roi = fields.get("roi") or {}
    x, y, width, height = (int(roi.get(name, 0)) for name in ("x_offset", "y_offset", "width", "height"))
    return CalibrationFile(size, str(fields["distortion_model"]), d, k, r, p, binning, (x, y, width, height))


def _from_opencv(content: Mapping[str, Any]) -> CalibrationFile:
    """The names that OpenCV's calibration programs write; the number of coefficients tells the model."""
    k, d = (_numbers(_first(content, names)["data"]) for names in (_OPENCV_K, _OPENCV_D))
    if int(content.get("fisheye_model", 0)):
        model = "equidistant"
    else:
        model = "plumb_bob" if len(d) <= 5 else "rational_polynomial"
    return CalibrationFile((int(content["image_width"]), int(content["image_height"])), model, d, k)


def _first(content: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((content[name] for name in names if name in content), None) or content[names[0]]


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values))
