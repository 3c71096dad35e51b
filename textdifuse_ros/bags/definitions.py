"""Definitions of message types, from ``rosbags`` and from the installed packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from textdifuse_ros.errors import BagError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

IMAGE_TYPE = "sensor_msgs/msg/Image"


def common_types() -> Typestore:
    """Return a new type store with the common interfaces of ROS 2 Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


def add_installed_type(store: Typestore, name: str) -> None:
    """Register a type and its nested types from the ``.msg`` files of the installed packages.

    :param store: the type store to extend
    :param name: type, for example ``sensor_msgs/msg/Image``; types that the store knows are skipped
    :raises BagError: a file is missing or unreadable
    """
    found: dict[str, Any] = {}
    pending = [name]
    while pending:
        kind = pending.pop()
        if kind in store.fielddefs or kind in found:
            continue
        path = _message_file(kind, name)
        try:
            found.update(get_types_from_msg(path.read_text(encoding="utf-8"), kind))
            pending += [part for _, field in found[kind][1] for part in _nested_types(field)]
        except Exception as error:  # the parser raises many kinds of errors
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BagError(f"the definition {path.name} of {kind}", "readable", reason) from error
    if found:
        store.register(found)


def add_recorded_type(store: Typestore, name: str, definition: MessageDefinition) -> bool:
    """Register a type and its nested types from the definition that a recording has.

    :param store: the type store to extend; types that it knows are skipped
    :param name: type, for example ``sensor_msgs/msg/Image``
    :param definition: as recorded
    :returns: whether the store knows the type now
    """
    if name not in store.fielddefs and definition.format == MessageDefinitionFormat.MSG:
        with suppress(Exception):  # the parser raises many kinds of errors; the installed packages may have the type
            found = get_types_from_msg(definition.data, name)
            store.register({kind: fields for kind, fields in found.items() if kind not in store.fielddefs})
    return name in store.fielddefs


def _message_file(kind: str, outer: str) -> Path:
    package, _, rest = kind.partition("/")
    group, _, stem = rest.partition("/")
    if group == "msg" and stem:
        for prefix in _prefixes():
            path = prefix / "share" / package / "msg" / f"{stem}.msg"
            if path.is_file():
                return path
    part = "" if kind == outer else f", used by {outer},"
    remedy = "install its package, or source the workspace that contains it"
    raise BagError(f"the message type {kind}{part}", "defined by a .msg file of an installed package", "none", remedy)


def _prefixes() -> Iterator[Path]:
    """Yield the prefixes of installed packages: of colcon workspaces, and of the Python environment."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix)
    yield Path(sys.prefix)
    for folder in map(Path, sys.path):
        if folder.name in ("site-packages", "dist-packages") and len(folder.parents) > 2:
            yield folder.parents[2]  # PREFIX/lib/python3.N/site-packages


def _nested_types(field: tuple[Any, Any]) -> Iterable[str]:
    """Return the names of the message types used by a field."""
    node, detail = field
    if node == Nodetype.NAME:
        return [detail]
    return _nested_types(detail[0]) if node in (Nodetype.ARRAY, Nodetype.SEQUENCE) else []
