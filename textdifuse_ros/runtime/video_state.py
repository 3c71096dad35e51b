"""The video state: consecutive fused images flicker less, as sharp as before; without ROS and without PyTorch.

Only the low frequencies of the previous fused image are used. They are warped along the optical flow of the sources;
the difference to the current fused image is a change of brightness or color that the scene does not explain, and most
of it is removed. Detail always comes from the current image: there is no ghosting and no loss of sharpness. Where
either source differs from its warped predecessor (disocclusion, other motion, another illumination), nothing is
corrected; where most of the image differs, it is a scene cut and the state is reset. Rejected alternatives:
docs/adr/0006-video-state.md.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.fusion.result import FusionResult
from textdifuse_ros.image.grey import is_grey
from textdifuse_ros.image.thermal import to_uint8

LEAST_SIDE = 64
"""Minimum side [pixels]; smaller images are not changed, since OpenCV's optical flow crashes on tiny ones."""

LONGEST_GAP = 0.5
"""Maximum time between two images [s]; after a longer gap the state is reset."""

SHARE = 0.9
"""Share of an unexplained difference to the previous image that is removed."""

COARSE = 2.25
"""Standard deviation of the low-pass filter [pixels at half size]."""

AGREES, DIFFERS = 3.0, 12.0
"""Differences of a source to its predecessor [grey levels, mean of 10 x 10 pixels]: full trust up to the first, none
from the second on."""

LEAST_TRUST = 0.5
"""Edge-weighted mean trust below which the image follows a scene cut."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Moment:
    """One pair and its fused image, at half size.

    :ivar sources: luma of the visible image, and the infrared image, uint8 [h, w] each
    :ivar fused: float32 [h, w, 3] in [0, 255], the corrected image without emphasis
    :ivar size: height and width of the full-size image [pixels]
    :ivar stamp: of the pair [s], or None
    """

    sources: tuple[np.ndarray, np.ndarray]
    fused: np.ndarray
    size: tuple[int, int]
    stamp: float | None


class VideoState:
    """Removes flicker from the images of one stream, in their order; one caller at a time.

    :ivar trust: edge-weighted mean trust of the last image, in [0, 1]; 0 after a cut
    """

    def __init__(self) -> None:
        self._before: _Moment | None = None
        self.trust = 0.0

    def reset(self) -> None:
        """Forget the previous image: the next one is not changed."""
        self._before, self.trust = None, 0.0

    def save(self, path: Path) -> None:
        """Write the state, so that another run continues with the same bytes.

        :param path: file to write; nothing is written after a reset
        """
        if self._before is not None:
            stamp = np.nan if self._before.stamp is None else self._before.stamp
            visible, infrared = self._before.sources
            size = np.array(self._before.size)
            np.savez(path, visible=visible, infrared=infrared, fused=self._before.fused, size=size, stamp=stamp)

    def load(self, path: Path) -> None:
        """Load a state that :meth:`save` wrote; reset if there is no such file.

        :param path: file to read
        """
        self.reset()
        if path.is_file():
            with np.load(path) as known:
                height, width = map(int, known["size"])
                stamp = float(known["stamp"])
                sources = known["visible"], known["infrared"]
                self._before = _Moment(sources, known["fused"], (height, width), None if np.isnan(stamp) else stamp)

    def steady(
        self, visible: np.ndarray, infrared: np.ndarray, result: FusionResult, stamp: float | None = None
    ) -> FusionResult:
        """Remove the flicker of one fused image.

        The correction is computed from the plain image, without emphasis. Outside the emphasized objects the result
        is therefore byte-equal to the result without a text.

        :param visible: uint8 or uint16 [H, W, 3] RGB, the visible image that was fused
        :param infrared: uint8 or uint16 [H, W], likewise
        :param result: of their fusion
        :param stamp: of the pair [s]; a step back, or a gap of more than 0.5 s, resets the state
        :returns: the result with corrected images, and ``video`` (:attr:`trust`) in its provenance. The images are
            unchanged at the beginning, after a scene cut, and with a side below 64 pixels
        """
        height, width = infrared.shape
        if min(height, width) < LEAST_SIDE:
            self.reset()
            return result
        now = _moment(visible, infrared, result, stamp)
        before, self._before, self.trust = self._before, now, 0.0
        correction = None
        if before is not None and _follows(before, now):
            correction = self._correction(before, now)
        result = dataclasses.replace(result, provenance={**result.provenance, "video": round(self.trust, 3)})
        if correction is None:
            return result
        if is_grey(visible):  # the previous image may have had color
            correction = correction.mean(2, keepdims=True)
        self._before = dataclasses.replace(now, fused=now.fused + correction)
        whole = np.asarray(cv2.resize(correction, (width, height), interpolation=cv2.INTER_LINEAR))
        whole = whole if whole.ndim == 3 else np.repeat(whole[..., None], 3, 2)
        plain = None if result.plain is None else _added(result.plain, whole)
        return dataclasses.replace(result, image=_added(result.image, whole), plain=plain)

    def _correction(self, before: _Moment, now: _Moment) -> np.ndarray | None:
        """The correction to add, at half size, float32 [h, w, 3] [grey levels]; None after a scene cut."""
        x, y = _previous_positions(before.sources, now.sources)
        trust = _trust(before.sources, now.sources, x, y)
        total = _mean_trust(trust, now.sources)
        if total < LEAST_TRUST:
            return None
        self.trust = total
        moved = cv2.remap(before.fused, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        trust = trust[..., None]
        return SHARE * cv2.GaussianBlur((moved - now.fused) * trust, (0, 0), COARSE)


def _moment(visible: np.ndarray, infrared: np.ndarray, result: FusionResult, stamp: float | None) -> _Moment:
    """Reduce a pair and its fused image to half size."""
    height, width = infrared.shape
    half = (width + 1) // 2, (height + 1) // 2
    color, thermal = (cv2.resize(to_uint8(image), half, interpolation=cv2.INTER_AREA) for image in (visible, infrared))
    sources = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), thermal
    plain = result.image if result.plain is None else result.plain
    fused = cv2.resize(plain, half, interpolation=cv2.INTER_AREA).astype(np.float32)
    return _Moment(sources, fused, (height, width), stamp)


def _added(image: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """Add a correction; rounded and clipped to [0, 255]."""
    return np.asarray(cv2.add(image, correction, dtype=cv2.CV_8U))


def _follows(before: _Moment, now: _Moment) -> bool:
    """Whether two images have the same size and stamps close enough to be compared."""
    if before.size != now.size:
        return False
    return before.stamp is None or now.stamp is None or 0 < now.stamp - before.stamp <= LONGEST_GAP


def _previous_positions(
    before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Position of each pixel in the previous image: x and y, float32 [h, w] each [pixels].

    Dense inverse search (Kroeger et al., ECCV 2016; OpenCV's fastest preset) on the pixel-wise maximum of both
    sources, which has the edges of either.
    """
    # Created each time: OpenCV crashes when an instance is reused with another size.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    start, end = cv2.max(*now), cv2.max(*before)
    flow = np.asarray(search.calc(start, end, np.zeros((*start.shape, 2), np.float32)))
    height, width = start.shape
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return x, y


def _trust(
    before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Trust of each pixel, float32 [h, w] in [0, 1], by the source that differs more from its warped predecessor.

    The signed differences are averaged, so that noise cancels out.
    """
    worst: np.ndarray = np.zeros(x.shape, np.float32)
    for source, earlier in zip(now, before, strict=True):
        # Positions outside the previous image differ from every value.
        moved = cv2.remap(earlier.astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=-1000.0)
        worst = np.maximum(worst, np.abs(cv2.blur(source - moved, (5, 5))))
    return np.clip((DIFFERS - worst) / (DIFFERS - AGREES), 0, 1)


def _mean_trust(trust: np.ndarray, sources: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean trust, weighted by edge strength: a dark sky would agree with any other dark sky."""
    image = cv2.blur(cv2.max(*sources), (3, 3))
    across, down = (cv2.Sobel(image, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    weight = np.abs(across) + np.abs(down) + 1  # avoids a division by zero in uniform images
    return float((trust * weight).sum() / weight.sum())
