"""All training images in one memory-mapped file, of which a crop reads only its own bytes.

``path`` is that of the pack, ``entry`` one item of its index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from textdifuse_ros.data.pairs import Item
from textdifuse_ros.errors import FileError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """The places of one item's images in the file.

    :ivar visible, infrared, sky: offset in bytes; -1 where there is none
    """

    name: str
    height: int
    width: int
    visible: int
    infrared: int
    sky: int


def read_index(path: Path, kind: str, entry: Callable[..., T]) -> tuple[str, list[T]]:
    """Read the digest and the entries of a pack's index.

    :param kind: name of the kind with its article, for errors
    :param entry: takes the values of one entry by name
    :raises FileError: pack or index are missing, of another kind, or not of the length that the index says
    """
    index = path.with_suffix(path.suffix + ".json")
    if not path.is_file() or not index.is_file():
        raise FileError(str(path), f"{kind} with its .json index", "no such file")
    text = index.read_bytes()
    try:
        content = json.loads(text)
        size, entries = int(content["bytes"]), [entry(**values) for values in content["entries"]]
    except (ValueError, KeyError, TypeError) as error:
        found = f"something else ({error})"
        raise FileError(str(index), f"the index of {kind}", found, "pack it again") from None
    if size != path.stat().st_size:
        raise FileError(str(path), f"{size} bytes long", path.stat().st_size, "pack it again")
    return hashlib.sha256(text).hexdigest(), entries


@contextmanager
def new_pack(path: Path) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
    """Write a pack: yields its file and the content of its index; installed when the block ends without an error.

    :raises OSError: it cannot be written; nothing remains
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    content: dict[str, Any] = {}
    try:
        with partial.open("wb") as file:
            yield file, content
        path.with_suffix(path.suffix + ".json").write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class ImagePack:
    """A written pack, open for reading; may be opened by several processes at once.

    :param path: of the pack; ``PATH.json`` beside it is its index
    :ivar digest: sha256 of the index, which holds that of the images
    :raises FileError: missing, or shorter than its index says
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.digest, self.entries = read_index(self.path, "an image pack", Entry)
        self._bytes = np.memmap(self.path, np.uint8, mode="r")

    def visible(self, entry: Entry) -> np.ndarray:
        """uint8 [H, W, 3] RGB, a read-only view of the file."""
        return self._view(entry.visible, (entry.height, entry.width, 3))

    def infrared(self, entry: Entry) -> np.ndarray:
        """uint8 [H, W], a read-only view of the file."""
        return self._view(entry.infrared, (entry.height, entry.width))

    def sky(self, entry: Entry) -> np.ndarray | None:
        """uint8 [H, W], 255 in the sky, or None where that is unknown."""
        return None if entry.sky < 0 else self._view(entry.sky, (entry.height, entry.width))

    def _view(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        return self._bytes[offset : offset + int(np.prod(shape))].reshape(shape)


def write_pack(path: str | Path, items: Iterable[Item]) -> int:
    """Write a pack and its index; an existing one is replaced only by a complete one.

    :returns: number of items
    """
    entries = []
    offset = 0
    digest = hashlib.sha256()
    with new_pack(Path(path)) as (file, content):
        for item in items:
            places = []
            for image in (item.visible, item.infrared, item.sky):
                places.append(-1 if image is None else offset)
                if image is not None:
                    data = np.ascontiguousarray(image, np.uint8).tobytes()
                    digest.update(data)
                    offset += file.write(data)
            entries.append(Entry(item.name, *item.visible.shape[:2], *places))
        content |= {"bytes": offset, "sha256": digest.hexdigest(), "entries": [vars(entry) for entry in entries]}
    return len(entries)
