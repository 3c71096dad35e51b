"""Read YAML that may be anything: bounded in size, depth and time, and with one typed error.

Keys are text, as in ROS 2: ``1``, ``y`` and ``null`` are names there, not numbers or truth values. Values are those of
YAML 1.1 with ROS's additions and without its surprises: ``y`` and ``n`` are truth values, ``1e-3`` is a number,
``12:30`` and ``2026-01-31`` are text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from textdifuse_ros.errors import FileError, shorten

MAX_BYTES = 500_000
"""Largest YAML file."""
MAX_DEPTH = 32
"""Deepest nesting of lists and mappings, aliases written out."""
MAX_VALUES = 50_000
"""Largest number of values, aliases written out; PyYAML reads about 40,000 a second."""

_TRUTH = {"y": True, "n": False, **yaml.SafeLoader.bool_values}
_PREFIX = "tag:yaml.org,2002:"
_BOOL = re.compile(r"y|Y|n|N|yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_OWN = {"bool", "int", "float"}


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, keys that are no text, deep nesting and aliases that multiply."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML has it here)
        first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_PREFIX) not in _OWN]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    bool_values = _TRUTH

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth, self._composed = 0, 0
        self._extents: dict[int, tuple[int, int]] = {}  # by node: number of values, depth

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and bound what it stands for once its aliases are written out."""
        event = self.peek_event()
        is_alias = self.check_event(yaml.AliasEvent)
        if self._depth > MAX_DEPTH:
            raise ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        self._depth += 1
        self._composed += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._extents:
            raise ComposerError(None, None, "an alias within what it stands for", event.start_mark)
        if not is_alias:
            self._extents[id(node)] = self._extent(node)
        count, depth = self._extents[id(node)]
        if max(count, self._composed) > MAX_VALUES or depth > MAX_DEPTH:
            limit = f"more than {MAX_VALUES} values or {MAX_DEPTH} levels, aliases written out"
            raise ComposerError(None, None, limit, event.start_mark)
        return node

    def _extent(self, node: yaml.Node | None) -> tuple[int, int]:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        extents = [self._extents[id(child)] for child in children]
        return 1 + sum(count for count, _ in extents), max((depth + 1 for _, depth in extents), default=0)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; whatever PyYAML raises becomes an error that tells the place."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
            kind = node.tag.removeprefix(_PREFIX)
            problem = f"no valid {shorten(kind, 80)} ({shorten(str(error), 120)})"
            raise ConstructorError(None, None, problem, node.start_mark) from error

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; make its keys text, and refuse duplicates, which PyYAML accepts."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                raise ComposerError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen:
                raise ComposerError(None, None, f"duplicate key {shorten(key.value, 80)}", key.start_mark)
            seen.add(key.value)
            if key.tag != _PREFIX + "merge":
                key.tag = _PREFIX + "str"
        return node

    def construct_date_as_text(self, node: yaml.ScalarNode) -> str:
        """Keep a date as text, as ROS does; one that does not exist is an error."""
        self.construct_yaml_timestamp(node)
        return str(node.value)

    def construct_opencv_matrix(self, node: yaml.MappingNode) -> Any:
        """Read a matrix of OpenCV's FileStorage as the mapping that it is."""
        return self.construct_mapping(node, deep=True)


for _kind, _pattern, _first in (
    ("bool", _BOOL, "yYnNtTfFoO"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
):
    _Loader.add_implicit_resolver(_PREFIX + _kind, re.compile(f"^(?:{_pattern.pattern})$"), list(_first))
_Loader.add_constructor(_PREFIX + "timestamp", _Loader.construct_date_as_text)
_Loader.add_constructor(_PREFIX + "opencv-matrix", _Loader.construct_opencv_matrix)


def read_yaml(path: str | Path, what: str = "configuration file") -> Any:
    """Read a YAML file.

    :param path: of the file, UTF-8
    :param what: kind of file, for errors
    :returns: text, numbers, truth values, None, lists, and mappings with keys of text
    :raises FileError: missing or too large, or :func:`parse_yaml` raises it
    """
    return parse_yaml(read_text(path, what), path)


def read_text(path: str | Path, what: str) -> str:
    """Read a text file of at most :data:`MAX_BYTES`.

    :param path: of the file, UTF-8
    :param what: kind of file, for errors
    :raises FileError: missing, too large, or not UTF-8
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(content) <= MAX_BYTES:
            raise FileError(str(path), "text in UTF-8", error) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise FileError(str(path), f"a readable {what}", getattr(error, "strerror", None) or error) from error
    if len(content) > MAX_BYTES:
        raise FileError(str(path), f"a {what} of at most {MAX_BYTES} bytes", "a larger one")
    return text


def parse_yaml(text: str, path: str | Path) -> Any:
    """Parse YAML.

    :param text: of at most :data:`MAX_BYTES`
    :param path: of the file, for errors
    :returns: text, numbers, truth values, None, lists, and mappings with keys of text
    :raises FileError: not valid YAML; a key that is no text or occurs twice; nested or repeated beyond
        :data:`MAX_DEPTH` and :data:`MAX_VALUES`
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise FileError(str(path), "YAML", f"{shorten(error.problem or 'an error', 300)}{place}") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise FileError(str(path), "YAML", shorten(" ".join(str(error).split()), 300)) from error
