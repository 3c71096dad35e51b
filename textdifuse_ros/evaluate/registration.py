"""What registration gives back of a fusion whose infrared camera was moved: a measurement on aligned pairs.

The infrared images of aligned pairs are moved by a known displacement, the homography is estimated from the moved
pairs alone (:mod:`textdifuse_ros.image.calibration`), and the pairs are fused aligned, moved, and registered. Each
result is compared with the *aligned* sources by Qabf. What the displacement pushes out of the infrared image is lost;
the figures over the whole image contain that loss, those of the common view do not.
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
"""Aligned: visible uint8 [H, W, 3] RGB, infrared uint8 [H, W]."""


@dataclass(frozen=True)
class Recovery:
    """Means over the pairs.

    :ivar displacement: in words
    :ivar error_px: largest distance over the image between the homography found and the true one [pixels]
    :ivar qabf: ``aligned``, ``moved``, ``registered``, over the whole image
    :ivar qabf_common: the same over what both cameras see
    """

    displacement: str
    model: str
    error_px: float
    qabf: dict[str, float]
    qabf_common: dict[str, float]

    @property
    def loss(self) -> float:
        """Share of Qabf that is lost after registration, over the whole image."""
        return 1 - self.qabf["registered"] / self.qabf["aligned"]


def parse_displacement(text: str, size: tuple[int, int]) -> np.ndarray:
    """The homography moved pixel -> aligned pixel of ``DX,DY[,DEGREES[,SCALE]]``.

    :param size: width and height, about whose center is turned and scaled [pixels]
    :raises ConfigError: no such numbers
    """
    try:
        x, y, *turned = (float(part) for part in text.split(","))
        degrees, scale = (*turned, *(0.0, 1.0)[len(turned) :])
    except ValueError as error:
        raise ConfigError("--check", "DX,DY[,DEGREES[,SCALE]]", repr(text)) from error
    turn = cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), degrees, scale)
    if not np.isfinite(turn).all() or scale <= 0 or not math.isfinite(x + y):
        raise ConfigError("--check", "finite numbers, the scale above 0", repr(text))
    return np.vstack((turn + np.array([[0, 0, x], [0, 0, y]]), [0, 0, 1]))


def recover(
    pairs: Sequence[Pair],
    displacement: np.ndarray,
    fuser: Fuser,
    transform: str = "auto",
    words: str = "",
    progress: Callable[[], object] = lambda: None,
    aligned: dict[int, np.ndarray] | None = None,
) -> Recovery:
    """Displace, estimate, register, fuse and measure.

    :param displacement: see :func:`parse_displacement`
    :param transform: as ``model`` of :func:`.estimate_homography`
    :param progress: called after each pair
    :param aligned: fused aligned pairs by index, filled where empty; to be handed on to the next displacement
    """
    back = np.linalg.inv(displacement)
    moved = [_moved(infrared, back) for _, infrared in pairs]
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
        inner = _inner(size, displacement)
        greys = [cv2.cvtColor(result, cv2.COLOR_RGB2GRAY) for result in results]
        whole.append([qabf(grey, *sources) for grey in greys])
        common.append([qabf(grey[inner], *(source[inner] for source in sources)) for grey in greys])
        progress()
    return Recovery(words, found.model, _error(displacement, found.homography, pairs), _means(whole), _means(common))


def _moved(infrared: np.ndarray, back: np.ndarray) -> np.ndarray:
    size = (infrared.shape[1], infrared.shape[0])
    return cv2.warpPerspective(infrared, back, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _corners(size: tuple[int, int]) -> np.ndarray:
    return np.array([[x, y] for x in (0, size[0] - 1) for y in (0, size[1] - 1)], np.float64)


def _inner(size: tuple[int, int], displacement: np.ndarray) -> tuple[slice, slice]:
    """The image without a border as wide as its corners are moved."""
    corners = _corners(size)
    x, y = np.ceil(np.abs(apply_homography(displacement, corners) - corners).max(0)).astype(int)
    return slice(y, size[1] - y), slice(x, size[0] - x)


def _error(true: np.ndarray, found: np.ndarray, pairs: Sequence[Pair]) -> float:
    corners = np.concatenate([_corners((visible.shape[1], visible.shape[0])) for visible, _ in pairs])
    return round(float(np.hypot(*(apply_homography(found @ np.linalg.inv(true), corners) - corners).T).max()), 3)


def _means(rows: list[list[float]]) -> dict[str, float]:
    return dict(zip(("aligned", "moved", "registered"), np.nanmean(rows, 0).round(5).tolist(), strict=True))
