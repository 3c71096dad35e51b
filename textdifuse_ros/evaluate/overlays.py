"""Overlays of a visible and an infrared image, to judge their registration by eye."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.image.registration import compute_alignment
from textdifuse_ros.image.sheets import contact_sheet

INK = (255, 90, 0)


def overlay(visible: np.ndarray, infrared: np.ndarray) -> np.ndarray:
    """Draw the edges of the infrared image in orange over the visible luma.

    :param visible: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W], of the same size
    :returns: uint8 [H, W, 3] RGB
    """
    smooth = cv2.GaussianBlur(infrared, (0, 0), 1.2).astype(np.float32)
    strength = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    share = np.clip(strength / max(float(np.percentile(strength, 97)), 1.0), 0, 1)[..., None] ** 1.5
    ground = cv2.cvtColor(cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) * 0.8
    return np.rint(ground * (1 - share) + np.array(INK, np.float32) * share).astype(np.uint8)


def overlay_sheet(pairs: Sequence[tuple[np.ndarray, np.ndarray]], before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Render visible, infrared and the overlays before and after calibration, one row per pair.

    :param pairs: visible uint8 [H, W, 3] RGB and infrared uint8 [h, w]
    :param before: float64 [3, 3], homography from infrared to visible pixels before calibration
    :param after: float64 [3, 3], after calibration
    :returns: uint8 [H, W, 3] RGB
    """
    rows = [
        (visible, infrared, overlay(visible, _warp(visible, infrared, before)),
         overlay(visible, _warp(visible, infrared, after)))
        for visible, infrared in pairs
    ]  # fmt: skip
    return contact_sheet(rows, ("visible", "infrared", "before", "after"))


def _warp(visible: np.ndarray, infrared: np.ndarray, homography: np.ndarray) -> np.ndarray:
    config = SensorConfig(registration="homography", infrared_homography=tuple(homography.reshape(-1).tolist()))
    sizes = [(image.shape[1], image.shape[0]) for image in (visible, infrared)]
    return compute_alignment(config, sizes[0], sizes[1], None, None).apply(visible, infrared)[1]
