"""Text-conditioned boxes: OWL-ViT, OWLv2 and Grounding DINO through transformers.

Minderer et al., ECCV 2022 and NeurIPS 2023; Liu et al., ECCV 2024. The models are not changed, except that the outputs
of their text encoders are cached, so that a prompt is encoded once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textdifuse_ros.errors import ConfigError
from textdifuse_ros.localize.local_models import (
    find_model,
    import_transformers,
    load_model,
    load_processor,
    read_model_type,
)
from textdifuse_ros.networks.device import resolve_device

OWL = {"owlvit": "owlvit.text_model", "owlv2": "owlv2.text_model"}
DINO = {"grounding-dino": "model.text_backbone", "mm-grounding-dino": "model.text_backbone"}
TEXT_ENCODERS = {**OWL, **DINO}
"""Name of the text encoder's submodule, by model type."""

CACHED_TEXTS = 16


@dataclass(frozen=True, eq=False)
class DetectedBoxes:
    """Boxes in one image.

    :ivar boxes: float64 [N, 4], (left, top, right, bottom) [pixels], within the image
    :ivar scores: float64 [N] in [0, 1]
    :ivar labels: int64 [N], index of the phrase, from 0
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def take(self, which: np.ndarray) -> DetectedBoxes:
        """Select boxes.

        :param which: integer [M], indices, or bool [N]
        """
        return DetectedBoxes(self.boxes[which], self.scores[which], self.labels[which])


class CachedModule(nn.Module):
    """A module that caches its outputs for the last :data:`CACHED_TEXTS` inputs.

    :param inner: stateless; its outputs must not be written to
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._cache: OrderedDict[tuple[object, ...], Any] = OrderedDict()

    def forward(self, *args: object, **kwargs: object) -> Any:
        """Return the output of the inner module, from the cache if possible.

        :param args: of the inner module
        :param kwargs: likewise
        """
        key = tuple(_cache_key(item) for item in (*args, *sorted(kwargs.items())))
        if key not in self._cache:
            self._cache[key] = self.inner(*args, **kwargs)
            if len(self._cache) > CACHED_TEXTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


def _cache_key(item: object) -> object:
    if isinstance(item, tuple):
        return tuple(_cache_key(part) for part in item)
    if isinstance(item, Tensor):
        return (str(item.dtype), tuple(item.shape), item.cpu().numpy().tobytes())
    return repr(item)


class Detector:
    """Finds boxes of any phrases in an image.

    :param model: of a type in :data:`TEXT_ENCODERS`, on ``device``, for inference; its text encoder is replaced by a
        :class:`CachedModule`
    :param processor: of the model, from transformers
    :param device: of the model
    :param name: for provenance
    """

    def __init__(self, model: Any, processor: Any, device: torch.device, name: str = "") -> None:
        self.name = name
        self._model, self._processor, self._device = model, processor, device
        kind = model.config.model_type
        parent, _, leaf = TEXT_ENCODERS[kind].rpartition(".")
        setattr(model.get_submodule(parent), leaf, CachedModule(model.get_submodule(TEXT_ENCODERS[kind])))
        self._find: Callable[[np.ndarray, tuple[str, ...], float], DetectedBoxes]
        self._find = self._find_owl if kind in OWL else self._find_dino

    @classmethod
    def from_folder(cls, name: str, device: str) -> Detector:
        """Load a detector.

        :param name: parameter ``detector``: a folder, or a name within a model folder
        :param device: parameter ``localizer_device``
        :raises ConfigError: no name, or transformers is not installed
        :raises CheckpointError: the model is missing, incomplete, damaged or not text-conditioned
        """
        folder = find_model("detector", name)
        read_model_type(folder, "detector", tuple(TEXT_ENCODERS))
        transformers = import_transformers("detector")
        place = resolve_device(device, "localizer_device")
        model = load_model(transformers.AutoModelForZeroShotObjectDetection, folder, "detector", place)
        return cls(model, load_processor(transformers.AutoProcessor, folder, "detector"), place, Path(folder).name)

    def detect(self, image: np.ndarray, phrases: tuple[str, ...], threshold: float) -> DetectedBoxes:
        """Find boxes of phrases.

        :param image: uint8 [H, W, 3] RGB
        :param phrases: at least one
        :param threshold: minimum score, in [0, 1]
        :raises ConfigError: too many words for the detector
        """
        height, width = image.shape[:2]
        with torch.inference_mode():
            found = self._find(image, phrases, threshold)
        boxes = np.clip(found.boxes, 0, (width, height, width, height))
        not_empty = (boxes[:, 2] - boxes[:, 0] >= 1) & (boxes[:, 3] - boxes[:, 1] >= 1)
        return DetectedBoxes(boxes, found.scores, found.labels).take(not_empty)

    def _find_owl(self, image: np.ndarray, phrases: tuple[str, ...], threshold: float) -> DetectedBoxes:
        # The template that these models are trained with.
        texts = [f"a photo of a {phrase}" for phrase in phrases]
        longest = self._model.config.text_config.max_position_embeddings
        tokens = self._processor.tokenizer(
            texts, padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        pixels = self._processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
        outputs = self._model(
            input_ids=tokens["input_ids"].to(self._device),
            attention_mask=tokens["attention_mask"].to(self._device),
            pixel_values=pixels.to(self._device),
        )
        (found,) = self._processor.post_process_grounded_object_detection(
            outputs, threshold=threshold, target_sizes=[image.shape[:2]]
        )
        boxes, scores, labels = (found[name].cpu().numpy() for name in ("boxes", "scores", "labels"))
        return DetectedBoxes(boxes.astype(np.float64), scores.astype(np.float64), labels)

    def _find_dino(self, image: np.ndarray, phrases: tuple[str, ...], threshold: float) -> DetectedBoxes:
        # The model takes one sentence and scores its tokens; their character offsets map them to the phrases.
        sentence = " ".join(f"{phrase}." for phrase in phrases)
        tokens = self._processor.tokenizer(sentence, return_tensors="pt", return_offsets_mapping=True)
        owners = np.array(_owners(tokens.pop("offset_mapping")[0].tolist(), phrases))
        most = self._model.config.max_text_len
        if len(owners) > most:
            raise ConfigError("the text", f"at most {most} tokens for this detector", len(owners), "use fewer phrases")
        pixels = self._processor.image_processor(images=image, return_tensors="pt")
        outputs = self._model(**{name: item.to(self._device) for name, item in {**tokens, **pixels}.items()})
        # The logits are -inf beyond the tokens of the sentence.
        scores = outputs.logits[0, :, : len(owners)].sigmoid().cpu().double().numpy()
        by_phrase = np.stack([scores[:, owners == n].max(1, initial=0.0) for n in range(len(phrases))], 1)
        best = by_phrase.max(1)
        height, width = image.shape[:2]
        center, side = np.split(outputs.pred_boxes[0].cpu().double().numpy(), 2, axis=1)
        corners = np.concatenate((center - side / 2, center + side / 2), 1) * (width, height, width, height)
        return DetectedBoxes(corners, best, by_phrase.argmax(1)).take(best >= threshold)


def _owners(offsets: list[list[int]], phrases: tuple[str, ...]) -> list[int]:
    """Map each token to the index of its phrase, or to -1 for punctuation."""
    ends = np.cumsum([len(phrase) + 2 for phrase in phrases])
    owners = []
    for start, stop in offsets:
        phrase = int(np.searchsorted(ends, start, side="right"))
        inside = stop > start and phrase < len(phrases) and stop <= ends[phrase] - 2
        owners.append(phrase if inside else -1)
    return owners


def suppress(found: DetectedBoxes, iou: float) -> np.ndarray:
    """Greedy non-maximum suppression within each phrase.

    :param found: the boxes
    :param iou: in [0, 1]; of two boxes with a higher IoU only the one with the higher score is kept
    :returns: int64 [M], indices of the boxes that are kept, by descending score
    """
    kept: list[int] = []
    for n in np.argsort(-found.scores, kind="stable").tolist():
        same = [m for m in kept if found.labels[m] == found.labels[n]]
        if not same or box_iou(found.boxes[n], found.boxes[same]).max() <= iou:
            kept.append(n)
    return np.array(kept, np.int64)


def box_iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of a box with others; float64 [N].

    :param box: float64 [4], (left, top, right, bottom)
    :param others: float64 [N, 4]
    """
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = sides.clip(0).prod(1)
    return both / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - both)
