"""Message types by name, and names of topics."""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.node import Node

from textdifuse_ros.bags.cameras import calibration_beside
from textdifuse_ros.errors import ConfigError, InputError


def message_class(name: str) -> Any:
    """The Python class of a message type.

    :param name: such as ``sensor_msgs/msg/Image``
    :raises InputError: its package is not installed, or has no such message
    """
    package, _, rest = name.partition("/")
    group, _, kind = rest.partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.{group}"), kind)
    except (ImportError, AttributeError) as error:
        remedy = f"install the ROS package {package}, or leave this topic out"
        raise InputError(f"the message type {name}", "installed", "nothing of that name", remedy) from error


def resolved_topic(node: Node, name: str) -> str:
    """The full name of a topic, after remapping.

    :param node: resolves it
    :param name: of the topic
    :raises ConfigError: the parameter ``topics`` names one that breaks the rules of ROS
    """
    try:
        return str(node.resolve_topic_name(name))
    except RuntimeError as error:  # RCLError is one; its text ends with a line of rcl's source
        reason = str(error).removeprefix("failed to resolve name: ").partition(", at /")[0]
        raise ConfigError("topics", "names of topics by the rules of ROS", f"{name!r} ({reason})") from error


def calibration_name(node: Node, stream: str) -> str:
    """The name of a camera's ``camera_info``: beside its images, unless it is remapped itself.

    A remapped one is returned unresolved, since a resolved name would be remapped again.

    :param node: resolves it
    :param stream: ``visible`` or ``infrared``
    """
    own = f"{stream}/camera_info"
    if node.resolve_topic_name(own) != node.resolve_topic_name(own, only_expand=True):
        return own
    return calibration_beside(str(node.resolve_topic_name(f"{stream}/image")))
