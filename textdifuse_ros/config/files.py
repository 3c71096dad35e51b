"""Configuration files: plain YAML or ROS 2 parameter files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml

from textdifuse_ros.config.base import from_mapping, to_mapping
from textdifuse_ros.errors import ConfigError, FileError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, which the YAML specification forbids but PyYAML accepts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def load_config(kind: type[T], path: str | Path) -> T:
    """Read and check a configuration from a YAML file.

    :param kind: configuration dataclass
    :param path: file with a mapping of parameters, or ROS 2 parameter file (``NODE: ros__parameters: {...}``) of a
        single node
    :raises FileError: the file is missing or not valid YAML
    :raises ConfigError: a parameter is unknown, of the wrong type, or out of range
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
    """Read a YAML file that contains a mapping.

    :param path: file to read
    :returns: the mapping; empty for an empty file
    :raises FileError: the file is missing or not valid YAML
    :raises ConfigError: the content is not a mapping
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
    """Write a configuration to a plain YAML file.

    :param config: instance of a configuration dataclass
    :param path: file to write
    """
    Path(path).write_text(yaml.safe_dump(to_mapping(config), sort_keys=False), encoding="utf-8")
