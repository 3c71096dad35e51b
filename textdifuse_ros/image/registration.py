"""Rectification and registration: the mapping from unaligned, distorted images to an aligned pair.

The aligned pair has the frame of the visible camera, rectified if configured. Rectification and registration of the
infrared image are combined in one mapping, so that it is interpolated only once.

Outside the infrared camera's view, and where the infrared image has no value, it is filled from the visible image
(:func:`.validity.fill_from_visible`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import CalibrationError, ImageError
from textdifuse_ros.image.camera import Camera, pinhole_rays
from textdifuse_ros.image.validity import fill_from_visible
from textdifuse_ros.sensors import INFRARED, VISIBLE

Size = tuple[int, int]
"""Width and height [pixels]."""

_GEOMETRY = (
    "rectify",
    "registration",
    "infrared_homography",
    "homography_sizes",
    "infrared_rotation",
    "infrared_translation",
    "registration_depth",
    "registration_feather",
)
"""The parameters that the mappings depend on; a change of others does not recompute them."""


@dataclass(frozen=True)
class Warp:
    """A mapping of a source image to a target frame.

    :ivar x: float32 [H, W], source column of each target pixel
    :ivar y: float32 [H, W], source row of each target pixel
    :ivar covered: bool [H, W], the source's view; None if it covers the frame
    """

    x: np.ndarray
    y: np.ndarray
    covered: np.ndarray | None

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Map an image to the target frame; outside the source's view its border is replicated.

        :param image: uint8 or uint16 [h, w] or [h, w, 3]
        :returns: [H, W] or [H, W, 3], same data type
        """
        return cv2.remap(image, self.x, self.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    def apply_mask(self, valid: np.ndarray | None) -> np.ndarray | None:
        """Map the pixels that have a value to the target frame.

        :param valid: bool [h, w], or None for all
        :returns: bool [H, W], False also outside the source's view; None if all have a value
        """
        if valid is None:
            return self.covered
        share = cv2.remap(valid.astype(np.float32), self.x, self.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        whole = share > 0.99
        return whole if self.covered is None else whole & self.covered


@dataclass(frozen=True)
class Alignment:
    """The mappings of a pair.

    :ivar visible: mapping of the visible image; None leaves it unchanged
    :ivar infrared: mapping of the infrared image; None leaves it unchanged
    :ivar feather: distance over which the fill from the visible image fades to its own level [pixels]
    """

    visible: Warp | None
    infrared: Warp | None
    feather: int

    def apply(
        self, visible: np.ndarray, infrared: np.ndarray, valid: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Align a pair; infrared pixels without a value are filled from the visible image.

        :param visible: uint8 or uint16 [H, W, 3] RGB
        :param infrared: uint8 [h, w], with its pixels without a value filled
        :param valid: bool [h, w], the infrared pixels with a value; None for all
        :returns: visible image of the same type and shape, infrared image uint8 [H, W]
        """
        if self.visible is not None:
            visible = self.visible.apply(visible)
        if self.infrared is not None:
            infrared, valid = self.infrared.apply(infrared), self.infrared.apply_mask(valid)
        if valid is not None:
            infrared = fill_from_visible(infrared, valid, visible, self.feather)
        return visible, infrared


def compute_alignment(
    config: SensorConfig, visible: Size, infrared: Size, visible_camera: Camera | None, infrared_camera: Camera | None
) -> Alignment:
    """Compute the mappings for images of given sizes; recent results are cached.

    :param config: parameters of rectification and registration
    :param visible: width and height of the visible image [pixel]
    :param infrared: width and height of the infrared image [pixel]
    :param visible_camera: calibration; required to rectify and for registration by extrinsics
    :param infrared_camera: likewise
    :raises CalibrationError: a calibration is missing, or the views do not overlap
    :raises ImageError: the sizes differ without registration, or do not match ``homography_sizes``
    """
    required = config.rectify or config.registration == "extrinsics"
    cameras = (visible_camera, infrared_camera) if required else (None, None)
    geometry = SensorConfig(**{name: getattr(config, name) for name in _GEOMETRY})
    return _compute_alignment(geometry, visible, infrared, *cameras)


@lru_cache(maxsize=4)
def _compute_alignment(
    config: SensorConfig, visible: Size, infrared: Size, visible_camera: Camera | None, infrared_camera: Camera | None
) -> Alignment:
    if config.registration == "none" and visible != infrared:
        raise ImageError(
            "the infrared image",
            f"as large as the visible one ({visible[0]} x {visible[1]} pixels)",
            f"{infrared[0]} x {infrared[1]}",
            "set registration and find the homography by textdifuse calibrate",
        )
    if config.registration == "homography":
        for sensor, size, expected in (
            (VISIBLE, visible, config.homography_sizes[:2]),
            (INFRARED, infrared, config.homography_sizes[2:]),
        ):
            if any(required and required != actual for required, actual in zip(expected, size, strict=True)):
                raise ImageError(
                    f"the {sensor} image",
                    f"of the size in homography_sizes ({expected[0]} x {expected[1]} pixels)",
                    f"{size[0]} x {size[1]}",
                    "calibrate at the sizes that the drivers send",
                )
    if config.rectify or config.registration == "extrinsics":
        cameras = require_calibration(visible_camera, VISIBLE), require_calibration(infrared_camera, INFRARED)
        return _calibrated(config, visible, infrared, *cameras)
    if config.registration == "none":
        return Alignment(None, None, config.registration_feather)
    pixels = apply_homography(np.linalg.inv(_square(config.infrared_homography)), _grid(visible))
    return Alignment(None, _warp(pixels, visible, infrared), config.registration_feather)


def require_calibration(camera: Camera | None, sensor: str) -> Camera:
    """Return the camera's calibration, or raise if it is missing.

    :param camera: calibration, or None
    :param sensor: ``visible`` or ``infrared``
    :raises CalibrationError: ``camera`` is None
    """
    if camera is None:
        remedy = f"publish {sensor}/camera_info, or set {sensor}_calibration to a file"
        raise CalibrationError(f"the calibration of the {sensor} camera", "available", "none yet", remedy)
    return camera


@lru_cache(maxsize=4)
def compute_rectification(camera: Camera) -> Warp | None:
    """Compute the mapping that rectifies a camera's images; recent results are cached.

    :param camera: calibration
    :returns: None if rectification would leave the images unchanged
    """
    size = (camera.width, camera.height)
    return None if camera.is_plain else _warp(camera.distort(_grid(size)), size, size)


def _calibrated(
    config: SensorConfig, visible: Size, infrared: Size, visible_camera: Camera, infrared_camera: Camera
) -> Alignment:
    """Compute the mappings if distortion or extrinsics are involved."""
    grid = _grid(visible)
    rectified = compute_rectification(visible_camera) if config.rectify else None
    if config.registration == "extrinsics":
        pixels = _by_extrinsics(config, grid, visible_camera, infrared_camera)
    else:
        inverse = np.linalg.inv(_square(config.infrared_homography))
        pixels = grid if config.registration == "none" else apply_homography(inverse, grid)
        if not infrared_camera.is_plain:
            pixels = infrared_camera.distort(pixels)
        elif config.registration == "none":
            return Alignment(rectified, None, config.registration_feather)
    return Alignment(rectified, _warp(pixels, visible, infrared), config.registration_feather)


def _by_extrinsics(config: SensorConfig, grid: np.ndarray, visible: Camera, infrared: Camera) -> np.ndarray:
    """Project the plane at ``registration_depth`` in front of the visible camera to infrared pixels."""
    if config.rectify:
        # The transposed matrix rotates back to the optical frame.
        rays = pinhole_rays(grid, _square(visible.projection)) @ _square(visible.rectification)
    else:
        rays = visible.rays(grid)
    points = (config.registration_depth * rays - config.infrared_translation) @ _square(config.infrared_rotation)
    return infrared.project(points)


def apply_homography(homography: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Map pixels by a homography.

    :param homography: float64 [3, 3]
    :param pixels: float64 [N, 2], (x, y)
    :returns: float64 [N, 2]; NaN behind the camera
    """
    mapped = np.column_stack((pixels, np.ones(len(pixels)))) @ homography.T
    # The sign of a homography is arbitrary; most of the image lies in front of the camera.
    mapped *= 1.0 if np.median(mapped[:, 2]) >= 0 else -1.0
    mapped[mapped[:, 2] <= 1e-9] = np.nan
    return mapped[:, :2] / mapped[:, 2:]


def _square(values: tuple[float, ...]) -> np.ndarray:
    return np.reshape(values, (3, 3))


def _grid(size: Size) -> np.ndarray:
    """Coordinates (x, y) of all pixels of a frame, float64 [H * W, 2]."""
    y, x = np.mgrid[: size[1], : size[0]]
    return np.column_stack((x.reshape(-1), y.reshape(-1))).astype(np.float64)


def _warp(pixels: np.ndarray, frame: Size, source: Size) -> Warp:
    """Create the mapping from source ``pixels`` [H * W, 2], one for each pixel of the frame."""
    width, height = frame
    with np.errstate(invalid="ignore"):
        covered = np.all((pixels >= -0.5) & (pixels <= np.array(source) - 0.5), axis=1).reshape(height, width)
    if not covered.any():
        raise CalibrationError("the registration", "one with overlapping views", "no overlap", "calibrate again")
    pixels = np.nan_to_num(pixels, nan=-1.0).clip(-1e4, 3e4).astype(np.float32).reshape(height, width, 2)
    part = None if covered.all() else covered
    return Warp(np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1]), part)
