"""Writing a rosbag2 recording."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from textdifuse_ros.bags.definitions import IMAGE_TYPE, add_installed_type, add_recorded_type, common_types
from textdifuse_ros.bags.metadata import METADATA, STORED
from textdifuse_ros.checks import describe
from textdifuse_ros.errors import BagError, ImageError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

_CHUNK_CRC = 9 + 24
"""Where the checksum of a chunk is, from the beginning of its record [bytes]."""


class _CheckedMcapWriter(McapWriter):
    """Writes the checksum of each chunk, which the writer of rosbags leaves 0, for not known."""

    def close_chunk(self) -> None:
        """Close the pending chunk."""
        begin, checksum = self.bio.tell(), crc32(self.chunk.bio.getbuffer())
        super().close_chunk()
        end = self.bio.tell()
        self.bio.seek(begin + _CHUNK_CRC)
        self.bio.write(checksum.to_bytes(4, "little"))
        self.bio.seek(end)


class _CheckedWriter(Writer):
    STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.MCAP: _CheckedMcapWriter}  # noqa: RUF012


STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_STORE = common_types()


class BagWriter:
    """Writer of a new rosbag2 folder (uncompressed), readable by ``ros2 bag``.

    Message definitions come from the common interfaces of ROS 2 Jazzy, and for other types from the ``.msg`` files of
    the installed packages.

    Use it as a context manager. The folder becomes a valid recording when it is closed, also when an exception leaves
    the block.

    If the disk fails (full, removed), the first call that notices it raises and closes the files; data written by an
    earlier :meth:`flush` is kept.

    :param path: the folder to create, with its parents
    :param storage: ``mcap`` or ``sqlite3``
    :param overwrite: replace an existing recording; a folder that is no recording is never removed
    :raises BagError: the path exists or cannot be created, or the storage is unknown
    """

    def __init__(self, path: str | Path, storage: str = "mcap", *, overwrite: bool = False) -> None:
        self.path = Path(path)
        if storage not in STORAGES:
            raise BagError("the storage of a recording", f"one of {', '.join(STORAGES)}", repr(storage))
        if os.path.lexists(self.path):
            self._make_room(overwrite)
        self._topics: dict[str, Connection] = {}
        self._failure: BagError | None = None
        self._store = common_types()
        # Version 9 of the metadata is what Jazzy writes; older distributions read 8 at most, but name QoS by numbers.
        self._writer: Writer | None = _CheckedWriter(self.path, version=9, storage_plugin=STORAGES[storage])
        with self._disk("a folder that can be created"):
            self._writer.open()

    def _make_room(self, overwrite: bool) -> None:
        if not overwrite:
            remedy = "choose another name, or remove it first"
            raise BagError(str(self.path), "a new folder", "one that exists", remedy)
        found = "a symbolic link" if self.path.is_symlink() else "a file" if not self.path.is_dir() else ""
        items = sorted(self.path.iterdir()) if not found else []
        for item in items:
            known = item.name == METADATA or item.suffix in STORED
            if not known or item.is_symlink() or not item.is_file():
                found = f"one that holds {item.name}"
        if found:
            raise BagError(str(self.path), "a recording, to be overwritten", found, "choose another name")
        for item in items:
            item.unlink()
        self.path.rmdir()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the index and the metadata. A second call does nothing."""
        if self._writer is None:
            return
        try:
            with self._disk():
                self._writer.close()
        finally:
            self._writer = None

    def flush(self) -> None:
        """Hand over the messages written so far to the operating system: they survive a kill of the process.

        :raises BagError: the disk fails
        """
        storage = self._open_writer().storage
        with self._disk():
            if isinstance(storage, McapWriter):
                if storage.chunk.msgs:
                    storage.close_chunk()
                storage.bio.flush()
            elif isinstance(storage, Sqlite3Writer):
                storage.conn.commit()

    @contextmanager
    def _disk(self, expected: str = "a recording that can be written") -> Iterator[None]:
        """Raise errors of the disk as BagError; after one, nothing more is written."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            writer, self._writer = self._writer, None
            if writer is not None:
                with suppress(Exception):  # buffered data fails on the same disk
                    writer.abort()
            found = getattr(error, "strerror", None) or error
            self._failure = BagError(str(self.path), expected, found, "check its disk")
            raise self._failure from error

    def _open_writer(self) -> Writer:
        if self._failure is not None:
            raise self._failure
        if self._writer is None:
            raise BagError(str(self.path), "open", "a closed bag", "write inside its `with` block")
        return self._writer

    def note(self, name: str, text: str) -> None:
        """Set the entry ``name`` of the metadata's ``custom_data`` to ``text``."""
        self._open_writer().set_custom_data(name, text)

    def add_topic(self, topic: str, type: str, like: Connection | None = None, offered: Sequence[Qos] = ()) -> None:
        """Add a topic. Adding the same topic and type again changes nothing.

        :param topic: the topic
        :param type: message type, for example ``sensor_msgs/msg/Image``
        :param like: a topic of another recording to copy the message definition and the offered QoS from
        :param offered: without ``like``, the QoS of each of its publishers
        :raises BagError: the type has no definition, the topic already has another type, or the disk fails
        """
        writer = self._open_writer()
        if topic in self._topics:
            if self._topics[topic].msgtype != type:
                raise BagError(f"the topic {topic}", f"of type {self._topics[topic].msgtype}", type)
            return
        known: dict[str, Any] = {"offered_qos_profiles": list(offered)}
        if like is not None:
            known["offered_qos_profiles"] = like.ext.offered_qos_profiles  # type: ignore[union-attr]
        if like is not None and like.msgdef.data and like.digest:
            known.update(msgdef=like.msgdef.data, rihs01=like.digest)
        else:
            if like is None or not add_recorded_type(self._store, type, like.msgdef):
                add_installed_type(self._store, type)
            known["typestore"] = self._store
        with self._disk():
            self._topics[topic] = writer.add_connection(topic, type, **known)

    def write_raw(self, topic: str, stamp_ns: int, data: bytes | memoryview) -> None:
        """Write a serialized message.

        :param topic: a topic that was added before
        :param stamp_ns: log time [ns], at least 0
        :param data: CDR bytes with the encapsulation header
        :raises BagError: the topic was not added, the time is negative, or the disk fails
        """
        writer = self._open_writer()
        if topic not in self._topics:
            raise BagError("a topic to write to", "one that was added before", repr(topic))
        if stamp_ns < 0:
            raise BagError("the time of a message", "at least 0 [ns]", stamp_ns)
        with self._disk():
            writer.write(self._topics[topic], stamp_ns, data)

    def write_image(
        self, topic: str, stamp_ns: int, frame_id: str, image: np.ndarray, header_stamp: int | None = None
    ) -> None:
        """Write an image as ``sensor_msgs/msg/Image``, mono8 or rgb8; add the topic if it is new.

        :param topic: the topic
        :param stamp_ns: log time [ns]
        :param frame_id: frame for the header
        :param image: uint8 [H, W] or [H, W, 3] RGB
        :param header_stamp: header stamp [ns]; None for the log time
        :raises ImageError: the image has another dtype or shape
        :raises BagError: the topic has another type, or the disk fails
        """
        self.add_topic(topic, IMAGE_TYPE)
        header_stamp = stamp_ns if header_stamp is None else header_stamp
        self.write_raw(topic, stamp_ns, _image_bytes(image, header_stamp, frame_id))


def _image_bytes(image: np.ndarray, stamp_ns: int, frame_id: str) -> memoryview | bytes:
    grey = getattr(image, "ndim", 0) == 2
    if image.dtype != np.uint8 or not (grey or (image.ndim == 3 and image.shape[2] == 3)):
        raise ImageError("an image to record", "uint8 [H, W] or [H, W, 3] (RGB)", describe(image))
    types: Any = _STORE.types
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    height, width = image.shape[:2]
    message = types[IMAGE_TYPE](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id),
        height=height,
        width=width,
        encoding="mono8" if grey else "rgb8",
        is_bigendian=0,
        step=width if grey else width * 3,
        data=np.ascontiguousarray(image).reshape(-1),
    )
    return _STORE.serialize_cdr(message, IMAGE_TYPE)


def recorded_profile(profile: Any) -> Qos:
    """Convert a QoS profile to the form of ``rosbags``.

    :param profile: an ``rclpy.qos.QoSProfile``
    """

    def time_of(duration: Any) -> QosTime:
        return QosTime(*divmod(duration.nanoseconds, 10**9))

    # Both use the policy numbers of rmw.
    return Qos(
        history=QosHistory(int(profile.history)),
        depth=profile.depth,
        reliability=QosReliability(int(profile.reliability)),
        durability=QosDurability(int(profile.durability)),
        deadline=time_of(profile.deadline),
        lifespan=time_of(profile.lifespan),
        liveliness=QosLiveliness(int(profile.liveliness)),
        liveliness_lease_duration=time_of(profile.liveliness_lease_duration),
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )
