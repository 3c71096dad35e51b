"""From an aligned pair to the fused image, its objects and its provenance: :class:`PairProcessor`.

The node, ``textdifuse bag`` and ``textdifuse fuse`` all use it.
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
"""Provenance key: share of the infrared pixels without a value; absent if there are none."""
FUSED, RESTORED = "fused", "restored"
"""Outcomes: made from both images, or from one alone."""


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
    :ivar confidence: see :attr:`.FusionResult.confidence`; None unless requested, and where the model has none
    """

    image: np.ndarray
    outcome: str
    provenance: dict[str, Any]
    timings: dict[str, float]
    mask: np.ndarray | None
    detections: Detections | None
    confidence: np.ndarray | None = None

    def message_provenance(self, difference_ns: int) -> dict[str, Any]:
        """The provenance as published and recorded, with default values filled in.

        :param difference_ns: infrared stamp minus visible stamp [ns]
        """
        values = {"sources": "visible+infrared", "scale": "1", **self.provenance}
        if self.outcome == FUSED:
            values["stamp_difference_ms"] = f"{difference_ns / 1e6:.3f}"
        return values


class PairProcessor:
    """Locates objects, fuses and removes flicker, for the pairs of one stream in their order.

    One thread calls :meth:`process`.

    :param backend: fuses the pairs
    :param text: finds the objects; None if there is never a text
    """

    def __init__(self, backend: FusionBackend, text: TextSource | None = None) -> None:
        self._backend = backend
        self._text = text
        self._video = VideoState()
        self._made_by: tuple[Any, Any] | None = None

    def reset(self) -> None:
        """Make the next image independent of the previous ones; from any thread."""
        self._video = VideoState()  # replaced, not reset: another thread may be using it

    @property
    def video(self) -> VideoState:
        """The state that is carried from one image to the next."""
        return self._video

    def process(
        self, pair: AlignedPair, request: FusionRequest, *, video: bool = False, stamp: float | None = None
    ) -> ProcessedPair:
        """Process one pair, or the image of one camera where the other is missing.

        :param pair: the images
        :param request: how to fuse
        :param video: remove flicker against the previous image
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
        # 3. Remove flicker against the previous image, if it was made by the same weights and device.
        made_by = result.provenance.get("weights"), result.provenance.get("device")
        if self._made_by not in (None, made_by) or not (video and is_pair):
            state.reset()
        self._made_by = made_by
        if video and is_pair:
            assert pair.visible is not None and pair.infrared is not None
            result = state.steady(pair.visible, pair.infrared, result, stamp)
        # 4. The provenance.
        provenance: dict[str, Any] = dict(result.provenance)
        if detections is not None:
            provenance.update(detections.metadata())
        if pair.no_value:
            provenance[NO_VALUE] = round(pair.no_value, 6)
        outcome = FUSED if is_pair else RESTORED
        return ProcessedPair(
            result.image, outcome, provenance, result.timings, result.mask, detections, result.confidence
        )
