"""Removing recordings that this package has written: their files by name, never what else lies beside them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_METADATA = ("metadata.yaml", "metadata.yaml.tmp")
_STORED = (".mcap", ".db3", ".db3-journal", ".db3-wal", ".db3-shm")


def is_real_folder(path: Path) -> bool:
    """Return whether a path is a folder itself, not a link to one.

    :param path: may be missing
    """
    return path.is_dir() and not path.is_symlink()


def remove_recording(folder: Path, others: Iterable[str] = (), written_as: str = "") -> None:
    """Remove the files of a recording that :class:`.BagWriter` has written, and its folder if that leaves it empty.

    The metadata is removed first, so that a recording that is removed half is incomplete. Links are not followed.

    :param folder: the recording; nothing happens if it is missing or a link
    :param others: names of further files of ours in it
    :param written_as: name that the folder had when it was written; empty for its present one
    """
    if not is_real_folder(folder):
        return
    name = written_as or folder.name
    for item in (folder / other for other in (*_METADATA, *others, *(name + suffix for suffix in _STORED))):
        if item.is_file() and not item.is_symlink():
            item.unlink()
    remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Remove a folder unless something is in it.

    :param folder: may be missing
    """
    with suppress(OSError):
        folder.rmdir()
