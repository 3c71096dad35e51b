"""Configuration files: plain YAML, or a ROS 2 parameter file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml

from textdifuse_ros.config.base import from_mapping, to_mapping
from textdifuse_ros.errors import ConfigError, FileError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Refuses a name that is there twice, as YAML does; PyYAML takes the last and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def load_config(kind: type[T], path: str | Path) -> T:
    """Read and check one configuration.

    A ROS 2 parameter file (``NODE: ros__parameters: {...}``) with a single node is read as well.

    :raises FileError: the file is missing or no YAML
    :raises ConfigError: a parameter is unknown, of another type or out of range
    """
    content = read_mapping(path)
    if len(content) == 1:
        (inner,) = content.values()
        if isinstance(inner, dict) and set(inner) == {"ros__parameters"}:
            content = inner["ros__parameters"]
            if not isinstance(content, dict):
                raise ConfigError(str(path), "a mapping of parameter names to values", type(content).__name__)
    return from_mapping(kind, content, str(path))


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """The content of a YAML file whose top is a mapping; an empty file is an empty one.

    :raises FileError: the file is missing or no YAML
    :raises ConfigError: it holds something else than a mapping
    """
    path = Path(path)
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise FileError(str(path), "a readable configuration file", error.strerror or error) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(str(path), "YAML", str(error).replace("\n", " ")) from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(str(path), "a mapping of parameter names to values", type(content).__name__)
    return content


def save_config(config: Any, path: str | Path) -> None:
    """Write a configuration as plain YAML."""
    Path(path).write_text(yaml.safe_dump(to_mapping(config), sort_keys=False), encoding="utf-8")
