"""Errors for what is not a readable recording: each names what is there, and a way that works for it."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path

from textdifuse_ros.bags import mcap_storage, sqlite_storage
from textdifuse_ros.bags.metadata import METADATA, PACKED, STORED, storage_files
from textdifuse_ros.bags.storage import ZSTD_MAGIC
from textdifuse_ros.errors import BagError

ANY_RECORDING = "a rosbag2 folder, or an .mcap or .db3 file"
_WHOLE = "a complete rosbag2 recording (mcap or sqlite3)"
_DAMAGED = "it may have been cut short: record it again, or repair it with `ros2 bag reindex` or `mcap recover`"
_ROS1_MAGIC = b"#ROSBAG V"
_ROS1_UNINDEXED = b"index_pos=" + bytes(8)


def check_kind(file: Path) -> None:
    """Refuse what is no storage file of rosbag2, by its true kind.

    :param file: to be opened
    :raises BagError: names the kind, and what to do
    """
    if not file.is_file():
        raise BagError(str(file), ANY_RECORDING, "something that is no regular file")
    try:
        with file.open("rb") as content:
            start = content.read(4096)
    except OSError as error:
        raise BagError(str(file), "readable", error.strerror or error) from error
    if start.startswith(_ROS1_MAGIC):
        raise _ros1(file, start)
    known = (mcap_storage.MAGIC, sqlite_storage.MAGIC, ZSTD_MAGIC)
    if not start.startswith(known) and file.suffix not in (*STORED, *PACKED):
        remedy = f"name its folder, {file.parent}" if file.name == METADATA else ""
        raise BagError(str(file), ANY_RECORDING, f"a file {file.name!r}", remedy)


def _ros1(file: Path, start: bytes) -> BagError:
    """Return the error for a ROS 1 bag.

    :param file: the bag
    :param start: its first bytes
    """
    name = file.name.removesuffix(".active").removesuffix(".bag")
    target = file.with_name(f"{name}_ros2")
    convert = f"`rosbags-convert --src {shlex.quote(str(file))} --dst {shlex.quote(str(target))}`"
    if file.suffix == ".active" or _ROS1_UNINDEXED in start:
        remedy = f"index it by `rosbag reindex` of ROS 1, then convert it by {convert}"
        return BagError(str(file), "a recording of ROS 2", "a ROS 1 bag that was not closed", remedy)
    return BagError(str(file), "a recording of ROS 2", "a ROS 1 bag", f"convert it by {convert}")


def without_metadata(folder: Path) -> BagError:
    """Return the error for a folder without a metadata.yaml.

    :param folder: the folder
    """
    for file in sorted(folder.iterdir()):
        with suppress(OSError):
            if file.is_file() and file.open("rb").read(len(_ROS1_MAGIC)) == _ROS1_MAGIC:
                return _ros1(file, file.open("rb").read(4096))
    inside = storage_files(folder)
    remedy = "restore it with `ros2 bag reindex`, or name the .mcap or .db3 file inside"
    if inside:
        remedy = _recovery(folder) or f"name the file inside, {inside[0]}, or restore it with `ros2 bag reindex`"
    return BagError(str(folder), f"a rosbag2 folder with a {METADATA}", "a folder without one", remedy)


def damaged(path: Path, error: Exception) -> BagError:
    """Return the error for a recording that cannot be read to its end.

    :param path: the folder or file
    :param error: what was raised
    """
    reason = " ".join(str(error).split()) or type(error).__name__
    return BagError(str(path), _WHOLE, f"a damaged one ({reason.rstrip('.')})", _recovery(path) or _DAMAGED)


def _recovery(path: Path) -> str:
    """Return how to recover an .mcap file, or one in a folder, that was cut short; '' if none was."""
    for file in sorted(path.glob("*.mcap")) if path.is_dir() else [path]:
        with suppress(OSError):
            if file.suffix == ".mcap" and not _was_closed(file):
                whole = file.with_name(f"{file.stem}_whole.mcap")
                return f"it was cut short; recover it with `mcap recover {file} -o {whole}`"
    return ""


def _was_closed(file: Path) -> bool:
    """Return whether an .mcap file ends with the closing magic bytes."""
    end = mcap_storage.MAGIC
    with file.open("rb") as content:
        content.seek(-min(len(end), file.stat().st_size), os.SEEK_END)
        return content.read() == end
