"""The pictures of a data folder: what they are called and where they lie.

The folder holds the public sets under the names ``roadscene``, ``camvid``, ``bsds500``; each may be absent.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.errors import FileError

CAMVID_SKY = 0
LONGEST_SIDE = 960


@dataclass(frozen=True)
class Item:
    """One picture, or one aligned pair, for training.

    :ivar name: unique within a data folder
    :ivar visible: uint8 [H, W, 3] RGB
    :ivar infrared: uint8 [H, W], or None
    :ivar sky: uint8 [H, W], 255 where the sky is, or None where that is unknown
    """

    name: str
    visible: np.ndarray
    infrared: np.ndarray | None = None
    sky: np.ndarray | None = None


def training_items(root: Path, seed: int = 0) -> Iterator[Item]:
    """All training pictures of a data folder, in a shuffled order that the seed fixes.

    RoadScene's training pairs without those that lie near a test frame, their larger visible originals, CamVid's
    training frames with their sky, and the BSDS pictures.

    :raises FileError: the folder holds none of the sets
    """
    sources: list[tuple[str, Path]] = []
    road = root / "roadscene"
    near = set()
    if (road / "train_near_test.txt").is_file():
        near = set((road / "train_near_test.txt").read_text(encoding="utf-8").split())
    for kind, folder in (
        ("pair", road / "train" / "vis"),
        ("large", road / "train" / "vis_hr"),
        ("camvid", root / "camvid" / "train" / "images"),
        ("bsds", root / "bsds500" / "train"),
        ("bsds", root / "bsds500" / "val"),
    ):
        files = sorted(path for path in folder.glob("*") if path.stem not in near)
        sources.extend((kind, path) for path in files)
    if not sources:
        raise FileError(str(root), "a data folder with roadscene, camvid or bsds500", "none of them")
    random.Random(seed).shuffle(sources)
    for kind, path in sources:
        yield _load(kind, path)


def _load(kind: str, path: Path) -> Item:
    visible = _read(path, cv2.IMREAD_COLOR)[:, :, ::-1]
    name = f"{kind}/{path.parent.name}/{path.stem}"
    if kind == "pair":
        infrared = _read(path.parent.parent / "ir" / path.name, cv2.IMREAD_GRAYSCALE)
        return Item(name, visible, infrared, _bright_sky(visible))
    if kind == "camvid":
        labels = _read(path.parent.parent / "labels" / f"{path.stem}.png", cv2.IMREAD_UNCHANGED)
        return Item(name, visible, None, np.where(labels == CAMVID_SKY, 255, 0).astype(np.uint8))
    scale = LONGEST_SIDE / max(visible.shape)
    if scale < 1:
        visible = cv2.resize(visible, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return Item(name, visible, None, _bright_sky(visible) if kind == "large" else None)


def _read(path: Path, flags: int) -> np.ndarray:
    picture = cv2.imread(str(path), flags)
    if picture is None:
        raise FileError(str(path), "a readable picture", "none")
    return picture


def _bright_sky(visible: np.ndarray) -> np.ndarray:
    """A guess at the sky of a street by day: the bright region that touches the upper border."""
    grey = cv2.GaussianBlur(cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY), (0, 0), 2)
    _, regions = cv2.connectedComponents((grey > 150).astype(np.uint8))
    touching = np.unique(regions[0][grey[0] > 150])
    return np.where(np.isin(regions, touching[touching > 0]), 255, 0).astype(np.uint8)
