"""The text of a job of still images or of a recording: every image is searched, nothing is tracked."""

from __future__ import annotations

import numpy as np

from textdifuse_ros.checks import check_infrared, check_number, check_same_size, check_visible
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.localize.base import Localizer
from textdifuse_ros.localize.prompt import STRENGTH_HIGH, STRENGTH_LOW, Prompt, parse_prompt, resolve
from textdifuse_ros.localize.registry import make_localizer
from textdifuse_ros.runtime.key_frames import LOCATED, MaskProvenance
from textdifuse_ros.runtime.text_target import Detections


class ImageTarget:
    """A prompt and the localizer that searches each image for it; a :class:`.TextSource`.

    :param prompt: not empty
    :param strength: how much the objects are emphasized, in [-1, 2]
    :param localizer: stays the caller's to close
    """

    def __init__(self, prompt: Prompt, strength: float, localizer: Localizer) -> None:
        self.prompt, self.strength, self.localizer = prompt, strength, localizer
        self._counts = {phrase.index: 0 for phrase in prompt.phrases}

    @classmethod
    def from_config(cls, text: str, strength: float, config: LocalizerConfig) -> ImageTarget | None:
        """Parse the text and load the localizer; None for an empty text.

        :param text: the prompt, as in ``person, car:0.5``
        :param strength: in [-1, 2]
        :param config: of the localizer
        :raises TextDifuseError: text, strength or localizer are unusable
        """
        check_number("--strength", strength, STRENGTH_LOW, STRENGTH_HIGH)
        prompt = parse_prompt(text, "--text")
        if not prompt:
            return None
        localizer = make_localizer(config)
        if localizer.vocabulary is not None:
            resolve(prompt, localizer.vocabulary, "--text")
        return cls(prompt, strength, localizer)

    def detect(self, visible: np.ndarray | None, infrared: np.ndarray | None, stamp: float) -> Detections | None:
        """Find the objects of one pair.

        :param visible: uint8 or uint16 [H, W, 3] RGB; None finds nothing
        :param infrared: uint8 or uint16 [H, W]; None finds nothing
        :param stamp: of the pair [s]
        :raises ImageError: dtypes or sizes are not as stated
        """
        if visible is None or infrared is None:
            return None
        check_visible(visible)
        check_infrared(infrared)
        check_same_size(visible, infrared)
        found = self.localizer.locate(to_uint8(visible), to_uint8(infrared), self.prompt)
        for item in found.instances:
            self._counts[item.phrase] += 1
        provenance = MaskProvenance(self.prompt.text, LOCATED, stamp, self.localizer.name)
        return Detections(found, provenance, self.strength, tracked=False)

    @property
    def summary(self) -> str:
        """How many objects of each phrase were found so far, for a line to the user."""
        return ", ".join(f"{self._counts[phrase.index]} {phrase.text}" for phrase in self.prompt.phrases)
