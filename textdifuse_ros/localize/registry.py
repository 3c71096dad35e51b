"""Localizers by name, imported on demand."""

from __future__ import annotations

from textdifuse_ros.config.base import validate
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.localize.base import Localizer
from textdifuse_ros.localize.prompt import Vocabulary

_SETTINGS = {
    "builtin": ("localizer_model", "localizer_threshold", "localizer_device"),
    "detect_segment": ("detector", "segmenter", "box_threshold", "nms_iou", "localizer_device"),
    "sam3": ("segmenter", "box_threshold", "nms_iou", "localizer_device"),
    "fixed": ("regions",),
}
"""Parameters that each localizer is built from."""


def same_localizer(one: LocalizerConfig, other: LocalizerConfig) -> bool:
    """Check whether two configurations give the same localizer; parameters that it does not use may differ.

    :param one: a configuration
    :param other: another one
    """
    names = ("localizer", *_SETTINGS.get(one.localizer, ()))
    return all(getattr(one, name) == getattr(other, name) for name in names)


def make_localizer(config: LocalizerConfig) -> Localizer:
    """Load the localizer that a configuration names.

    :param config: its name and parameters
    :raises ConfigError: a parameter is wrong or missing, or a required package is not installed
    :raises CheckpointError, FileError: weights or regions are missing or damaged
    :raises DeviceError: the device is absent
    """
    validate(config)
    match config.localizer:
        case "builtin":
            from textdifuse_ros.localize.builtin import BuiltinLocalizer

            return BuiltinLocalizer.from_config(config)
        case "detect_segment":
            from textdifuse_ros.localize.detect_segment import DetectSegmentLocalizer

            return DetectSegmentLocalizer.from_config(config)
        case "sam3":
            from textdifuse_ros.localize.sam3 import Sam3Localizer

            return Sam3Localizer.from_config(config)
        case _:
            from textdifuse_ros.localize.fixed import FixedLocalizer

            return FixedLocalizer.from_config(config)


def known_words(config: LocalizerConfig) -> Vocabulary | None:
    """Return the vocabulary of a localizer without loading it; None if it accepts any words.

    :param config: names the localizer
    """
    if config.localizer != "builtin":
        return None
    from textdifuse_ros.localize.builtin import VOCABULARY

    return VOCABULARY
