"""Lists of training images: the user's pairs and clean images, and public data sets.

A :class:`Source` is an image on disk; lists of them are concatenated, shuffled and then read one by one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.errors import FileError, ImageError
from textdifuse_ros.image.files import find_pairs, read_infrared, read_infrared_levels, read_visible
from textdifuse_ros.image.thermal import to_uint8

CAMVID_SKY = 0
LONGEST_SIDE = 960
"""Larger images are scaled down to this [px], so that a crop shows a good part of the scene."""

HARVARD = ("ct-mri", "pet-mri", "spect-mri")


@dataclass(frozen=True)
class Item:
    """A visible image or an aligned pair for training.

    :ivar name: source and stem
    :ivar visible: uint8 [H, W, 3] RGB
    :ivar infrared: uint8 [H, W], or None
    :ivar sky: uint8 [H, W], 255 in the sky; None if unknown
    """

    name: str
    visible: np.ndarray
    infrared: np.ndarray | None = None
    sky: np.ndarray | None = None


@dataclass(frozen=True)
class Source:
    """An item on disk.

    :ivar name: source and stem
    :ivar visible: path of the visible image
    :ivar infrared: path of the infrared image, or None
    :ivar labels: path of CamVid's label image, which contains the sky, or None
    :ivar street: whether a bright region at the upper border is taken for the sky
    """

    name: str
    visible: Path
    infrared: Path | None = None
    labels: Path | None = None
    street: bool = False

    def load(self) -> Item:
        """Read the images, scaled down if they are larger than :data:`LONGEST_SIDE`.

        :raises FileError: unreadable
        :raises ImageError: the images of a pair differ in size
        """
        visible = to_uint8(read_visible(self.visible), str(self.visible))
        infrared = None
        if self.infrared is not None:
            infrared = read_infrared_levels(self.infrared)[0]
            _check_size(self.infrared, infrared, visible)
        sky = None
        if self.labels is not None:
            sky = np.where(read_infrared(self.labels) == CAMVID_SKY, 255, 0).astype(np.uint8)
            _check_size(self.labels, sky, visible)
        scale = LONGEST_SIDE / max(visible.shape[:2])
        if scale < 1:
            visible = _shrink(visible, scale)
            infrared = None if infrared is None else _shrink(infrared, scale)
            sky = None if sky is None else _shrink(sky, scale)
        if sky is None and self.street:
            sky = _bright_sky(visible)
        return Item(self.name, visible, infrared, sky)


def load_shuffled(sources: Sequence[Source], seed: int = 0) -> Iterator[Item]:
    """Read the sources in random order, since neighbors in a folder are often similar.

    :param sources: not changed
    :param seed: determines the order
    """
    shuffled = list(sources)
    random.Random(seed).shuffle(shuffled)
    for source in shuffled:
        yield source.load()


def pair_sources(visible: Path, infrared: Path) -> list[Source]:
    """List the pairs of two folders, matched by stem.

    :param visible: folder of the visible images
    :param infrared: folder of the infrared images
    :raises FileError: a folder is missing or empty, or an image has no counterpart
    """
    listing = find_pairs(visible, infrared)
    for stems, folder in ((listing.visible_only, infrared), (listing.infrared_only, visible)):
        if stems:
            some = f"{', '.join(stems[:5])}{', ...' if len(stems) > 5 else ''}"
            raise FileError(
                f"the folder {folder}",
                "one with a counterpart for every image of the other",
                f"{len(stems)} missing: {some}",
                "visible images without a counterpart can be given as clean ones",
            )
    return [Source(f"pairs/{pair.stem}", pair.visible, pair.infrared, street=True) for pair in listing]


def clean_sources(folder: Path) -> list[Source]:
    """List the clean visible images of a folder.

    :param folder: path
    :raises FileError: the folder is missing or empty
    """
    return [Source(f"clean/{folder.name}/{path.stem}", path) for path in _images(folder)]


def harvard_sources(root: Path) -> list[Source]:
    """List the training pairs of the Harvard Whole Brain Atlas: CT, PET or SPECT as visible, MRI as infrared.

    :param root: contains some of ``ct-mri``, ``pet-mri``, ``spect-mri``, each with ``train/a`` and ``train/b``
    :raises FileError: ``root`` contains none of them
    """
    found = [root / name / "train" for name in HARVARD if (root / name / "train").is_dir()]
    if not found:
        raise FileError(str(root), f"a folder with {', '.join(HARVARD)}", "none of them")
    return [
        Source(f"{folder.parent.name}/{pair.stem}", pair.visible, pair.infrared)
        for folder in found
        for pair in find_pairs(folder / "a", folder / "b")
    ]


def road_sources(root: Path) -> list[Source]:
    """List the training images of ``roadscene``, ``camvid`` and ``bsds500``, as far as they exist.

    These are RoadScene's training pairs without those close to a test frame, their larger visible originals, CamVid's
    training frames with their sky, and the BSDS images.

    :param root: data folder that contains the data sets
    :raises FileError: ``root`` contains none of them
    """
    sources: list[Source] = []
    road, camvid = root / "roadscene", root / "camvid" / "train"
    near: set[str] = set()
    if (road / "train_near_test.txt").is_file():
        near = set((road / "train_near_test.txt").read_text(encoding="utf-8").split())
    if (road / "train" / "vis").is_dir():
        for pair in find_pairs(road / "train" / "vis", road / "train" / "ir"):
            if pair.stem not in near:
                sources.append(Source(f"pair/vis/{pair.stem}", pair.visible, pair.infrared, street=True))
    if (road / "train" / "vis_hr").is_dir():
        large = [path for path in _images(road / "train" / "vis_hr") if path.stem not in near]
        sources.extend(Source(f"large/vis_hr/{path.stem}", path, street=True) for path in large)
    if (camvid / "images").is_dir():
        for pair in find_pairs(camvid / "images", camvid / "labels"):
            sources.append(Source(f"camvid/images/{pair.stem}", pair.visible, labels=pair.infrared))
    for folder in (root / "bsds500" / "train", root / "bsds500" / "val"):
        if folder.is_dir():
            sources.extend(Source(f"bsds/{folder.name}/{path.stem}", path) for path in _images(folder))
    if not sources:
        raise FileError(str(root), "a data folder with roadscene, camvid or bsds500", "none of them")
    return sources


def _images(folder: Path) -> list[Path]:
    """The images of a folder, sorted by stem."""
    return [pair.visible for pair in find_pairs(folder, folder)]


def _check_size(path: Path, image: np.ndarray, visible: np.ndarray) -> None:
    if image.shape != visible.shape[:2]:
        height, width = visible.shape[:2]
        expected = f"as large as the visible image of its pair ({width} x {height} pixels)"
        raise ImageError(f"the image {path}", expected, f"{image.shape[1]} x {image.shape[0]}")


def _shrink(image: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _bright_sky(visible: np.ndarray) -> np.ndarray:
    """Estimate the sky of a street by day: the bright regions that touch the upper border."""
    grey = cv2.GaussianBlur(cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY), (0, 0), 2)
    _, regions = cv2.connectedComponents((grey > 150).astype(np.uint8))
    touching = np.unique(regions[0][grey[0] > 150])
    return np.where(np.isin(regions, touching[touching > 0]), 255, 0).astype(np.uint8)
