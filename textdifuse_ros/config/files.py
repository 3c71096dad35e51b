"""Configuration files: plain YAML or ROS 2 parameter files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from textdifuse_ros.config.base import from_mapping
from textdifuse_ros.config.ros_files import node_parameters
from textdifuse_ros.config.yaml_text import read_yaml
from textdifuse_ros.errors import ConfigError

T = TypeVar("T")


def load_config(
    kind: type[T], *paths: str | Path, node: str = "", warn: Callable[[str], object] = lambda text: None
) -> T:
    """Read and check a configuration from YAML files.

    Several files add up as after ``--ros-args``: a later one goes before an earlier one, a later section before an
    earlier one.

    :param kind: configuration dataclass
    :param paths: each a plain mapping of parameters, or a ROS 2 parameter file (``NODE: ros__parameters: {...}``), see
        :func:`.node_parameters`
    :param node: name of the node with its namespace, as ``/front/fusion_node``, whose sections count
    :param warn: takes a line about sections that might have been meant for this node
    :raises FileError: a file is missing or not valid YAML
    :raises ConfigError: a parameter is unknown, of the wrong type, or out of range; no section is for this node
    """
    contents = {str(path): read_mapping(path) for path in paths}
    values = node_parameters(contents, node, warn)
    return from_mapping(kind, values, " and ".join(contents))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that contains a mapping.

    :param path: file to read
    :returns: the mapping; empty for an empty file
    :raises FileError: the file is missing or not valid YAML
    :raises ConfigError: the content is not a mapping
    """
    content = read_yaml(path)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(str(path), "a mapping of parameter names to values", type(content).__name__)
    return content
