"""A camera's calibration: ``sensor_msgs/CameraInfo``, or the YAML file of camera_calibration; rectification by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from textdifuse_ros.errors import CalibrationError, FileError

PLUMB_BOB, RATIONAL, FISHEYE = "plumb_bob", "rational_polynomial", "equidistant"
_COEFFICIENTS = {PLUMB_BOB: (4, 5), RATIONAL: (8, 12, 14), FISHEYE: (4,)}
_FISHEYE_NAMES = ("equidistant", "fisheye")
_FAR = 1.25  # times the view of the image
_MOST_MORE, _NEAR = 20, 1e-3  # iterations, and what they end at [pixels]
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Camera:
    """What is known of a camera, for the images that it sends: binning and region of interest are worked in.

    :ivar width: of its images [pixels]
    :ivar height: of its images [pixels]
    :ivar matrix: K, nine numbers row by row: normalized coordinates to pixels
    :ivar distortion: coefficients of ``model``; () for none, a pinhole
    :ivar rectification: R, nine numbers row by row
    :ivar projection: the left 3 x 3 of P, nine numbers row by row: K of the rectified image
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
        """Whether rectification would leave its images as they are."""
        plain = not self.distortion and np.allclose(self.rectification, np.eye(3).reshape(-1), atol=1e-9)
        return bool(plain and np.allclose(self.matrix, self.projection, rtol=1e-9, atol=1e-9))

    def check_size(self, image: np.ndarray, what: str) -> None:
        """Refuse an image of another size.

        :raises CalibrationError: names both
        """
        height, width = image.shape[:2]
        if (width, height) != (self.width, self.height):
            expected = f"one for {width} x {height} pixels, as its images are"
            remedy = "calibrate at the size that the driver sends, or give its binning and roi"
            raise CalibrationError(f"the calibration of {what}", expected, f"{self.width} x {self.height}", remedy)

    def distort(self, rectified: np.ndarray) -> np.ndarray:
        """Where in its image lies what is seen at these pixels of the rectified one.

        :param rectified: float64 [N, 2], (x, y)
        :returns: float64 [N, 2]
        """
        rays = pinhole_rays(rectified, np.reshape(self.projection, (3, 3)))
        return self.project(rays @ np.reshape(self.rectification, (3, 3)))  # by the transposed matrix: backwards

    def project(self, points: np.ndarray) -> np.ndarray:
        """Where in its image points lie.

        :param points: float64 [N, 3] in its optical frame (x right, y down, z ahead)
        :returns: float64 [N, 2], (x, y); NaN behind the camera, or far outside its view, where a lens polynomial that
            was fitted inside may lead back into the image
        """
        points = np.where(points[:, 2:] > 1e-9, points, np.nan)
        rays = points / points[:, 2:]
        if self.distortion:
            radius = np.hypot(rays[:, 0], rays[:, 1])
            with np.errstate(invalid="ignore"):
                rays[radius > _FAR * self._view()] = np.nan
        return self._bent(rays)

    def _bent(self, rays: np.ndarray) -> np.ndarray:
        """The pixels [N, 2] of rays [N, 3] with z = 1, however far outside."""
        matrix = np.reshape(self.matrix, (3, 3))
        if not self.distortion:
            return (rays @ matrix.T)[:, :2]
        if self.model == FISHEYE:
            return _fisheye(rays, matrix, self.distortion)
        pixels, none, lens = np.empty((len(rays), 2)), np.zeros(3), np.array(self.distortion)
        for first in range(0, len(rays), _AT_ONCE):  # OpenCV finds the derivatives, too: many times as much memory
            some = slice(first, first + _AT_ONCE)
            pixels[some] = cv2.projectPoints(rays[some].reshape(-1, 1, 3), none, none, matrix, lens)[0].reshape(-1, 2)
        return pixels

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Directions with z = 1, in its optical frame, of what is seen at these pixels of its image.

        :param pixels: float64 [N, 2], (x, y)
        :returns: float64 [N, 3]; NaN where the lens sees nothing
        """
        matrix = np.reshape(self.matrix, (3, 3))
        if not self.distortion:
            return pinhole_rays(pixels, matrix)
        undistort = cv2.fisheye.undistortPoints if self.model == FISHEYE else cv2.undistortPoints
        flat = undistort(pixels.reshape(-1, 1, 2), matrix, np.array(self.distortion))
        rays = np.column_stack((flat.reshape(-1, 2), np.ones(len(pixels))))
        if self.model != FISHEYE:
            # The iterations of OpenCV leave pixels at the border of a wide lens.
            left = np.arange(len(rays))
            for _ in range(_MOST_MORE):
                off = pixels[left] - self._bent(rays[left])
                rays[left, :2] += off / (matrix[0, 0], matrix[1, 1])
                left = left[np.abs(off).max(1) >= _NEAR]  # without those that became NaN
                if not len(left):
                    break
        with np.errstate(invalid="ignore"):
            rays[~(np.abs(self._bent(rays) - pixels).max(1) < 1)] = np.nan
        return rays

    def _view(self) -> float:
        """Largest tangent of the angle that the border of its image has to the axis."""
        x, y = np.linspace(0, self.width - 1, 16), np.linspace(0, self.height - 1, 16)
        border = np.concatenate(
            [np.column_stack((x, np.full(16, end))) for end in (0, self.height - 1)]
            + [np.column_stack((np.full(16, end), y)) for end in (0, self.width - 1)]
        )
        rays = self.rays(border)
        radius = np.hypot(rays[:, 0], rays[:, 1])
        # A fisheye may see nothing at all there: its circle lies within the image.
        return float(radius[np.isfinite(radius)].max(initial=0.0)) or math.inf


def pinhole_rays(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Directions [N, 3] with z = 1 of pixels [N, 2] of a camera without distortion."""
    homogeneous = np.column_stack((pixels, np.ones(len(pixels))))
    return homogeneous @ np.linalg.inv(matrix).T


def _fisheye(rays: np.ndarray, matrix: np.ndarray, k: tuple[float, ...]) -> np.ndarray:
    """Kannala and Brandt's model, as OpenCV's fisheye and ROS's ``equidistant`` have it; rays [N, 3] with z = 1."""
    radius = np.hypot(rays[:, 0], rays[:, 1])
    theta = np.arctan(radius)
    square = theta * theta
    bent = theta * (1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3]))))
    scale = np.divide(bent, radius, out=np.ones_like(bent), where=radius > 1e-12)
    return (np.column_stack((rays[:, 0] * scale, rays[:, 1] * scale, np.ones(len(rays)))) @ matrix.T)[:, :2]


def camera_from_info(info: Any, what: str) -> Camera:
    """The camera that a ``sensor_msgs/CameraInfo`` describes.

    :param info: the message, of rclpy or of rosbags
    :param what: names the camera in error messages, ``the visible camera``
    :raises CalibrationError: not calibrated, another model, or a number of coefficients that the model has not
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
    """A camera from the YAML file that camera_calibration writes and camera_info_manager reads.

    :raises FileError: missing, no YAML, or another one
    :raises CalibrationError: see :func:`camera_from_info`
    """
    try:
        content: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(str(path), "a readable calibration file", error.strerror or error) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(str(path), "YAML", str(error).replace("\n", " ")) from error
    try:
        data = {name: tuple(map(float, content[f"{name}_matrix"]["data"])) for name in ("camera", "rectification",
                "projection")}  # fmt: skip
        distortion = tuple(map(float, content["distortion_coefficients"]["data"]))
        size = (int(content["image_width"]), int(content["image_height"]))
        model = str(content["distortion_model"])
    except (KeyError, TypeError, ValueError) as error:
        found = f"one without {error}" if isinstance(error, KeyError) else str(error)
        raise FileError(str(path), "a calibration file of camera_calibration", found) from error
    return _camera(what, size, model, distortion, data["camera"], data["rectification"], data["projection"])


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
        raise CalibrationError(what, "there (focal lengths above 0 in K)", "none", "calibrate the camera")
    coefficients = _coefficients(what, model, distortion)
    x, y, width, height = roi
    if not width or not height:
        width, height = size
    if x < 0 or y < 0 or x + width > size[0] or y + height > size[1]:
        raise CalibrationError(what, f"one whose roi lies within {size[0]} x {size[1]} pixels", roi)
    rotation = rectification if any(rectification) else tuple(np.eye(3).reshape(-1))
    square = np.reshape(rotation, (3, 3))
    if not np.allclose(square @ square.T, np.eye(3), atol=1e-3):
        raise CalibrationError(f"R in {what}", "a rotation matrix", list(rotation))
    wanted = np.delete(np.reshape(projection, (3, 4)), 3, 1)
    if not wanted[0, 0] and not wanted[1, 1]:  # a camera that is not rectified may leave P empty
        wanted = np.reshape(matrix, (3, 3))
    if wanted[0, 0] <= 0 or wanted[1, 1] <= 0 or abs(np.linalg.det(wanted)) < 1e-9:
        raise CalibrationError(f"P in {what}", "invertible, with focal lengths above 0", wanted.reshape(-1).tolist())
    # Pixels of the whole sensor to those sent: off the corner of the region, then binned (as image_geometry does it).
    sent = np.array([[1 / binning[0], 0, -x / binning[0]], [0, 1 / binning[1], -y / binning[1]], [0, 0, 1]])
    return Camera(
        width // binning[0],
        height // binning[1],
        FISHEYE if model in _FISHEYE_NAMES else model,
        tuple((sent @ np.reshape(matrix, (3, 3))).reshape(-1).tolist()),
        coefficients,
        rotation,
        tuple((sent @ wanted).reshape(-1).tolist()),
    )


def _coefficients(what: str, model: str, distortion: tuple[float, ...]) -> tuple[float, ...]:
    name = FISHEYE if model in _FISHEYE_NAMES else model
    # A fisheye's zeros are the ideal lens, whose pixels go by the angle; a pinhole has none.
    if not distortion or (name != FISHEYE and not any(distortion)):
        return ()
    if name not in _COEFFICIENTS:
        raise CalibrationError(f"the distortion model of {what}", f"one of {', '.join(_COEFFICIENTS)}", repr(model))
    if len(distortion) not in _COEFFICIENTS[name]:
        expected = f"{' or '.join(map(str, _COEFFICIENTS[name]))} coefficients for {name}"
        raise CalibrationError(what, f"one of {expected}", len(distortion))
    return distortion
