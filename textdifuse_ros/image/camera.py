"""Camera calibration, from ``sensor_msgs/CameraInfo`` or a calibration file, and projection with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from textdifuse_ros.errors import CalibrationError, quote
from textdifuse_ros.image.camera_files import read_calibration

PLUMB_BOB, RATIONAL, FISHEYE = "plumb_bob", "rational_polynomial", "equidistant"
_COEFFICIENTS = {PLUMB_BOB: (4, 5), RATIONAL: (8, 12, 14), FISHEYE: (4,)}
_FISHEYE_NAMES = ("equidistant", "fisheye")
_MAX_VIEW = 1.25  # rays are projected up to this multiple of the image's view
_MAX_ITERATIONS, _TOLERANCE = 20, 1e-3  # of the refinement of undistorted points; tolerance [pixel]
_CHUNK = 1 << 14  # points


@dataclass(frozen=True)
class Camera:
    """Calibration of a camera, for its images as sent: binning and region of interest are already applied.

    :ivar width: of the images [pixel]
    :ivar height: of the images [pixel]
    :ivar model: distortion model, ``plumb_bob``, ``rational_polynomial`` or ``equidistant``
    :ivar matrix: K, row-major [9]
    :ivar distortion: coefficients of ``model``; empty for a pinhole camera
    :ivar rectification: R, row-major [9]
    :ivar projection: left 3 x 3 part of P, row-major [9]: K of the rectified image
    """

    width: int
    height: int
    model: str
    matrix: tuple[float, ...]
    distortion: tuple[float, ...]
    rectification: tuple[float, ...]
    projection: tuple[float, ...]

    @property
    def is_plain(self) -> bool:
        """Whether rectification leaves the images unchanged."""
        plain = not self.distortion and np.allclose(self.rectification, np.eye(3).reshape(-1), atol=1e-9)
        return bool(plain and np.allclose(self.matrix, self.projection, rtol=1e-9, atol=1e-9))

    def check_size(self, image: np.ndarray, what: str) -> None:
        """Check that an image has the calibrated size.

        :param image: [H, W] or [H, W, C]
        :param what: name of the camera in the error message
        :raises CalibrationError: the sizes differ
        """
        height, width = image.shape[:2]
        if (width, height) != (self.width, self.height):
            expected = f"for the size of its images, {width} x {height} pixels"
            remedy = "calibrate at the size that the driver sends, or set binning and roi in its camera_info"
            raise CalibrationError(f"the calibration of {what}", expected, f"{self.width} x {self.height}", remedy)

    def distort(self, rectified: np.ndarray) -> np.ndarray:
        """Map pixels of the rectified image to pixels of the original image.

        :param rectified: float64 [N, 2], (x, y)
        :returns: float64 [N, 2]
        """
        rays = pinhole_rays(rectified, np.reshape(self.projection, (3, 3)))
        return self.project(rays @ np.reshape(self.rectification, (3, 3)))  # the transposed matrix inverts R

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points into the image.

        :param points: float64 [N, 3] in the optical frame (x right, y down, z forward)
        :returns: float64 [N, 2], (x, y); NaN behind the camera, and far outside its view, where the distortion
            polynomial is not valid and may fold back into the image
        """
        points = np.where(points[:, 2:] > 1e-9, points, np.nan)
        rays = points / points[:, 2:]
        if self.distortion:
            radius = np.hypot(rays[:, 0], rays[:, 1])
            with np.errstate(invalid="ignore"):
                rays[radius > _MAX_VIEW * self._view()] = np.nan
        return self._project_rays(rays)

    def _project_rays(self, rays: np.ndarray) -> np.ndarray:
        """Project rays [N, 3] with z = 1 to pixels [N, 2], also outside the view."""
        matrix = np.reshape(self.matrix, (3, 3))
        if not self.distortion:
            return (rays @ matrix.T)[:, :2]
        if self.model == FISHEYE:
            return _fisheye(rays, matrix, self.distortion)
        pixels, zero, lens = np.empty((len(rays), 2)), np.zeros(3), np.array(self.distortion)
        for first in range(0, len(rays), _CHUNK):  # in chunks: OpenCV also computes the Jacobian, which is large
            chunk = slice(first, first + _CHUNK)
            pixels[chunk] = cv2.projectPoints(rays[chunk].reshape(-1, 1, 3), zero, zero, matrix, lens)[0].reshape(-1, 2)
        return pixels

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Compute the viewing rays of pixels, in the optical frame.

        :param pixels: float64 [N, 2], (x, y)
        :returns: float64 [N, 3] with z = 1; NaN outside the lens's field of view
        """
        matrix = np.reshape(self.matrix, (3, 3))
        if not self.distortion:
            return pinhole_rays(pixels, matrix)
        undistort = cv2.fisheye.undistortPoints if self.model == FISHEYE else cv2.undistortPoints
        flat = undistort(pixels.reshape(-1, 1, 2), matrix, np.array(self.distortion))
        rays = np.column_stack((flat.reshape(-1, 2), np.ones(len(pixels))))
        if self.model != FISHEYE:
            # OpenCV's iteration does not converge at the border of a wide lens.
            open_ = np.arange(len(rays))
            for _ in range(_MAX_ITERATIONS):
                error = pixels[open_] - self._project_rays(rays[open_])
                rays[open_, :2] += error / (matrix[0, 0], matrix[1, 1])
                open_ = open_[np.abs(error).max(1) >= _TOLERANCE]  # drops those that became NaN
                if not len(open_):
                    break
        with np.errstate(invalid="ignore"):
            rays[~(np.abs(self._project_rays(rays) - pixels).max(1) < 1)] = np.nan
        return rays

    def _view(self) -> float:
        """Largest tangent of the angle between the optical axis and the border of the image."""
        x, y = np.linspace(0, self.width - 1, 16), np.linspace(0, self.height - 1, 16)
        border = np.concatenate(
            [np.column_stack((x, np.full(16, end))) for end in (0, self.height - 1)]
            + [np.column_stack((np.full(16, end), y)) for end in (0, self.width - 1)]
        )
        rays = self.rays(border)
        radius = np.hypot(rays[:, 0], rays[:, 1])
        # The image circle of a fisheye may lie inside the image, so that no border pixel has a ray.
        return float(radius[np.isfinite(radius)].max(initial=0.0)) or math.inf


def pinhole_rays(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Compute the viewing rays of pixels of a camera without distortion.

    :param pixels: float64 [N, 2], (x, y)
    :param matrix: float64 [3, 3], K
    :returns: float64 [N, 3] with z = 1
    """
    homogeneous = np.column_stack((pixels, np.ones(len(pixels))))
    return homogeneous @ np.linalg.inv(matrix).T


def _fisheye(rays: np.ndarray, matrix: np.ndarray, k: tuple[float, ...]) -> np.ndarray:
    """Project rays [N, 3] with z = 1 by the Kannala-Brandt model (OpenCV's fisheye, ROS's ``equidistant``)."""
    radius = np.hypot(rays[:, 0], rays[:, 1])
    theta = np.arctan(radius)
    square = theta * theta
    distorted = theta * (1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3]))))
    scale = np.divide(distorted, radius, out=np.ones_like(distorted), where=radius > 1e-12)
    return (np.column_stack((rays[:, 0] * scale, rays[:, 1] * scale, np.ones(len(rays)))) @ matrix.T)[:, :2]


def camera_from_info(info: Any, what: str) -> Camera:
    """Create a camera from a ``sensor_msgs/CameraInfo``.

    :param info: the message, from rclpy or from ``rosbags``
    :param what: name of the camera in error messages, ``the visible camera``
    :raises CalibrationError: not calibrated, unsupported model, or wrong number of coefficients
    """
    roi = info.roi
    return _camera(
        what,
        (int(info.width), int(info.height)),
        str(info.distortion_model),
        tuple(map(float, info.d)),
        tuple(map(float, info.k)),
        tuple(map(float, info.r)),
        tuple(map(float, info.p)),
        (max(int(info.binning_x), 1), max(int(info.binning_y), 1)),
        (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
    )


def read_camera(path: str | Path, what: str) -> Camera:
    """Read a camera from a calibration file, see :func:`.read_calibration`.

    :param path: file to read
    :param what: name of the camera in error messages, ``the visible camera``
    :raises FileError: missing, not YAML, or not a calibration file
    :raises CalibrationError: see :func:`camera_from_info`
    """
    file = read_calibration(path)
    return _camera(what, file.size, file.model, file.d, file.k, file.r, file.p, file.binning, file.roi)


def _camera(
    what: str,
    size: tuple[int, int],
    model: str,
    distortion: tuple[float, ...],
    matrix: tuple[float, ...],
    rectification: tuple[float, ...],
    projection: tuple[float, ...],
    binning: tuple[int, int] = (1, 1),
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Camera:
    what = f"the calibration of {what}"
    lengths = (len(matrix), len(rectification), len(projection))
    if lengths != (9, 9, 12) or not np.isfinite((*distortion, *matrix, *rectification, *projection)).all():
        raise CalibrationError(what, "of 9 + 9 + 12 finite numbers (K, R, P)", lengths)
    if matrix[0] <= 0 or matrix[4] <= 0:
        raise CalibrationError(what, "valid (focal lengths above 0 in K)", "not calibrated", "calibrate the camera")
    coefficients = _coefficients(what, model, distortion)
    x, y, width, height = roi
    if not width or not height:
        width, height = size
    if x < 0 or y < 0 or x + width > size[0] or y + height > size[1]:
        raise CalibrationError(what, f"one with a roi within {size[0]} x {size[1]} pixels", roi)
    rotation = rectification if any(rectification) else tuple(np.eye(3).reshape(-1))
    square = np.reshape(rotation, (3, 3))
    if not np.allclose(square @ square.T, np.eye(3), atol=1e-3):
        raise CalibrationError(f"R in {what}", "a rotation matrix", list(rotation))
    rectified = np.delete(np.reshape(projection, (3, 4)), 3, 1)
    if not rectified[0, 0] and not rectified[1, 1]:  # a camera that is not rectified may leave P empty
        rectified = np.reshape(matrix, (3, 3))
    if rectified[0, 0] <= 0 or rectified[1, 1] <= 0 or abs(np.linalg.det(rectified)) < 1e-9:
        raise CalibrationError(f"P in {what}", "invertible, with focal lengths above 0", rectified.reshape(-1).tolist())
    # From pixels of the full sensor to pixels as sent: crop to the region, then bin, as image_geometry does.
    as_sent = np.array([[1 / binning[0], 0, -x / binning[0]], [0, 1 / binning[1], -y / binning[1]], [0, 0, 1]])
    return Camera(
        width // binning[0],
        height // binning[1],
        FISHEYE if model in _FISHEYE_NAMES else model,
        tuple((as_sent @ np.reshape(matrix, (3, 3))).reshape(-1).tolist()),
        coefficients,
        rotation,
        tuple((as_sent @ rectified).reshape(-1).tolist()),
    )


def _coefficients(what: str, model: str, distortion: tuple[float, ...]) -> tuple[float, ...]:
    name = FISHEYE if model in _FISHEYE_NAMES else model
    # All-zero coefficients mean a pinhole, except for a fisheye, where they mean the ideal equidistant lens.
    if not distortion or (name != FISHEYE and not any(distortion)):
        return ()
    if name not in _COEFFICIENTS:
        raise CalibrationError(f"the distortion model of {what}", f"one of {', '.join(_COEFFICIENTS)}", quote(model))
    lengths = _COEFFICIENTS[name]
    if len(distortion) in lengths:
        return distortion
    for length in sorted(lengths, reverse=True):
        if length < len(distortion) and not any(distortion[length:]):
            return distortion[:length]  # drivers fill D with zeros, which add nothing
    expected = f"one of {' or '.join(map(str, lengths))} coefficients for {name}"
    raise CalibrationError(what, expected, len(distortion), "more of them must be zero")
