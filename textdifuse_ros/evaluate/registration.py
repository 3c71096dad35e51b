"""How much fusion quality registration recovers, measured on aligned pairs.

The infrared images of aligned pairs are displaced by a known homography, which is then estimated from the displaced
pairs alone (:mod:`textdifuse_ros.image.calibration`). The pairs are fused aligned, displaced, and registered, and each
result is compared with the *aligned* sources by Qabf. Image content displaced out of view is lost: figures over the
whole image include that loss, those over the common view do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.image.calibration import estimate_homography
from textdifuse_ros.image.registration import apply_homography, compute_alignment
from textdifuse_ros.metrics.detail import qabf

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

Pair = tuple[np.ndarray, np.ndarray]
"""An aligned pair: visible uint8 [H, W, 3] RGB, infrared uint8 [H, W]."""


@dataclass(frozen=True)
class Recovery:
    """Results of one displacement, means over the pairs.

    :ivar displacement: the displacement as given by the user
    :ivar model: the transform that was fitted
    :ivar error_px: largest distance over the image between the estimated and the true homography [pixels]
    :ivar qabf: ``aligned``, ``moved`` and ``registered``, over the whole image
    :ivar qabf_common: the same over the common view of both cameras
    """

    displacement: str
    model: str
    error_px: float
    qabf: dict[str, float]
    qabf_common: dict[str, float]

    @property
    def loss(self) -> float:
        """Share of Qabf lost after registration, over the whole image."""
        return 1 - self.qabf["registered"] / self.qabf["aligned"]


def parse_displacement(text: str, size: tuple[int, int]) -> np.ndarray:
    """Parse a displacement to the homography from displaced to aligned pixels, float64 [3, 3].

    :param text: ``DX,DY[,DEGREES[,SCALE]]``
    :param size: width and height; rotation and scale are about the image center [pixels]
    :raises ConfigError: not such numbers
    """
    try:
        x, y, *rest = (float(part) for part in text.split(","))
        degrees, scale = (*rest, *(0.0, 1.0)[len(rest) :])
    except ValueError as error:
        raise ConfigError("--check", "DX,DY[,DEGREES[,SCALE]]", repr(text)) from error
    rotation = cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), degrees, scale)
    if not np.isfinite(rotation).all() or scale <= 0 or not math.isfinite(x + y):
        raise ConfigError("--check", "finite numbers, the scale above 0", repr(text))
    return np.vstack((rotation + np.array([[0, 0, x], [0, 0, y]]), [0, 0, 1]))


def measure_recovery(
    pairs: Sequence[Pair],
    displacement: np.ndarray,
    fuser: Fuser,
    transform: str = "auto",
    label: str = "",
    progress: Callable[[], object] = lambda: None,
    aligned: dict[int, np.ndarray] | None = None,
) -> Recovery:
    """Displace, estimate, register, fuse and measure.

    :param pairs: aligned pairs
    :param displacement: float64 [3, 3], see :func:`parse_displacement`
    :param fuser: the model
    :param transform: ``model`` of :func:`.estimate_homography`
    :param label: name of the displacement in the result
    :param progress: called once per pair
    :param aligned: cache of the fused aligned pairs by index; pass the same dictionary for every displacement
    :raises CalibrationError: no homography aligns the images
    """
    back = np.linalg.inv(displacement)
    moved = [_displace(infrared, back) for _, infrared in pairs]
    lumas = [cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY) for visible, _ in pairs]
    found = estimate_homography(list(zip(lumas, moved, strict=True)), transform)
    config = SensorConfig(registration="homography", infrared_homography=tuple(found.homography.reshape(-1).tolist()))
    aligned = {} if aligned is None else aligned
    whole: list[list[float]] = []
    common: list[list[float]] = []
    for index, ((visible, infrared), other) in enumerate(zip(pairs, moved, strict=True)):
        size = (visible.shape[1], visible.shape[0])
        _, registered = compute_alignment(config, size, size, None, None).apply(visible, other)
        if index not in aligned:
            aligned[index] = fuser.fuse(visible, infrared).image
        results = [aligned[index], fuser.fuse(visible, other).image, fuser.fuse(visible, registered).image]
        sources = lumas[index], infrared
        inner = _common_view(size, displacement)
        greys = [cv2.cvtColor(result, cv2.COLOR_RGB2GRAY) for result in results]
        whole.append([qabf(grey, *sources) for grey in greys])
        common.append([qabf(grey[inner], *(source[inner] for source in sources)) for grey in greys])
        progress()
    return Recovery(label, found.model, _error(displacement, found.homography, pairs), _means(whole), _means(common))


def _displace(infrared: np.ndarray, back: np.ndarray) -> np.ndarray:
    size = (infrared.shape[1], infrared.shape[0])
    return cv2.warpPerspective(infrared, back, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _corners(size: tuple[int, int]) -> np.ndarray:
    return np.array([[x, y] for x in (0, size[0] - 1) for y in (0, size[1] - 1)], np.float64)


def _common_view(size: tuple[int, int], displacement: np.ndarray) -> tuple[slice, slice]:
    """Return the image without a border as wide as the displacement of its corners."""
    corners = _corners(size)
    x, y = np.ceil(np.abs(apply_homography(displacement, corners) - corners).max(0)).astype(int)
    return slice(y, size[1] - y), slice(x, size[0] - x)


def _error(true: np.ndarray, estimated: np.ndarray, pairs: Sequence[Pair]) -> float:
    corners = np.concatenate([_corners((visible.shape[1], visible.shape[0])) for visible, _ in pairs])
    return round(float(np.hypot(*(apply_homography(estimated @ np.linalg.inv(true), corners) - corners).T).max()), 3)


def _means(rows: list[list[float]]) -> dict[str, float]:
    return dict(zip(("aligned", "moved", "registered"), np.nanmean(rows, 0).round(5).tolist(), strict=True))
