"""Batches of random degraded crops from an image pack.

Batch ``i`` depends only on the seed, ``i`` and the rank, so that training can resume at any batch, and workers and
processes need no coordination.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from textdifuse_ros.data.medical import degrade_functional, degrade_mri
from textdifuse_ros.data.pack import ImageEntry, ImagePack
from textdifuse_ros.data.recipes import degrade_infrared, degrade_visible
from textdifuse_ros.errors import FileError

SMALLEST_SCALE = 0.4

DegradeVisible = Callable[[np.ndarray, np.ndarray | None, np.random.Generator], tuple[np.ndarray, np.ndarray]]
DegradeInfrared = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


class CropBatch(NamedTuple):
    """Crops and their restoration targets. A source without crops in this batch is empty [0].

    :ivar visible: float32 [N, 3, S, S] RGB in [0, 1], degraded
    :ivar visible_target: likewise
    :ivar infrared: float32 [N, 1, S, S] in [0, 1], degraded
    :ivar infrared_target: likewise
    """

    visible: Tensor
    visible_target: Tensor
    infrared: Tensor
    infrared_target: Tensor


@dataclass(frozen=True)
class BatchShape:
    """Size and number of the crops of a batch.

    :ivar size: side [pixels], a multiple of 16
    :ivar visible: number of visible crops
    :ivar infrared: number of infrared crops
    :ivar pairs: whether the n-th visible and the n-th infrared crop show the same place
    """

    size: int
    visible: int
    infrared: int
    pairs: bool = False


def _keep_visible(clean: np.ndarray, sky: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return clean, clean


def _keep_infrared(clean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return clean, clean


RECIPES: dict[str, tuple[DegradeVisible, DegradeInfrared]] = {
    "road": (degrade_visible, degrade_infrared),
    "medical": (degrade_functional, degrade_mri),
    "none": (_keep_visible, _keep_infrared),
}
"""Degradations of clean crops, by name."""


class CropBatches(Dataset[CropBatch]):
    """Data set of batches, indexed by number.

    :param pack: path of an image pack
    :param shapes: batch ``i`` has shape ``i % len(shapes)``
    :param seed: not negative
    :param first: number of the first batch
    :param count: number of batches
    :param recipe: degradations, a key of :data:`RECIPES`
    :param rank: index of the training process; each draws different crops
    :raises FileError: the pack is missing, or has no pairs although the shapes require infrared
    """

    def __init__(
        self,
        pack: str,
        shapes: tuple[BatchShape, ...],
        seed: int,
        first: int,
        count: int,
        recipe: str = "road",
        rank: int = 0,
    ) -> None:
        self.pack = ImagePack(pack)
        self.shapes, self.seed, self.first, self.count, self.rank = shapes, seed, first, count, rank
        self.degrade_visible, self.degrade_infrared = RECIPES[recipe]
        self.pairs = [entry for entry in self.pack.entries if entry.infrared >= 0]
        if not self.pairs and any(shape.infrared for shape in shapes):
            raise FileError(pack, "a pack with pairs", "only visible images", "pack two folders of pairs with --pairs")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> CropBatch:
        if index >= self.count:
            raise IndexError(index)
        number = self.first + index
        rng = np.random.default_rng((self.seed, number, self.rank))
        shape = self.shapes[number % len(self.shapes)]
        visible, infrared = [], []
        for n in range(max(shape.visible, shape.infrared)):
            if n < shape.visible:
                entry = _choose(self.pairs if shape.pairs else self.pack.entries, rng)
                window = _window(entry, shape.size, rng)
                sky = self.pack.sky(entry)
                clean = window.cut(self.pack.visible(entry))
                visible.append(self.degrade_visible(clean, None if sky is None else window.cut_mask(sky), rng))
            if n < shape.infrared:
                if not shape.pairs:
                    entry = _choose(self.pairs, rng)
                    window = _window(entry, shape.size, rng)
                infrared.append(self.degrade_infrared(window.cut(self.pack.infrared(entry)), rng))
        return CropBatch(*_stack(visible), *_stack(infrared))


def start_worker(_: int) -> None:
    """Limit a loader process to one thread, since the networks use the cores; a DataLoader's ``worker_init_fn``."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@dataclass(frozen=True)
class _Window:
    top: int
    left: int
    side: int
    size: int
    mirrored: bool

    def cut(self, image: np.ndarray) -> np.ndarray:
        return self.cut_mask(image).astype(np.float32) / np.float32(255)

    def cut_mask(self, image: np.ndarray) -> np.ndarray:
        part = image[self.top : self.top + self.side, self.left : self.left + self.side]
        if self.side != self.size:
            shrink = self.side > self.size
            part = cv2.resize(part, (self.size, self.size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)


def _choose(entries: list[ImageEntry], rng: np.random.Generator) -> ImageEntry:
    return entries[int(rng.integers(len(entries)))]


def _window(entry: ImageEntry, size: int, rng: np.random.Generator) -> _Window:
    """Draw the square that becomes a crop. It often covers most of the image, which is needed to judge exposure."""
    side = min(round(size / rng.uniform(SMALLEST_SCALE, 1.0)), entry.height, entry.width)
    top = int(rng.integers(entry.height - side + 1))
    left = int(rng.integers(entry.width - side + 1))
    return _Window(top, left, side, size, bool(rng.random() < 0.5))


def _stack(samples: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    if not samples:
        return torch.empty(0), torch.empty(0)
    return _batch([sample[0] for sample in samples]), _batch([sample[1] for sample in samples])


def _batch(images: list[np.ndarray]) -> Tensor:
    stack = np.stack(images)
    return torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2) if stack.ndim == 4 else stack[:, None]))
