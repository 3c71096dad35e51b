"""Checks before a run."""

from __future__ import annotations

import importlib.util

from textdifuse_ros.checkpoint import find_checkpoint
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import InputError


def check_ros(what: str) -> None:
    """Check that the nodes can be started.

    :param what: what needs them, for the error
    :raises InputError: rclpy is not installed
    """
    if importlib.util.find_spec("rclpy") is None:
        remedy = "install the package with its extra [ros], or source a ROS 2 installation"
        raise InputError("rclpy", f"installed for {what}", "no module of that name", remedy)


def check_text(name: str, text: str) -> bool:
    """Check a target text, and return whether it names any object.

    :param name: name of the argument, for the error
    :param text: for example ``person, car:0.5``; may be empty
    :raises ConfigError: it cannot be parsed, or has a word that the localizer does not know
    :raises CheckpointError: the weights of the localizer are missing
    """
    from textdifuse_ros.localize.prompt import parse_prompt, resolve
    from textdifuse_ros.localize.registry import known_words

    localizer = LocalizerConfig()
    prompt = parse_prompt(text, name)
    if prompt:
        resolve(prompt, known_words(localizer) or {}, name)
        find_checkpoint(localizer.localizer_model)
    return bool(prompt)
