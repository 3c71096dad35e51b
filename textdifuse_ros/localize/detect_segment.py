"""The paper's pair of models: a detector finds boxes by text, a segmenter turns them into masks."""

from __future__ import annotations

import numpy as np

from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.localize.base import Instance, Localization
from textdifuse_ros.localize.detector import DetectedBoxes, Detector, suppress
from textdifuse_ros.localize.prompt import Prompt
from textdifuse_ros.localize.segmenter import Segmenter, make_segmenter


class DetectSegmentLocalizer:
    """Detects in the visible and the infrared image; each box is segmented in the image it was found in.

    :param detector: finds boxes
    :param segmenter: turns boxes into masks
    :param box_threshold: minimum score of a box, in [0, 1]
    :param nms_iou: IoU in [0, 1] above which of two boxes of a phrase, from either image, only the better is kept
    """

    vocabulary = None

    def __init__(
        self, detector: Detector, segmenter: Segmenter, box_threshold: float = 0.15, nms_iou: float = 0.5
    ) -> None:
        self.name = f"detect_segment {detector.name} {segmenter.name}"
        self._detector: Detector | None = detector
        self._segmenter: Segmenter | None = segmenter
        self._box_threshold, self._nms_iou = box_threshold, nms_iou

    @classmethod
    def from_config(cls, config: LocalizerConfig) -> DetectSegmentLocalizer:
        """Load both models.

        :param config: names of the models, device and thresholds
        :raises ConfigError: no detector given, or a package is not installed
        :raises CheckpointError: weights are missing, incomplete or of another type
        """
        detector = Detector.from_folder(config.detector, config.localizer_device)
        segmenter = make_segmenter(config.segmenter, config.localizer_device)
        return cls(detector, segmenter, config.box_threshold, config.nms_iou)

    def locate(self, visible: np.ndarray, infrared: np.ndarray, prompt: Prompt) -> Localization:
        """See :meth:`.Localizer.locate`."""
        size = (infrared.shape[0], infrared.shape[1])
        if not prompt or self._detector is None or self._segmenter is None:
            return Localization((), size, prompt.phrases)
        views = (visible, np.repeat(infrared[:, :, None], 3, 2))
        boxes_of_views = [self._detector.detect(view, prompt.names, self._box_threshold) for view in views]
        view_of_box = np.repeat((0, 1), [len(item.scores) for item in boxes_of_views])
        boxes = DetectedBoxes(
            np.concatenate([item.boxes for item in boxes_of_views]),
            np.concatenate([item.scores for item in boxes_of_views]),
            np.concatenate([item.labels for item in boxes_of_views]),
        )
        kept = suppress(boxes, self._nms_iou)
        instances: list[Instance] = []
        for number, view in enumerate(views):
            own_boxes = boxes.take(kept[view_of_box[kept] == number])
            if len(own_boxes.scores):
                instances.extend(self._segment(self._segmenter, view, own_boxes, prompt))
        return Localization(tuple(instances), size, prompt.phrases)

    def close(self) -> None:
        """Free the models."""
        self._detector = self._segmenter = None

    def _segment(self, segmenter: Segmenter, view: np.ndarray, boxes: DetectedBoxes, prompt: Prompt) -> list[Instance]:
        instances = []
        for mask, box, score, label in zip(
            segmenter.segment(view, boxes.boxes), boxes.boxes.tolist(), boxes.scores, boxes.labels, strict=True
        ):
            if mask.any():
                left, top, right, bottom = box
                phrase = prompt.phrases[label].index
                instances.append(Instance(mask, (left, top, right, bottom), min(float(score), 1.0), phrase))
        return instances
