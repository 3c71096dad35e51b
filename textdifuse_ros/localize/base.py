"""The protocol of all localizers, and the objects that they return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError
from textdifuse_ros.localize.prompt import STRENGTH_HIGH, STRENGTH_LOW, Phrase, Prompt, Vocabulary

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Instance:
    """One located object.

    :ivar mask: bool [H, W], of the whole image
    :ivar box: (left, top, right, bottom) [pixels], right and bottom excluded
    :ivar score: confidence in [0, 1]
    :ivar phrase: index of its phrase, from 1 (:attr:`.prompt.Phrase.index`)
    :ivar track: number of the object in a stream, the same in every image, 1 .. 65535; 0 outside a stream
    :ivar stamp: stamp of the image in which it was located [s]; in a stream its mask may have been tracked since
    """

    mask: np.ndarray
    box: Box
    score: float
    phrase: int
    track: int = 0
    stamp: float | None = None


@dataclass(frozen=True, eq=False)
class Localization:
    """The objects located in one image, possibly none.

    :ivar instances: in any order; masks may overlap
    :ivar size: height and width of the image [pixels]
    :ivar phrases: all phrases of the prompt
    :raises ImageError: a mask that is not bool [H, W]
    """

    instances: tuple[Instance, ...]
    size: tuple[int, int]
    phrases: tuple[Phrase, ...]

    def __post_init__(self) -> None:
        for item in self.instances:
            if item.mask.dtype != bool or item.mask.shape != self.size:
                raise ImageError("the mask of an instance", f"bool {list(self.size)}", describe(item.mask))

    def __bool__(self) -> bool:
        return bool(self.instances)

    def label_map(self) -> np.ndarray:
        """Paint the phrases, uint8 [H, W]: 0 = nothing, k = phrase k.

        Where masks overlap, the higher score wins, then the smaller object.
        """
        return self._paint([item.phrase for item in self.instances], np.uint8)

    def instance_map(self) -> np.ndarray:
        """Paint the instances, uint16 [H, W]: 0 = nothing, else the track, or the index from 1 without tracks."""
        tracked = all(item.track for item in self.instances)
        return self._paint([item.track if tracked else n for n, item in enumerate(self.instances, 1)], np.uint16)

    def strength_map(self, strength: float = 1.0) -> np.ndarray:
        """Paint the strengths, float32 [H, W] in [-1, 2]; 0 outside the objects.

        :param strength: in [-1, 2], multiplies the strength of each phrase; the product is clipped
        """
        table = np.zeros(256, np.float32)
        for phrase in self.phrases:
            table[phrase.index] = np.clip(phrase.strength * strength, STRENGTH_LOW, STRENGTH_HIGH)
        return table[self.label_map()]

    def _paint(self, values: Sequence[int], dtype: type[np.unsignedinteger]) -> np.ndarray:
        painted: np.ndarray = np.zeros(self.size, dtype)
        # At equal scores the smaller object is on top: a person in front of a car, both given by hand, stays visible.
        order = sorted(
            range(len(self.instances)),
            key=lambda n: (self.instances[n].score, -int(np.count_nonzero(self.instances[n].mask))),
        )
        for n in order:
            painted[self.instances[n].mask] = values[n]
        return painted


def mask_box(mask: np.ndarray) -> Box:
    """Compute the bounding box of a mask, see :attr:`Instance.box`; all zeros if the mask is empty.

    :param mask: bool [H, W]
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


class Localizer(Protocol):
    """Locates the objects that a prompt names in an aligned pair of images.

    Not thread-safe, but any thread may call it. Configuration errors, for example missing weights, are raised by the
    constructor.
    """

    @property
    def name(self) -> str:
        """Names of the localizer and of its weights, for provenance."""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The known classes with their synonyms, or None if any words are accepted."""

    def locate(self, visible: np.ndarray, infrared: np.ndarray, prompt: Prompt) -> Localization:
        """Locate the objects of all phrases.

        :param visible: uint8 [H, W, 3] RGB
        :param infrared: uint8 [H, W]
        :param prompt: if empty, nothing is located
        :raises ConfigError: a phrase is not in the vocabulary
        :raises ImageError: wrong dtypes or sizes
        """

    def close(self) -> None:
        """Free the memory. The object cannot be used afterwards."""
