"""SAM 3 through transformers: one model from a phrase to the masks of all its objects (Carion et al., 2025)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.localize.base import Instance, Localization
from textdifuse_ros.localize.detector import CACHED_TEXTS, DetectedBoxes, suppress
from textdifuse_ros.localize.local_models import (
    find_model,
    import_transformers,
    load_model,
    load_processor,
    read_model_type,
)
from textdifuse_ros.localize.prompt import Prompt
from textdifuse_ros.localize.segmenter import Normalization, read_normalization
from textdifuse_ros.networks.device import resolve_device

MAX_TOKENS = 32  # per phrase
TYPES = ("sam3", "sam3_video")


class Sam3Localizer:
    """Locates each phrase in the visible and the infrared image; each image and each phrase is encoded once.

    :param model: ``Sam3Model`` of transformers, for inference
    :param tokenizer: of the phrases
    :param normalization: of the images
    :param config: device and thresholds
    :param name: of the weights, for provenance
    """

    vocabulary = None

    def __init__(
        self, model: Any, tokenizer: Any, normalization: Normalization, config: LocalizerConfig, name: str = ""
    ) -> None:
        self.name = f"sam3 {name}".strip()
        self._model, self._tokenizer, self._normalize, self._config = model, tokenizer, normalization, config
        self._device = resolve_device(config.localizer_device, "localizer_device")
        self._texts: OrderedDict[str, tuple[Any, torch.Tensor]] = OrderedDict()

    @classmethod
    def from_config(cls, config: LocalizerConfig) -> Sam3Localizer:
        """Load the model that ``segmenter`` names.

        :param config: name of the model, device and thresholds
        :raises ConfigError: no name, or transformers is not installed
        :raises CheckpointError: the model is missing, incomplete or of another type
        """
        folder = find_model("segmenter", config.segmenter)
        read_model_type(folder, "segmenter", TYPES)
        transformers = import_transformers("segmenter")
        model = load_model(
            transformers.Sam3Model, folder, "segmenter", resolve_device(config.localizer_device, "localizer_device")
        )
        tokenizer = load_processor(transformers.AutoTokenizer, folder, "segmenter")
        return cls(model, tokenizer, read_normalization(folder, "segmenter"), config, folder.name)

    def locate(self, visible: np.ndarray, infrared: np.ndarray, prompt: Prompt) -> Localization:
        """See :meth:`.Localizer.locate`."""
        size = (infrared.shape[0], infrared.shape[1])
        masks: list[np.ndarray] = []
        boxes: list[np.ndarray] = []
        scores: list[float] = []
        labels: list[int] = []
        views = (visible, np.repeat(infrared[:, :, None], 3, 2)) if prompt else ()
        with torch.inference_mode():
            for view in views:
                features = self._model.get_vision_features(self._normalize.apply(view, self._device))
                for phrase in prompt.phrases:
                    for mask, box, score in self._find(features, phrase.text, size):
                        masks.append(mask)
                        boxes.append(box)
                        scores.append(score)
                        labels.append(phrase.index)
        detected = DetectedBoxes(np.array(boxes).reshape(-1, 4), np.array(scores), np.array(labels, np.int64))
        instances = []
        for n in suppress(detected, self._config.nms_iou).tolist():
            left, top, right, bottom = boxes[n].tolist()
            instances.append(Instance(masks[n], (left, top, right, bottom), scores[n], labels[n]))
        return Localization(tuple(instances), size, prompt.phrases)

    def close(self) -> None:
        """Free the model."""
        self._model = None
        self._texts.clear()

    def _find(self, features: Any, text: str, size: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Compute masks, boxes and scores of one phrase in one image, as the processor of transformers does."""
        height, width = size
        embedded, attention = self._embed(text)
        outputs = self._model(vision_embeds=features, text_embeds=embedded, attention_mask=attention)
        scores = outputs.pred_logits[0].sigmoid()
        if outputs.presence_logits is not None:
            scores = scores * outputs.presence_logits[0].sigmoid()
        found = []
        keep = scores >= self._config.box_threshold
        edges = torch.tensor((width, height, width, height), device=scores.device)
        boxes = (outputs.pred_boxes[0][keep] * edges).clamp(min=0).minimum(edges).cpu().double().numpy()
        for logits, box, score in zip(outputs.pred_masks[0][keep], boxes, scores[keep].tolist(), strict=True):
            mask = F.interpolate(logits[None, None].sigmoid(), size, mode="bilinear", align_corners=False)[0, 0] > 0.5
            if mask.any() and (box[2:] > box[:2]).all():
                found.append((mask.cpu().numpy(), box, min(score, 1.0)))
        return found

    def _embed(self, text: str) -> tuple[Any, torch.Tensor]:
        if text not in self._texts:
            tokens = self._tokenizer(
                [text], padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            ).to(self._device)
            attention = tokens["attention_mask"]
            self._texts[text] = self._model.get_text_features(tokens["input_ids"], attention), attention
            if len(self._texts) > CACHED_TEXTS:
                self._texts.popitem(last=False)
        self._texts.move_to_end(text)
        return self._texts[text]
