"""Regions given by hand: a list of boxes, or a label image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import ConfigError, FileError, ImageError, quote
from textdifuse_ros.image.files import SUFFIXES, read_infrared
from textdifuse_ros.localize.base import Box, Instance, Localization, mask_box
from textdifuse_ros.localize.instances import split_regions
from textdifuse_ros.localize.prompt import Phrase, Prompt, bare_words, singulars

MAX_BOXES = 1000
WHITE = 255  # in a black-and-white mask: the first phrase


@dataclass(frozen=True)
class NamedBox:
    """A box and its phrase.

    :ivar name: lower case, without article; empty for the first phrase of any prompt
    :ivar box: (left, top, right, bottom) [pixels]
    """

    name: str
    box: Box


class FixedLocalizer:
    """Locates the same regions in every image; accepts any words.

    :param boxes: clipped to the image, matched to phrases by name, also in the plural
    :param labels: uint8 [H, W]: 0 = nothing, k = phrase k, 255 = the first phrase; each connected region of a label is
        one object
    """

    name = "fixed"
    vocabulary = None

    def __init__(self, boxes: Sequence[NamedBox] = (), labels: np.ndarray | None = None) -> None:
        self._boxes = tuple(boxes)
        self._labels = labels

    @classmethod
    def from_config(cls, config: LocalizerConfig) -> FixedLocalizer:
        """Read the parameter ``regions``.

        :param config: with ``regions``
        :raises ConfigError: no regions, or an invalid box
        :raises FileError: the file is missing or not readable
        """
        regions = config.regions.strip()
        if not regions:
            remedy = "as in 'person 10 20 50 80; car 100 40 180 90', or a file"
            raise ConfigError("regions", "given for the fixed localizer", "none", remedy)
        path = Path(regions)
        if path.suffix.lower() == ".txt":
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise FileError(str(path), "a readable text file", error) from error
            return cls(_read_boxes(lines, str(path)))
        if path.suffix.lower() in SUFFIXES:
            labels = read_infrared(path)
            if labels.dtype != np.uint8:
                raise FileError(str(path), "an image of 8 bits, level k for phrase k", labels.dtype)
            return cls(labels=labels)
        return cls(_read_boxes(regions.split(";"), "regions"))

    def locate(self, visible: np.ndarray, infrared: np.ndarray, prompt: Prompt) -> Localization:
        """See :meth:`.Localizer.locate`."""
        height, width = infrared.shape
        instances: list[Instance] = []
        for phrase in prompt.phrases:
            instances.extend(self._from_boxes(phrase, (height, width)))
            instances.extend(self._from_labels(phrase, (height, width)))
        return Localization(tuple(instances), (height, width), prompt.phrases)

    def close(self) -> None:
        """Do nothing."""

    def _from_boxes(self, phrase: Phrase, size: tuple[int, int]) -> list[Instance]:
        instances = []
        for item in self._boxes:
            if item.name in singulars(phrase.text) or (not item.name and phrase.index == 1):
                mask = fill_box(item.box, size)
                if mask.any():
                    instances.append(Instance(mask, mask_box(mask), 1.0, phrase.index))
        return instances

    def _from_labels(self, phrase: Phrase, size: tuple[int, int]) -> list[Instance]:
        if self._labels is None:
            return []
        if self._labels.shape != size:
            (height, width), (own_height, own_width) = size, self._labels.shape
            expected = f"as large as the image ({width} x {height} pixels)"
            raise ImageError("the mask given in regions", expected, f"{own_width} x {own_height}")
        levels = (1, WHITE) if phrase.index == 1 else (phrase.index,)
        masks = split_regions(np.isin(self._labels, levels), divide=False)
        return [Instance(mask, mask_box(mask), 1.0, phrase.index) for mask in masks]


def regions_file(config: LocalizerConfig) -> Path | None:
    """Return the file that contains the regions, or None if they are given directly.

    :param config: with ``regions``
    """
    path = Path(config.regions.strip())
    return path if path.suffix.lower() in (".txt", *SUFFIXES) else None


def fill_box(box: Box, size: tuple[int, int]) -> np.ndarray:
    """Convert a box to a mask, bool [H, W]; edges are rounded and clipped to the image.

    :param box: (left, top, right, bottom) [pixels]
    :param size: height and width [pixels]
    """
    mask = np.zeros(size, bool)
    left, top, right, bottom = (max(0, round(edge)) for edge in box)
    mask[top:bottom, left:right] = True
    return mask


def _read_boxes(lines: Sequence[str], where: str) -> list[NamedBox]:
    if len(lines) > MAX_BOXES:
        raise ConfigError(where, f"at most {MAX_BOXES} boxes", len(lines))
    return [_read_box(line, where) for line in lines if line.strip()]


def _read_box(line: str, where: str) -> NamedBox:
    *words, left, top, right, bottom = line.split() if len(line.split()) >= 4 else ["", *"abcd"]
    try:
        box = (float(left), float(top), float(right), float(bottom))
    except ValueError:
        box = (0.0, 0.0, 0.0, 0.0)
    if not (np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3]):
        raise ConfigError(f"a box in {where}", "'[phrase] left top right bottom' [pixels]", quote(line.strip()))
    return NamedBox(bare_words(" ".join(words).lower()), box)
