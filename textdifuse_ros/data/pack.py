"""All training images in one file, written once and memory-mapped: a crop reads only its own bytes."""

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
class ImageEntry:
    """The index entry of one item.

    :ivar name: source and stem
    :ivar height: [pixels]
    :ivar width: [pixels]
    :ivar visible: offset in the file [bytes]
    :ivar infrared: likewise; -1 if there is none
    :ivar sky: likewise; -1 if there is none
    """

    name: str
    height: int
    width: int
    visible: int
    infrared: int
    sky: int


def read_index(path: Path, kind: str, entry: Callable[..., T]) -> tuple[str, list[T]]:
    """Read the index of a pack.

    :param path: of the pack; the index is ``PATH.json``
    :param kind: kind of pack with its article, for errors
    :param entry: creates an entry from keyword arguments
    :returns: SHA-256 of the index, and the entries
    :raises FileError: pack or index is missing, of another kind, or of another length than the index states
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
        raise FileError(str(index), f"the index of {kind}", found, "create the pack again") from None
    if size != path.stat().st_size:
        raise FileError(str(path), f"{size} bytes long", path.stat().st_size, "create the pack again")
    return hashlib.sha256(text).hexdigest(), entries


@contextmanager
def new_pack(path: Path) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
    """Open a new pack for writing; it replaces an existing one when the block ends without an error.

    :param path: of the pack
    :returns: the file, and a dictionary for the contents of the index
    :raises OSError: the pack cannot be written; the partial file is deleted
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
    """An image pack, open for reading; several processes may open it at the same time.

    :param path: of the pack; its index is ``PATH.json``
    :ivar digest: SHA-256 of the index, which contains that of the images
    :ivar entries: one :class:`ImageEntry` per item
    :raises FileError: missing, or of another length than its index states
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.digest, self.entries = read_index(self.path, "an image pack", ImageEntry)
        self._bytes = np.memmap(self.path, np.uint8, mode="r")

    def visible(self, entry: ImageEntry) -> np.ndarray:
        """The visible image.

        :param entry: of this pack
        :returns: uint8 [H, W, 3] RGB, a read-only view of the file
        """
        return self._view(entry.visible, (entry.height, entry.width, 3))

    def infrared(self, entry: ImageEntry) -> np.ndarray:
        """The infrared image.

        :param entry: of this pack, with an infrared image
        :returns: uint8 [H, W], a read-only view of the file
        """
        return self._view(entry.infrared, (entry.height, entry.width))

    def sky(self, entry: ImageEntry) -> np.ndarray | None:
        """The mask of the sky.

        :param entry: of this pack
        :returns: uint8 [H, W], 255 in the sky; None if unknown
        """
        return None if entry.sky < 0 else self._view(entry.sky, (entry.height, entry.width))

    def _view(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        return self._bytes[offset : offset + int(np.prod(shape))].reshape(shape)


def write_pack(path: str | Path, items: Iterable[Item]) -> int:
    """Write a pack and its index; an existing pack is replaced only after the new one is complete.

    :param path: of the pack
    :param items: consumed one at a time
    :returns: number of items
    :raises OSError: the file cannot be written
    """
    entries = []
    offset = 0
    digest = hashlib.sha256()
    with new_pack(Path(path)) as (file, content):
        for item in items:
            offsets = []
            for image in (item.visible, item.infrared, item.sky):
                offsets.append(-1 if image is None else offset)
                if image is not None:
                    data = np.ascontiguousarray(image, np.uint8).tobytes()
                    digest.update(data)
                    offset += file.write(data)
            entries.append(ImageEntry(item.name, *item.visible.shape[:2], *offsets))
        content |= {"bytes": offset, "sha256": digest.hexdigest(), "entries": [vars(entry) for entry in entries]}
    return len(entries)
