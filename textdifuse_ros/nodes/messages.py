"""Message types by name."""

from __future__ import annotations

import importlib
from typing import Any

from textdifuse_ros.errors import InputError


def message_class(name: str) -> Any:
    """The Python class of a message type.

    :param name: as ``sensor_msgs/msg/Image``
    :raises InputError: its package is not installed, or has no such message
    """
    package, _, rest = name.partition("/")
    group, _, kind = rest.partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.{group}"), kind)
    except (ImportError, AttributeError) as error:
        remedy = f"install the ROS package {package}, or leave this topic out"
        raise InputError(f"the message type {name}", "installed", "nothing of that name", remedy) from error
