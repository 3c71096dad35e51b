"""The built-in localizer: a small network for streets by day and by night."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from textdifuse_ros.checkpoint import check_finite, find_checkpoint
from textdifuse_ros.checks import describe
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import ImageError
from textdifuse_ros.localize.base import Instance, Localization
from textdifuse_ros.localize.instances import class_instances
from textdifuse_ros.localize.prompt import Prompt, Vocabulary, resolve
from textdifuse_ros.localize.voting import Votes, group_votes
from textdifuse_ros.localize.weights import load_localizer
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.device import resolve_device
from textdifuse_ros.networks.localizer import CELL, MULTIPLE, Cells, fold_norms

NAME = "builtin"
MODEL = "locate"

VOCABULARY: Vocabulary = {
    "sky": ("cloud",),
    "building": ("house", "wall", "facade"),
    "pole": ("post", "lamp post", "lamppost", "street lamp", "column"),
    "road": ("street", "lane", "asphalt", "road marking"),
    "pavement": ("sidewalk", "footpath", "footway"),
    "tree": ("vegetation", "bush", "plant", "hedge"),
    "sign": ("traffic sign", "road sign", "traffic light", "sign symbol"),
    "fence": ("railing", "barrier"),
    "car": ("vehicle", "automobile", "van", "truck", "lorry", "bus", "taxi", "suv", "pickup"),
    "person": ("pedestrian", "human", "man", "woman", "child", "rider", "walker", "cyclist", "bicyclist"),
    "bicycle": ("bike", "cycle", "cyclist", "bicyclist"),
}
"""The classes in the order of the network's channels. A cyclist is a person and a bicycle."""

THINGS = frozenset(("car", "person", "bicycle"))
"""The countable classes."""
_MIN_PROBABILITY = 0.35  # of a pixel in an object's mask
PIXELS = 480 * 368
"""Images are resized to about this many pixels, the size of the training images."""


class Classes(NamedTuple):
    """The network's output for an image.

    :ivar probability: float32 [K, H, W] in [0, 1], at the image's resolution
    :ivar cells: float32 [K, h, w], likewise at the network's cells
    :ivar distances: float32 [4, h, w], see :class:`textdifuse_ros.networks.localizer.Cells` [pixels of its input]
    """

    probability: np.ndarray
    cells: np.ndarray
    distances: np.ndarray


class BuiltinLocalizer:
    """Locates a fixed set of classes from both sensors at once; works with one blind sensor, too.

    :param model: checkpoint, by name or path
    :param device: of the network
    :param score: minimum mean probability of an object, in [0, 1]
    :param min_area: minimum area of an object [pixels of the image]
    :param pixels: size of the network's input; a larger one finds smaller objects at proportional cost
    :raises CheckpointError: weights are missing or of another kind
    """

    def __init__(
        self,
        model: str | Path = MODEL,
        device: torch.device | str = "cpu",
        score: float = 0.4,
        min_area: int = 24,
        pixels: int = PIXELS,
    ) -> None:
        network, checkpoint = load_localizer(find_checkpoint(model))
        self.name = f"{NAME} {Path(model).stem} {checkpoint.sha256[:12]}"
        self.vocabulary: Vocabulary | None = VOCABULARY
        self.score, self.min_area, self.pixels = score, min_area, pixels
        self._device = torch.device(device)
        folded = fold_norms(network)
        check_finite(folded.state_dict(), model)  # a variance may have been negative
        self._network = channels_last(folded.to(self._device))

    @classmethod
    def from_config(cls, config: LocalizerConfig) -> BuiltinLocalizer:
        """Load the localizer.

        :param config: weights, device and threshold
        :raises CheckpointError: weights are missing or of another kind
        :raises DeviceError: the device is absent
        """
        device = resolve_device(config.localizer_device, "localizer_device")
        return cls(config.localizer_model, device, config.localizer_threshold)

    def locate(self, visible: np.ndarray, infrared: np.ndarray, prompt: Prompt) -> Localization:
        """See :meth:`.Localizer.locate`."""
        _check(visible, infrared)
        classes_of_phrases = resolve(prompt, VOCABULARY)
        size = infrared.shape
        if not prompt:
            return Localization((), size, ())
        names = list(VOCABULARY)
        phrases = {
            names.index(name): phrase.index
            for phrase, own_classes in zip(prompt.phrases, classes_of_phrases, strict=True)
            for name in own_classes
        }
        classes = self.classes(visible, infrared)
        stuff = {number: phrase for number, phrase in phrases.items() if names[number] not in THINGS}
        instances = class_instances(
            classes.probability, stuff, threshold=self.score, min_area=self.min_area, countable=frozenset()
        )
        for number, phrase in phrases.items():
            if names[number] in THINGS:
                instances += self._objects(classes, number, phrase)
        return Localization(tuple(sorted(instances, key=lambda item: -item.score)), size, prompt.phrases)

    def classes(self, visible: np.ndarray, infrared: np.ndarray) -> Classes:
        """Run the network: class probabilities of every pixel, and boxes.

        :param visible: uint8 [H, W, 3] RGB
        :param infrared: uint8 [H, W]
        """
        height, width = infrared.shape
        rows, columns = working_size(height, width, self.pixels)
        method = cv2.INTER_AREA if rows * columns < height * width else cv2.INTER_LINEAR
        sources = []
        for image in (visible, infrared):
            small = cv2.resize(image, (columns, rows), interpolation=method)
            tensor = torch.from_numpy(np.ascontiguousarray(small.reshape(1, rows, columns, -1))).permute(0, 3, 1, 2)
            sources.append(tensor.to(self._device, torch.float32) / 255)
        with torch.inference_mode():
            cells: Cells = self._network(*sources)
            logits = cells.logits.to(torch.float32)
            whole = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False).softmax(1)
            return Classes(*(part[0].cpu().numpy() for part in (whole, logits.softmax(1), cells.distances)))

    def close(self) -> None:
        """Free the network."""
        del self._network

    def _objects(self, classes: Classes, number: int, phrase: int) -> list[Instance]:
        """Group the votes of a countable class; a mask has the pixels near its cells where no thing is more likely."""
        things = [channel for channel, name in enumerate(VOCABULARY) if name in THINGS]
        probability = classes.probability[number]
        class_mask = (probability >= _MIN_PROBABILITY) & (probability >= classes.probability[things].max(0))
        height, width = class_mask.shape
        rows, columns = classes.cells.shape[1:]
        across, down = width / (columns * CELL), height / (rows * CELL)
        instances = []
        votes = group_votes(classes.cells[number], classes.distances, CELL)
        votes = [item for item in votes if item.score >= self.score]
        owners = _owners(votes, (rows, columns), (height, width))
        for owner, item in enumerate(votes, 1):
            mask = class_mask & (owners == owner)
            if np.count_nonzero(mask) < self.min_area:
                continue
            corners = np.array(item.box) * (across, down, across, down)
            left, top, right, bottom = np.clip(corners, 0, (width, height, width, height)).tolist()
            instances.append(Instance(mask, (left, top, right, bottom), min(1.0, item.score), phrase))
        return instances


def working_size(height: int, width: int, pixels: int) -> tuple[int, int]:
    """Compute the size of the network's input: multiples of 16, about the aspect ratio of the image.

    :param height: of the image [pixels]
    :param width: of the image [pixels]
    :param pixels: approximate number of pixels of the input
    :returns: rows and columns
    """
    scale = (pixels / (height * width)) ** 0.5
    rows, columns = (max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in (height, width))
    return rows, columns


def _owners(votes: list[Votes], cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Map each pixel to the object (from 1) of its cell or of a neighboring cell; 0 for none.

    :returns: uint16 [H, W]
    """
    owners: np.ndarray = np.zeros(cells, np.uint16)
    for owner, item in enumerate(votes, 1):
        owners.ravel()[item.cells] = owner
    grown = cv2.dilate(owners, np.ones((3, 3), np.uint8))
    owners = np.where(owners > 0, owners, grown)
    return cv2.resize(owners, size[::-1], interpolation=cv2.INTER_NEAREST)


def _check(visible: np.ndarray, infrared: np.ndarray) -> None:
    if getattr(visible, "dtype", None) != np.uint8 or visible.ndim != 3 or visible.shape[2] != 3:
        raise ImageError("the visible image", "uint8 [H, W, 3]", describe(visible))
    if getattr(infrared, "dtype", None) != np.uint8 or infrared.shape != visible.shape[:2] or 0 in infrared.shape:
        raise ImageError("the infrared image", f"uint8 {list(visible.shape[:2])}, as the visible", describe(infrared))
