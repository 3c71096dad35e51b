"""Labeled images in one memory-mapped file, and batches of random degraded crops from it.

Batch ``i`` depends only on the seed and ``i``, as in :mod:`textdifuse_ros.data.crops`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from textdifuse_ros.data import degradations as d
from textdifuse_ros.data.label_thermal import synthesize_thermal
from textdifuse_ros.data.labels import BICYCLE, CAR, PERSON, THINGS, UNKNOWN, LabeledImage
from textdifuse_ros.data.pack import new_pack, read_index
from textdifuse_ros.data.recipes import degrade_infrared, degrade_visible
from textdifuse_ros.errors import FileError

CELL = 4
"""Side of a cell of the grid on which boxes are learned [pixels]."""

_PLANES = 6  # red, green, blue, infrared, codes, instances
_SHARES = {"camvid": 0.5, "roadscene": 0.34, "drive": 0.16}  # of the crops
_OBJECT_SHARES = {PERSON: 0.45, CAR: 0.35, BICYCLE: 0.2}
_ON_OBJECT = 0.6  # share of the crops that are placed on an object
_SCALES = (0.55, 1.7)
_CLEAN_OTHER = 0.6  # where one sensor is blind: share of the crops whose other sensor is clean
_CLEAN = 0.25  # share of clean crops otherwise
_BLIND_VISIBLE, _BLIND_INFRARED, _BLIND_SYNTHETIC = 0.12, 0.12, 0.35  # shares of the crops with a blind sensor


class LabelBatch(NamedTuple):
    """A batch of labeled crops.

    :ivar visible: float32 [N, 3, S, S] RGB in [0, 1]
    :ivar infrared: float32 [N, 1, S, S] in [0, 1]
    :ivar codes: uint8 [N, S, S], see :mod:`textdifuse_ros.data.labels`
    :ivar boxes: float32 [N, 4, S / 4, S / 4], distances from the middle of a cell to the left, upper, right and lower
        edge of the object in it [pixels]; NaN where there is no object or its extent is unknown
    """

    visible: Tensor
    infrared: Tensor
    codes: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class LabelEntry:
    """The index entry of one labeled image.

    :ivar name: source and stem
    :ivar height: [pixels]
    :ivar width: [pixels]
    :ivar offset: in the file [bytes]
    :ivar infrared: whether it has an infrared image
    :ivar night: whether the visible image is already dark
    :ivar objects: code, xmin, ymin, xmax, ymax of each object; the edges are None where unknown
    """

    name: str
    height: int
    width: int
    offset: int
    infrared: bool
    night: bool
    objects: list[tuple[int, float | None, float | None, float | None, float | None]]

    @property
    def boxes(self) -> np.ndarray:
        """Boxes of the objects, float32 [N, 4], NaN where unknown."""
        return np.array([edges for _, *edges in self.objects], np.float32).reshape(-1, 4)


def write_label_pack(path: str | Path, items: Iterable[LabeledImage]) -> int:
    """Write a pack and its index ``PATH.json``; an existing pack is replaced only after the new one is complete.

    :param path: of the pack
    :param items: consumed one at a time
    :returns: number of items
    :raises OSError: the file cannot be written
    """
    entries, offset, checksum = [], 0, 0
    with new_pack(Path(path)) as (file, index):
        for item in items:
            height, width = item.codes.shape
            infrared = np.zeros_like(item.codes) if item.infrared is None else item.infrared
            planes = np.dstack((item.visible, infrared, item.codes, item.instances))
            known = item.infrared is not None
            objects = _objects(item)
            entries.append(LabelEntry(item.name, height, width, offset, known, item.night, objects))
            content = np.ascontiguousarray(planes, np.uint8).tobytes()
            checksum = zlib.crc32(content, checksum)
            offset += file.write(content)
        index |= {"bytes": offset, "crc32": checksum, "entries": [vars(entry) for entry in entries]}
    return len(entries)


def _objects(item: LabeledImage) -> list[tuple[int, float | None, float | None, float | None, float | None]]:
    objects = []
    for number, box in enumerate(item.boxes.tolist(), 1):
        inside = item.codes[item.instances == number]
        edges = [None if np.isnan(edge) else edge for edge in box]
        objects.append((int(inside[0]) if len(inside) else UNKNOWN, *edges))
    return objects  # type: ignore[return-value]


class LabelPack:
    """A label pack, open for reading.

    :param path: of the pack
    :ivar digest: SHA-256 of the index, which contains a checksum of the images
    :ivar entries: one :class:`LabelEntry` per image
    :raises FileError: missing, or of another length than its index states
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.digest, self.entries = read_index(self.path, "a label pack", LabelEntry)
        self._bytes = np.memmap(self.path, np.uint8, mode="r")

    def planes(self, entry: LabelEntry) -> np.ndarray:
        """The data of one image: red, green, blue, infrared, codes, instances.

        :param entry: of this pack
        :returns: uint8 [H, W, 6], a read-only view of the file
        """
        size = entry.height * entry.width * _PLANES
        return self._bytes[entry.offset : entry.offset + size].reshape(entry.height, entry.width, _PLANES)


class LabelBatches(Dataset[LabelBatch]):
    """Data set of batches, indexed by number.

    :param pack: path of a label pack
    :param size: side of the crops [pixels], a multiple of 32
    :param crops: number of crops in a batch
    :param seed: not negative
    :param first: number of the first batch
    :param count: number of batches
    :raises FileError: the pack is missing, or has no items of a known source
    """

    def __init__(self, pack: str | Path, size: int, crops: int, seed: int, first: int, count: int) -> None:
        self.pack = LabelPack(pack)
        self.size, self.crops, self.seed, self.first, self.count = size, crops, seed, first, count
        self._sources: list[list[LabelEntry]] = []
        shares = []
        for name, share in _SHARES.items():
            if entries := [entry for entry in self.pack.entries if entry.name.startswith(name)]:
                self._sources.append(entries)
                shares.append(share)
        if not shares:
            raise FileError(str(pack), f"a label pack with items of {', '.join(_SHARES)}", "none")
        self._shares = np.array(shares) / sum(shares)
        self._holding = [
            {kind: [e for e in entries if any(o[0] == kind for o in e.objects)] for kind in THINGS}
            for entries in self._sources
        ]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> LabelBatch:
        if index >= self.count:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, self.first + index))
        crops = [self._crop(rng) for _ in range(self.crops)]
        visible, infrared, codes, boxes = (np.stack(parts) for parts in zip(*crops, strict=True))
        return LabelBatch(
            torch.from_numpy(np.ascontiguousarray(visible.transpose(0, 3, 1, 2))),
            torch.from_numpy(infrared[:, None]),
            torch.from_numpy(codes),
            torch.from_numpy(np.ascontiguousarray(boxes.transpose(0, 3, 1, 2))),
        )

    def _crop(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        source = int(rng.choice(len(self._sources), p=self._shares))
        kind = int(rng.choice(list(_OBJECT_SHARES), p=list(_OBJECT_SHARES.values())))
        holding = self._holding[source][kind]
        on_object = bool(holding) and rng.random() < _ON_OBJECT
        entries = holding if on_object else self._sources[source]
        entry = entries[int(rng.integers(len(entries)))]
        planes, boxes = self._window(entry, kind if on_object else None, rng)
        visible = planes[..., :3].astype(np.float32) / np.float32(255)
        codes, instances = np.ascontiguousarray(planes[..., 4]), np.ascontiguousarray(planes[..., 5])
        if entry.infrared:
            infrared = planes[..., 3].astype(np.float32) / np.float32(255)
        else:
            infrared = synthesize_thermal(visible, codes, instances, rng)
        visible = _jitter(visible, rng)
        blind = _BLIND_INFRARED if entry.infrared else _BLIND_SYNTHETIC
        chance = rng.random()
        no_visible, no_infrared = chance < _BLIND_VISIBLE, _BLIND_VISIBLE <= chance < _BLIND_VISIBLE + blind
        if no_visible:
            visible = _blind(visible.shape, rng)
        elif not entry.night and rng.random() >= (_CLEAN_OTHER if no_infrared else _CLEAN):
            visible, _ = degrade_visible(visible, np.where(codes == 0, 255, 0).astype(np.uint8), rng)
        if no_infrared:
            infrared = _blind(infrared.shape, rng)
        elif not (no_visible and rng.random() < _CLEAN_OTHER):
            infrared, _ = degrade_infrared(infrared, rng)
        return visible, infrared, codes, box_distances(instances, boxes)

    def _window(self, entry: LabelEntry, kind: int | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a square part of an image, scaled to the crop's size, with its boxes.

        :param kind: class of the object to show, or None
        """
        planes, size = self.pack.planes(entry), self.size
        side = min(round(size / rng.uniform(*_SCALES)), entry.height, entry.width)
        y, x = rng.uniform(0, entry.height), rng.uniform(0, entry.width)
        if kind is not None:
            numbers = [n for n, o in enumerate(entry.objects, 1) if o[0] == kind]
            rows, columns = np.nonzero(planes[..., 5] == numbers[int(rng.integers(len(numbers)))])
            if len(rows):
                at = int(rng.integers(len(rows)))
                y, x = rows[at] + rng.uniform(-0.4, 0.4) * side, columns[at] + rng.uniform(-0.4, 0.4) * side
        top = int(np.clip(y - side / 2, 0, entry.height - side))
        left = int(np.clip(x - side / 2, 0, entry.width - side))
        part = planes[top : top + side, left : left + side]
        method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        pixels = cv2.resize(np.ascontiguousarray(part[..., :4]), (size, size), interpolation=method)
        known = cv2.resize(np.ascontiguousarray(part[..., 4:]), (size, size), interpolation=cv2.INTER_NEAREST)
        boxes = (entry.boxes - (left, top, left, top)) * (size / side)
        planes = np.dstack((pixels, known))
        if rng.random() < 0.5:
            planes = np.ascontiguousarray(planes[:, ::-1])
            boxes = np.stack((size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]), 1)
        return planes, np.clip(boxes, 0, size).astype(np.float32)


def box_distances(instances: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The targets of the network's box channels, see :class:`LabelBatch`.

    :param instances: uint8 [H, W], H and W multiples of 4
    :param boxes: float32 [N, 4], NaN where unknown
    :returns: float32 [H / 4, W / 4, 4]
    """
    cells = instances[CELL // 2 :: CELL, CELL // 2 :: CELL]
    rows, columns = cells.shape
    table = np.full((256, 4), np.nan, np.float32)
    table[1 : len(boxes) + 1] = boxes
    edges = table[cells]
    y = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) * CELL
    x = (np.arange(columns, dtype=np.float32)[None] + 0.5) * CELL
    left, up, right, down = x - edges[..., 0], y - edges[..., 1], edges[..., 2] - x, edges[..., 3] - y
    distances = np.stack((left, up, right, down), -1)
    distances[~(distances > 0).all(-1)] = np.nan
    return distances


def _jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary saturation, contrast, level and gamma, as between cameras."""
    if rng.random() < 0.4:
        return image
    grey = image.mean(2, keepdims=True)
    image = grey + np.float32(rng.uniform(0.0, 1.3)) * (image - grey)
    image = (image - 0.5) * np.float32(rng.uniform(0.5, 1.25)) + np.float32(0.5 + rng.normal(0, 0.08))
    return np.clip(image, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.25)))


def _blind(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """The image of a blind sensor: one level, with or without noise."""
    level = 0.0 if rng.random() < 0.5 else rng.uniform(0, 1)
    image = np.full(shape, level, np.float32)
    if rng.random() < 0.5:
        image = d.gaussian_noise(image, float(np.exp(rng.uniform(np.log(0.004), np.log(0.2)))), rng)
    return image
