"""What is to stand out in a row of pairs: the text, how much, and who finds it."""

from __future__ import annotations

import numpy as np

from textdifuse_ros.checks import check_infrared, check_number, check_same_size, check_visible
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.image.thermal import to_uint8
from textdifuse_ros.localize.base import Localization, Localizer
from textdifuse_ros.localize.prompt import STRENGTH_HIGH, STRENGTH_LOW, Prompt, parse_prompt, resolve
from textdifuse_ros.localize.registry import make_localizer


class Target:
    """A prompt with the localizer that looks for it in each pair anew; nothing is carried from one to the next."""

    def __init__(self, prompt: Prompt, strength: float, localizer: Localizer) -> None:
        self.prompt, self.strength, self.localizer = prompt, strength, localizer
        self._counts = {phrase.index: 0 for phrase in prompt.phrases}

    @classmethod
    def of(cls, text: str, strength: float, config: LocalizerConfig) -> Target | None:
        """None for an empty text; the localizer's weights are read.

        :param strength: in [-1, 2]
        :raises TextDifuseError: text, strength or localizer are wrong
        """
        check_number("--strength", strength, STRENGTH_LOW, STRENGTH_HIGH)
        prompt = parse_prompt(text, "--text")
        if not prompt:
            return None
        localizer = make_localizer(config)
        if localizer.vocabulary is not None:
            resolve(prompt, localizer.vocabulary, "--text")
        return cls(prompt, strength, localizer)

    def find(self, visible: np.ndarray, infrared: np.ndarray) -> Localization:
        """Where it is in a pair, uint8 or uint16 [H, W, 3] RGB and [H, W]."""
        check_visible(visible)
        check_infrared(infrared)
        check_same_size(visible, infrared)
        found = self.localizer(to_uint8(visible), to_uint8(infrared), self.prompt)
        for item in found.instances:
            self._counts[item.phrase] += 1
        return found

    @property
    def told(self) -> str:
        """How many objects of each phrase were found until now, for a line to the user."""
        return ", ".join(f"{self._counts[phrase.index]} {phrase.text}" for phrase in self.prompt.phrases)

    def emphasis(self, found: Localization) -> Emphasis:
        """What :meth:`find` found, as a fusion takes it."""
        return Emphasis.of(found, self.strength, self.prompt.text, self.localizer.name)
