"""Resolve ROS 2 parameter files: which sections are for a node, and in which order they count.

    /**:                        # every node
      ros__parameters: {steps: 2}
    /front:                     # a namespace; or in one: /front/fusion_node
      fusion_node:
        ros__parameters: {seed: 1}

``**`` stands for any number of names and ``*`` for one. What rclpy does with the same files, tried with version 7.1.6,
is done here: sections count in the order in which their names first appear, in all files together, a later one before
an earlier one; within a section the later file goes before the earlier one. A name without a slash at its beginning is
one with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from textdifuse_ros.errors import ConfigError

KEY = "ros__parameters"
OWN_OF_ROS = ("use_sim_time", "start_type_description_service")
"""Parameters that rclpy declares for every node."""
OWN_PREFIX_OF_ROS = "qos_overrides."


def node_parameters(
    contents: Mapping[str, Mapping[str, Any]], node: str, warn: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """Merge the parameters of a node from several files.

    :param contents: content by file, in the order given; plain mappings of parameters count for the node
    :param node: its name with its namespace, as ``/front/fusion_node``
    :param warn: takes a line about sections of the same name in another namespace, which do not count
    :returns: values by parameter; of nested ones the names are joined by points. Without those of every node
    :raises ConfigError: sections that are not mappings; sections for other nodes only
    """
    parts = _names(node)
    sections: dict[tuple[str, ...], dict[str, Any]] = {}
    for path, content in contents.items():
        for name, values in _sections(content, path):
            sections.setdefault(parts if name is None else name, {}).update(values)
    ours = [name for name in sections if _matches(name, parts)]
    if not ours and len(sections) == 1:
        ours = list(sections)  # a file for a single node is meant, whatever the node is called
    elif not ours and sections:
        found = ", ".join(sorted(_joined(name) for name in sections))
        raise ConfigError("the parameter files", f"for {_joined(parts)}", f"sections for {found}", "name it by --name")
    namesakes = sorted(_joined(name) for name in sections if name not in ours and name[-1:] == parts[-1:])
    if namesakes:
        warn(f"parameters for {', '.join(namesakes)} do not count for {_joined(parts)}")
    merged: dict[str, Any] = {}
    for name in ours:
        merged.update(sections[name])
    return {name: value for name, value in merged.items() if not is_own_of_ros(name)}


def is_own_of_ros(name: str) -> bool:
    """Whether ROS itself declares this parameter for a node.

    :param name: of a parameter
    """
    return name in OWN_OF_ROS or name.startswith(OWN_PREFIX_OF_ROS)


def _sections(content: Mapping[str, Any], path: str) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """The sections of a file: the names of a node and its namespaces, and its parameters; None for a plain file."""
    if not _has_sections(content):
        yield None, _flat(content)
        return
    waiting: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), content)]
    while waiting:
        names, mapping = waiting.pop(0)
        for key, value in mapping.items():
            if not isinstance(value, dict):
                where = f"{_joined(names)} in {path}" if names else path
                raise ConfigError(where, f"nodes with {KEY}", f"{key!r} without", f"put it under {KEY}")
            if key == KEY:
                yield names, _flat(value)
            else:
                waiting.append(((*names, *_names(key)), value))


def _has_sections(content: Mapping[str, Any]) -> bool:
    """Whether ``ros__parameters`` is a key anywhere."""
    return any(key == KEY or (isinstance(value, dict) and _has_sections(value)) for key, value in content.items())


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the names of nested parameters by points."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _names(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name)


def _joined(names: tuple[str, ...]) -> str:
    return "/" + "/".join(names)


def _matches(pattern: tuple[str, ...], node: tuple[str, ...]) -> bool:
    """Whether a section's name, which may have wildcards, is that of a node."""
    matched = {0}  # numbers of the node's names that the pattern so far may stand for
    for name in pattern:
        if name == "**":
            matched = set(range(min(matched), len(node) + 1)) if matched else matched
        else:
            matched = {count + 1 for count in matched if count < len(node) and name in ("*", node[count])}
    return len(node) in matched
