"""Localizations as a COCO instances file, for annotation tools and evaluators.

Segmentations are uncompressed run-length encodings (``counts`` is a list, in column order, zeros first), as in COCO's
crowd annotations; pycocotools reads them in every annotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from textdifuse_ros.localize.base import Localization
from textdifuse_ros.localize.prompt import Prompt


def run_lengths(mask: np.ndarray) -> list[int]:
    """Encode a mask as run lengths in column order, zeros first; they add up to its number of pixels.

    :param mask: bool [H, W]
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    lengths: list[int] = np.diff(edges).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


class CocoDocument:
    """The content of the file, built image by image; masks are not kept in memory.

    Category k is phrase k, with its strength; boxes are [left, top, width, height] [pixels].

    :param prompt: its phrases are the categories
    :param info: JSON-able, for the ``info`` of the file
    :ivar counts: number of objects of each phrase, by its index
    """

    def __init__(self, prompt: Prompt, info: Mapping[str, Any]) -> None:
        self._info = dict(info)
        self._categories = [{"id": item.index, "name": item.text, "strength": item.strength} for item in prompt.phrases]
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self.counts = {item.index: 0 for item in prompt.phrases}

    def add(self, file_name: str, infrared_file_name: str, objects: Localization) -> None:
        """Add the objects of an image.

        :param file_name: of the visible image
        :param infrared_file_name: of the infrared image
        :param objects: of the image
        """
        height, width = objects.size
        number = len(self._images) + 1
        names = {"file_name": file_name, "infrared_file_name": infrared_file_name}
        self._images.append({"id": number, **names, "height": height, "width": width})
        for item in objects.instances:
            left, top, right, bottom = item.box
            self.counts[item.phrase] += 1
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": item.phrase,
                    "segmentation": {"size": [height, width], "counts": run_lengths(item.mask)},
                    "area": int(np.count_nonzero(item.mask)),
                    "bbox": [round(edge, 2) for edge in (left, top, right - left, bottom - top)],
                    "score": round(item.score, 5),
                    "iscrowd": 0,
                }
            )

    def content(self) -> dict[str, Any]:
        """Return the whole document, JSON-able."""
        return {
            "info": self._info,
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories,
        }
