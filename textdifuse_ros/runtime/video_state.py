"""The video state: consecutive fused images flicker less, as sharp as before; without ROS and without PyTorch.

Of the fused image before only its coarse part is carried on. Moved along the optical flow of the sources it tells how
much brighter, darker or differently colored this one came out for no reason of the scene's; that is taken back in
part. Detail is always this image's own, so nothing old shows sharply, and sharpness stays what it was. Where either
source does not agree with what it was before (hidden until now, moving otherwise, lit anew) nothing is carried on, and
where most of the image does not, it is a cut and the state is reset. What was tried beside it:
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
"""An image with a shorter side [pixels] is left as it is: OpenCV's optical flow crashes on half of much less."""

LONGEST_GAP = 0.5
"""Images further apart than this [s] have nothing to do with one another."""

SHARE = 0.9
"""Of a difference to the image before, so much is taken back."""

COARSE = 2.25
"""Standard deviation of what is coarse [pixels of half the size]."""

AGREES, DIFFERS = 3.0, 12.0
"""Differences of a source to itself before [grey levels, mean of 10 x 10 pixels]: trusted up to the first, and not at
all from the second on."""

LEAST_TRUST = 0.5
"""Mean trust, edges counting more, below which the image is one after a cut."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Moment:
    """One image at half the size.

    :ivar sources: uint8 [h, w], luma of the visible, and the infrared
    :ivar fused: float32 [h, w, 3] in 0 .. 255, as it was given out, without what a text made stand out
    :ivar size: height and width of the image itself [pixels]
    :ivar stamp: [s], or None
    """

    sources: tuple[np.ndarray, np.ndarray]
    fused: np.ndarray
    size: tuple[int, int]
    stamp: float | None


class VideoState:
    """Steadies the images of one stream, in their order; one caller at a time.

    :ivar trust: how much of the last image could be told from the one before, 0 .. 1; 0 after a cut
    """

    def __init__(self) -> None:
        self._before: _Moment | None = None
        self.trust = 0.0

    def reset(self) -> None:
        """Forget: the next image comes out as it is."""
        self._before, self.trust = None, 0.0

    def save(self, path: Path) -> None:
        """Write the state, so that another run continues with the same bytes.

        :param path: of the file to write
        """
        if self._before is not None:
            stamp = np.nan if self._before.stamp is None else self._before.stamp
            visible, infrared = self._before.sources
            size = np.array(self._before.size)
            np.savez(path, visible=visible, infrared=infrared, fused=self._before.fused, size=size, stamp=stamp)

    def load(self, path: Path) -> None:
        """Continue from what :meth:`save` wrote; reset where there is no such file.

        :param path: of the file
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
        """Steady one fused image.

        The correction comes from the plain image alone, and is the same everywhere whatever stands out: outside the
        objects the image stays that without a text, byte for byte.

        :param visible: uint8 or uint16 [H, W, 3] RGB, the sources that were fused
        :param infrared: uint8 or uint16 [H, W]
        :param result: of a fusion, of the sources' size
        :param stamp: of the pair [s]; time that goes back, or a gap of more than half a second, resets the state
        :returns: with another image, and ``video`` (:attr:`trust`) in its provenance; the very same bytes at the
            beginning, after a cut, and for images with a side below 64 pixels
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
        if is_grey(visible):  # the image before may have had color
            correction = correction.mean(2, keepdims=True)
        self._before = dataclasses.replace(now, fused=now.fused + correction)
        whole = np.asarray(cv2.resize(correction, (width, height), interpolation=cv2.INTER_LINEAR))
        whole = whole if whole.ndim == 3 else np.repeat(whole[..., None], 3, 2)
        plain = None if result.plain is None else _added(result.plain, whole)
        return dataclasses.replace(result, image=_added(result.image, whole), plain=plain)

    def _correction(self, before: _Moment, now: _Moment) -> np.ndarray | None:
        """What is to be added at half the size, float32 [h, w, 3] [grey levels]; None after a cut."""
        x, y = _places(before.sources, now.sources)
        trust = _trust(before.sources, now.sources, x, y)
        total = _total(trust, now.sources)
        if total < LEAST_TRUST:
            return None
        self.trust = total
        moved = cv2.remap(before.fused, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        trust = trust[..., None]
        return SHARE * cv2.GaussianBlur((moved - now.fused) * trust, (0, 0), COARSE)


def _moment(visible: np.ndarray, infrared: np.ndarray, result: FusionResult, stamp: float | None) -> _Moment:
    height, width = infrared.shape
    half = (width + 1) // 2, (height + 1) // 2
    color, thermal = (cv2.resize(to_uint8(image), half, interpolation=cv2.INTER_AREA) for image in (visible, infrared))
    sources = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), thermal
    plain = result.image if result.plain is None else result.plain
    fused = cv2.resize(plain, half, interpolation=cv2.INTER_AREA).astype(np.float32)
    return _Moment(sources, fused, (height, width), stamp)


def _added(image: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """Rounded, and held in 0 .. 255."""
    return np.asarray(cv2.add(image, correction, dtype=cv2.CV_8U))


def _follows(before: _Moment, now: _Moment) -> bool:
    if before.size != now.size:
        return False
    return before.stamp is None or now.stamp is None or 0 < now.stamp - before.stamp <= LONGEST_GAP


def _places(before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel was before, float32 [h, w] twice, x and y [pixels].

    Dense inverse search (Kroeger et al., ECCV 2016; OpenCV's fastest preset) on the brighter of both sources, which
    has the edges of either.
    """
    # A new one each time: OpenCV's crashes when it is used again with another size.
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
    """How surely each pixel is what was there before, float32 [h, w] in [0, 1]: by the source that differs more.

    The differences are averaged, sign and all, so that noise does not count.
    """
    worst: np.ndarray = np.zeros(x.shape, np.float32)
    for source, earlier in zip(now, before, strict=True):
        # What lies outside the image before differs from everything.
        moved = cv2.remap(earlier.astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=-1000.0)
        worst = np.maximum(worst, np.abs(cv2.blur(source - moved, (5, 5))))
    return np.clip((DIFFERS - worst) / (DIFFERS - AGREES), 0, 1)


def _total(trust: np.ndarray, sources: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean trust, every pixel counting as its edge does: dark sky agrees with any dark sky."""
    image = cv2.blur(cv2.max(*sources), (3, 3))
    across, down = (cv2.Sobel(image, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    weight = np.abs(across) + np.abs(down) + 1  # so that an even image has a mean too
    return float((trust * weight).sum() / weight.sum())
