"""Masks from boxes: SAM and SAM 2 through transformers, or checkpoints of the segment-anything package.

Kirillov et al., ICCV 2023; Ravi et al., 2024.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.errors import CheckpointError, ConfigError
from textdifuse_ros.localize.fixed import fill_box
from textdifuse_ros.localize.local_models import (
    PAGE,
    find_model,
    import_transformers,
    load_model,
    load_processor,
    read_model_type,
)
from textdifuse_ros.networks.device import resolve_device

SAM_TYPES = ("sam", "sam2", "sam2_video")


class Segmenter(Protocol):
    """Turns boxes into masks.

    :ivar name: for provenance
    """

    name: str

    def segment(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Segment the object in each box.

        :param image: uint8 [H, W, 3] RGB
        :param boxes: float64 [N, 4], (left, top, right, bottom) [pixels], N at least 1
        :returns: bool [N, H, W]
        """


def make_segmenter(name: str, device: str) -> Segmenter:
    """Load a segmenter.

    :param name: parameter ``segmenter``: a folder or ``.pth`` file; empty for :class:`BoxFiller`
    :param device: parameter ``localizer_device``
    :raises ConfigError: a package is not installed
    :raises CheckpointError: the model is missing, incomplete, damaged or of another type
    """
    if not name:
        return BoxFiller()
    path = find_model("segmenter", name)
    place = resolve_device(device, "localizer_device")
    if path.is_file():
        return OriginalSam.from_file(path, place)
    kind = read_model_type(path, "segmenter", SAM_TYPES)
    transformers = import_transformers("segmenter")
    if kind == "sam":
        model = load_model(transformers.SamModel, path, "segmenter", place)
        return Sam(model, load_processor(transformers.AutoProcessor, path, "segmenter"), place, path.name)
    model = load_model(transformers.Sam2Model, path, "segmenter", place)
    return Sam2(model, read_normalization(path, "segmenter"), place, path.name)


class BoxFiller:
    """Returns the boxes themselves as masks."""

    name = "boxes"

    def segment(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """See :meth:`Segmenter.segment`."""
        height, width = image.shape[:2]
        return np.stack([fill_box((left, top, right, bottom), (height, width)) for left, top, right, bottom in boxes])


class Sam:
    """SAM in transformers' format.

    :param model: ``SamModel``, on ``device``
    :param processor: of the model, from transformers
    :param device: of the model
    :param name: for provenance
    """

    def __init__(self, model: Any, processor: Any, device: torch.device, name: str) -> None:
        self.name = name
        self._model, self._processor, self._device = model, processor, device

    def segment(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """See :meth:`Segmenter.segment`."""
        with torch.inference_mode():
            inputs = self._processor(images=image, input_boxes=[boxes.tolist()], return_tensors="pt")
            outputs = self._model(
                pixel_values=inputs["pixel_values"].to(self._device),
                input_boxes=inputs["input_boxes"].to(self._device, torch.float32),
                multimask_output=False,
            )
            (masks,) = self._processor.post_process_masks(
                outputs.pred_masks.cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"]
            )
        return np.asarray(masks[:, 0].numpy())


class Normalization:
    """Preprocessing of SAM 2 and SAM 3: resize to a fixed size without keeping the aspect ratio, then normalize.

    The image processors of transformers require torchvision for this.

    :param size: height and width [pixels]
    :param mean: of each channel, in [0, 1]
    :param std: standard deviation of each channel, in [0, 1]
    """

    def __init__(self, size: tuple[int, int], mean: list[float], std: list[float]) -> None:
        self.size = size
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)

    def apply(self, image: np.ndarray, device: torch.device) -> Tensor:
        """Preprocess an image; float32 [1, 3, *size].

        :param image: uint8 [H, W, 3] RGB
        :param device: of the result
        """
        image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        values = (image.astype(np.float32) / 255 - self._mean) / self._std
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None])).to(device)


def read_normalization(folder: Path, parameter: str) -> Normalization:
    """Read the normalization from ``processor_config.json`` or ``preprocessor_config.json``.

    :param folder: of the model
    :param parameter: that names the folder, for errors
    :raises CheckpointError: neither file exists, or it is incomplete
    """
    for file in ("processor_config.json", "preprocessor_config.json"):
        if not (folder / file).is_file():
            continue
        try:
            config = json.loads((folder / file).read_text(encoding="utf-8"))
            config = config.get("image_processor", config)
            size = config["size"]["height"], config["size"]["width"]
            return Normalization(size, config["image_mean"], config["image_std"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            expected = "a file with size, image_mean and image_std"
            raise CheckpointError(str(folder / file), expected, repr(error), PAGE) from error
    what = f"the folder {folder} ({parameter})"
    raise CheckpointError(what, "one with preprocessor_config.json", "none", PAGE)


class Sam2:
    """SAM 2 in transformers' format.

    :param model: ``Sam2Model``, on ``device``
    :param normalization: of its images
    :param device: of the model
    :param name: for provenance
    """

    def __init__(self, model: Any, normalization: Normalization, device: torch.device, name: str) -> None:
        self.name = name
        self._model, self._normalize, self._device = model, normalization, device

    def segment(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """See :meth:`Segmenter.segment`."""
        height, width = image.shape[:2]
        rows, columns = self._normalize.size
        scaled = boxes * (columns / width, rows / height, columns / width, rows / height)
        with torch.inference_mode():
            outputs = self._model(
                pixel_values=self._normalize.apply(image, self._device),
                input_boxes=torch.from_numpy(scaled[None]).to(self._device, torch.float32),
                multimask_output=False,
            )
            logits = F.interpolate(outputs.pred_masks[0], (height, width), mode="bilinear", align_corners=False)
        return np.asarray((logits[:, 0] > 0).cpu().numpy())


class OriginalSam:
    """SAM of the segment-anything package, for its checkpoints (``sam_vit_b_01ec64.pth``); requires torchvision.

    :param predictor: ``SamPredictor``
    :param name: for provenance
    """

    def __init__(self, predictor: Any, name: str) -> None:
        self.name = name
        self._predictor = predictor

    @classmethod
    def from_file(cls, path: Path, device: torch.device) -> OriginalSam:
        """Load a checkpoint; its file name gives the size of the model.

        :param path: of the ``.pth`` file
        :param device: of the model
        :raises ConfigError: segment-anything is not installed
        :raises CheckpointError: damaged, or a file name without vit_b, vit_l or vit_h
        """
        size = re.search(r"vit_[blh]", path.name)
        if size is None:
            raise CheckpointError(str(path), "named with vit_b, vit_l or vit_h (segment-anything)", path.name, PAGE)
        try:
            from segment_anything import SamPredictor, sam_model_registry
        except ImportError as error:
            remedy = "install it, or use SAM in transformers' format"
            raise ConfigError("segmenter", "used with segment-anything installed", error, remedy) from error
        try:
            # The package unpickles anything; weights_only restricts it to tensors.
            weights = torch.load(path, map_location="cpu", weights_only=True)
            model = sam_model_registry[size.group()]()
            model.load_state_dict(weights, strict=True)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(str(path), "a readable checkpoint", reason, PAGE) from error
        return cls(SamPredictor(model.eval().to(device)), path.stem)

    def segment(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """See :meth:`Segmenter.segment`."""
        with torch.inference_mode():
            self._predictor.set_image(image)
            masks = [self._predictor.predict(box=box, multimask_output=False)[0][0] for box in boxes]
        return np.stack(masks).astype(bool)
