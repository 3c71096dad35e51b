"""From two unaligned, distorted images to an aligned pair: where each pixel of the result lies in its source.

The result has the frame of the visible camera: its size, rectified where that is asked for. Rectification and
registration of the infrared image are one mapping, so that it is interpolated once.

What lies outside the infrared camera's view has no infrared. There the visible's luma stands in for it, so that the
fusion has the visible alone; the border of the infrared image is carried on outwards and fades into it, lest it
appear as an edge of the scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import CalibrationError, ImageError
from textdifuse_ros.image.camera import Camera, pinhole_rays

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
"""What the mappings hang on; they outlive a change of anything else."""


@dataclass(frozen=True)
class Warp:
    """One image onto a frame.

    :ivar x: float32 [H, W], column of the source that each pixel shows
    :ivar y: float32 [H, W], its row
    :ivar weight: float32 [H, W], 1 in the source's view, falling to 0 outside; None where all is seen
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None

    def apply(self, image: np.ndarray, outside: np.ndarray | None = None) -> np.ndarray:
        """The image on the frame.

        :param image: uint8 or uint16 [h, w] or [h, w, 3]
        :param outside: of the same type, [H, W]: what is shown beyond the source's view; its border where None
        """
        moved = cv2.remap(image, self.x, self.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        if self.weight is None or outside is None:
            return moved
        mixed = self.weight * moved + (1 - self.weight) * outside
        return np.rint(mixed).astype(moved.dtype)


@dataclass(frozen=True)
class Alignment:
    """What is done to both images of a pair; None leaves one as it is."""

    visible: Warp | None
    infrared: Warp | None

    def apply(self, visible: np.ndarray, infrared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The aligned pair.

        :param visible: uint8 or uint16 [H, W, 3] RGB
        :param infrared: uint8 [h, w]
        :returns: visible as before, infrared uint8 [H, W]
        """
        if self.visible is not None:
            visible = self.visible.apply(visible)
        if self.infrared is not None:
            infrared = self.infrared.apply(infrared, None if self.infrared.weight is None else _luma(visible))
        return visible, infrared


def compute_alignment(
    config: SensorConfig, visible: Size, infrared: Size, visible_camera: Camera | None, infrared_camera: Camera | None
) -> Alignment:
    """The mappings for images of these sizes; the last ones are kept.

    :param visible_camera: needed where ``config`` says rectify or extrinsics, likewise ``infrared_camera``
    :raises CalibrationError: a camera is missing, or does not see the visible's view
    :raises ImageError: the sizes differ and nothing registers them
    """
    needed = config.rectify or config.registration == "extrinsics"
    cameras = (visible_camera, infrared_camera) if needed else (None, None)
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
            "set registration and let textdifuse calibrate find the homography",
        )
    if config.registration == "homography":
        for stream, size, due in (
            ("visible", visible, config.homography_sizes[:2]),
            ("infrared", infrared, config.homography_sizes[2:]),
        ):
            if any(given and given != there for given, there in zip(due, size, strict=True)):
                raise ImageError(
                    f"the {stream} image",
                    f"as homography_sizes says ({due[0]} x {due[1]} pixels)",
                    f"{size[0]} x {size[1]}",
                    "calibrate at the sizes that the drivers send",
                )
    if config.rectify or config.registration == "extrinsics":
        cameras = require_calibration(visible_camera, "visible"), require_calibration(infrared_camera, "infrared")
        return _calibrated(config, visible, infrared, *cameras)
    if config.registration == "none":
        return Alignment(None, None)
    pixels = apply_homography(np.linalg.inv(_square(config.infrared_homography)), _grid(visible))
    return Alignment(None, _warp(pixels, visible, infrared, config.registration_feather))


def require_calibration(camera: Camera | None, stream: str) -> Camera:
    """The camera, if it is there.

    :param stream: ``visible`` or ``infrared``
    :raises CalibrationError: it is not
    """
    if camera is None:
        remedy = f"publish {stream}/camera_info, or name a file by {stream}_calibration"
        raise CalibrationError(f"the calibration of the {stream} camera", "there", "none yet", remedy)
    return camera


@lru_cache(maxsize=4)
def compute_rectification(camera: Camera) -> Warp | None:
    """The mapping that undistorts a camera's images; None where that would leave them as they are."""
    size = (camera.width, camera.height)
    return None if camera.is_plain else _warp(camera.distort(_grid(size)), size, size, 0)


def _calibrated(
    config: SensorConfig, visible: Size, infrared: Size, visible_camera: Camera, infrared_camera: Camera
) -> Alignment:
    """The mappings where distortion or extrinsics come in."""
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
            return Alignment(rectified, None)
    return Alignment(rectified, _warp(pixels, visible, infrared, config.registration_feather))


def _by_extrinsics(config: SensorConfig, grid: np.ndarray, visible: Camera, infrared: Camera) -> np.ndarray:
    """Infrared pixels of the points of the plane that lies at a distance before the visible camera, facing it."""
    if config.rectify:
        # By the transposed matrix: back to the optical frame.
        rays = pinhole_rays(grid, _square(visible.projection)) @ _square(visible.rectification)
    else:
        rays = visible.rays(grid)
    points = (config.registration_depth * rays - config.infrared_translation) @ _square(config.infrared_rotation)
    return infrared.project(points)


def apply_homography(homography: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Pixels [N, 2] through a homography [3, 3]; NaN where they come from behind the camera."""
    moved = np.column_stack((pixels, np.ones(len(pixels)))) @ homography.T
    # The sign of a homography is free; in front of the camera is where most of the image lies.
    moved *= 1.0 if np.median(moved[:, 2]) >= 0 else -1.0
    moved[moved[:, 2] <= 1e-9] = np.nan
    return moved[:, :2] / moved[:, 2:]


def _square(values: tuple[float, ...]) -> np.ndarray:
    return np.reshape(values, (3, 3))


def _grid(size: Size) -> np.ndarray:
    """All pixels of a frame, float64 [H * W, 2], (x, y)."""
    y, x = np.mgrid[: size[1], : size[0]]
    return np.column_stack((x.reshape(-1), y.reshape(-1))).astype(np.float64)


def _warp(pixels: np.ndarray, frame: Size, source: Size, feather: int) -> Warp:
    """The mapping that shows ``pixels`` [N, 2] of a source of a size, row by row, on a frame."""
    width, height = frame
    with np.errstate(invalid="ignore"):
        seen = np.all((pixels >= -0.5) & (pixels <= np.array(source) - 0.5), axis=1).reshape(height, width)
    if not seen.any():
        found = "nothing of it in common"
        raise CalibrationError("the registration", "one that brings the images over one another", found,
                               "calibrate anew")  # fmt: skip
    pixels = np.nan_to_num(pixels, nan=-1.0).clip(-1e4, 3e4).astype(np.float32).reshape(height, width, 2)
    weight = None if seen.all() else _soft(seen, feather)
    return Warp(np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1]), weight)


def _soft(seen: np.ndarray, feather: int) -> np.ndarray:
    """1 where seen, falling to 0 over ``feather`` pixels outside."""
    distance = cv2.distanceTransform((~seen).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = np.clip(distance / (feather + 1), 0, 1)
    return (0.5 + 0.5 * np.cos(math.pi * share)).astype(np.float32)


def _luma(visible: np.ndarray) -> np.ndarray:
    """BT.601 luma of uint8 or uint16 [H, W, 3] RGB, uint8 [H, W]."""
    luma = cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)
    return luma if luma.dtype == np.uint8 else ((luma.astype(np.uint32) + 128) // 257).astype(np.uint8)
