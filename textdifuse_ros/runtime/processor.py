"""An aligned pair in; the fused image, its objects and what made it out: :class:`PairProcessor`.

The node, ``textdifuse bag`` and ``textdifuse fuse`` all go through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from textdifuse_ros.image.intake import AlignedPair
from textdifuse_ros.runtime.engine import FusionBackend, FusionRequest
from textdifuse_ros.runtime.text_target import Detections
from textdifuse_ros.runtime.video_state import VideoState

NO_VALUE = "infrared_no_value"
"""Provenance key: share of the infrared pixels without a value, where there are any."""
FUSED, RESTORED = "fused", "restored"
"""How an image came about: from both cameras, or from one alone."""


class TextSource(Protocol):
    """Finds the objects that a text names."""

    def detect(self, visible: np.ndarray | None, infrared: np.ndarray | None, stamp: float) -> Detections | None:
        """Find the objects of one image.

        :param visible: uint8 or uint16 [H, W, 3] RGB, or None
        :param infrared: uint8 [H, W], or None
        :param stamp: of the image [s]
        :returns: None without a text
        """
        ...


@dataclass(frozen=True, eq=False)
class ProcessedPair:
    """The result for one pair.

    :ivar image: uint8 [H, W, 3] RGB
    :ivar outcome: ``fused`` or ``restored``
    :ivar provenance: plain values, see :attr:`.FusionResult.provenance`; with a text also that of the masks, and
        :data:`NO_VALUE`
    :ivar timings: seconds of each stage, see :attr:`.FusionResult.timings`
    :ivar mask: uint8 [H, W], 0 where no byte was changed by the emphasis; None without one
    :ivar detections: the objects that the text names; None without a text
    """

    image: np.ndarray
    outcome: str
    provenance: dict[str, Any]
    timings: dict[str, float]
    mask: np.ndarray | None
    detections: Detections | None

    def message_provenance(self, difference_ns: int) -> dict[str, Any]:
        """The provenance as it is published and recorded: complete also where it is as usual.

        :param difference_ns: infrared stamp minus visible stamp [ns]
        """
        values = {"sources": "visible+infrared", "scale": "1", **self.provenance}
        if self.outcome == FUSED:
            values["stamp_difference_ms"] = f"{difference_ns / 1e6:.3f}"
        return values


class PairProcessor:
    """Locates, fuses and steadies the pairs of one stream, in their order; :meth:`process` has one caller.

    :param backend: fuses
    :param text: finds what the text names; None where there never is a text
    """

    def __init__(self, backend: FusionBackend, text: TextSource | None = None) -> None:
        self._backend = backend
        self._text = text
        self._video = VideoState()
        self._made_by: tuple[Any, Any] | None = None

    def reset(self) -> None:
        """Make the next image independent of the previous ones; from any thread."""
        self._video = VideoState()  # a new one: the old one may be in use in another thread

    @property
    def video(self) -> VideoState:
        """What is carried from one image to the next."""
        return self._video

    def process(
        self, pair: AlignedPair, request: FusionRequest, *, video: bool = False, stamp: float | None = None
    ) -> ProcessedPair:
        """Process one pair, or the image of one camera where the other is missing.

        :param pair: the images
        :param request: how to fuse
        :param video: steady the image against the previous one
        :param stamp: of the pair [s]
        :raises TextDifuseError: the images are unusable, or the device failed
        """
        state = self._video
        # 1. The objects that the text names.
        detections = None
        if self._text is not None:
            detections = self._text.detect(pair.visible, pair.infrared, 0.0 if stamp is None else stamp)
        # 2. Fuse both images and emphasize the objects, or restore the only image.
        is_pair = pair.visible is not None and pair.infrared is not None
        emphasis = detections.emphasis() if detections is not None and is_pair else None
        result = self._backend.fuse(pair.visible, pair.infrared, request, emphasis)
        # 3. Steady brightness and color against the previous image, if that came from the same weights and device.
        made_by = result.provenance.get("weights"), result.provenance.get("device")
        if self._made_by not in (None, made_by) or not (video and is_pair):
            state.reset()
        self._made_by = made_by
        if video and is_pair:
            assert pair.visible is not None and pair.infrared is not None
            result = state.steady(pair.visible, pair.infrared, result, stamp)
        # 4. What made it.
        provenance: dict[str, Any] = dict(result.provenance)
        if detections is not None:
            provenance.update(detections.metadata())
        if pair.no_value:
            provenance[NO_VALUE] = round(pair.no_value, 6)
        outcome = FUSED if is_pair else RESTORED
        return ProcessedPair(result.image, outcome, provenance, result.timings, result.mask, detections)
