"""Reading a rosbag2 recording."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.interfaces import ConnectionExtRosbag2, QosDurability
from rosbags.rosbag2 import Reader

from textdifuse_ros.bags.definitions import IMAGE_TYPE, common_types
from textdifuse_ros.errors import BagError
from textdifuse_ros.sensors import stamp_of

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

_WHOLE = "a complete rosbag2 recording (mcap or sqlite3)"
_DAMAGED = "it may have been cut short: record it again, or repair it with `ros2 bag reindex` or `mcap recover`"
_MCAP_END = b"\x89MCAP0\r\n"


@dataclass(frozen=True)
class BagMessage:
    """A serialized message of a bag.

    :ivar topic: its topic
    :ivar type: message type, for example ``sensor_msgs/msg/Image``
    :ivar stamp_ns: log time, when it was recorded [ns]
    :ivar data: CDR bytes with the encapsulation header, as ``rclpy.serialization`` takes them
    """

    topic: str
    type: str
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class BagImage:
    """A ``sensor_msgs/msg/Image`` of a bag; its pixels are neither checked nor decoded.

    :ivar topic: its topic
    :ivar log_ns: log time, when it was recorded [ns]
    :ivar stamp_ns: header stamp [ns]
    :ivar frame_id: frame of its header
    :ivar height: rows
    :ivar width: columns
    :ivar step: bytes per row
    :ivar encoding: for example ``rgb8``
    :ivar is_bigendian: whether 16-bit pixels are big-endian
    :ivar data: uint8 [height * step], a view of the message
    """

    topic: str
    log_ns: int
    stamp_ns: int
    frame_id: str
    height: int
    width: int
    step: int
    encoding: str
    is_bigendian: bool
    data: np.ndarray


class BagReader:
    """Reader of a rosbag2 recording: a folder with metadata.yaml, or a single .mcap or .db3 file.

    Use it as a context manager::

        with BagReader("drive") as bag:
            for message in bag.messages(["/visible/image"]):
                ...

    :param path: the folder or file
    :raises BagError: nothing there, no metadata.yaml, damaged, cut short, or without a single message
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = self._open()
        if not self._reader.message_count:
            self.close()
            raise BagError(str(self.path), "a recording with messages", "an empty one")

    def _open(self) -> Reader:
        if not self.path.exists():
            raise BagError(str(self.path), "a rosbag2 folder, or an .mcap or .db3 file", "nothing there")
        if self.path.is_dir() and not (self.path / "metadata.yaml").is_file():
            inside = next((item for item in sorted(self.path.iterdir()) if item.suffix in (".mcap", ".db3")), None)
            remedy = "restore it with `ros2 bag reindex`, or name the .mcap or .db3 file inside"
            if inside is not None:
                remedy = _recovery(inside) or f"name the file inside, {inside}, or restore it with `ros2 bag reindex`"
            raise BagError(str(self.path), "a rosbag2 folder with a metadata.yaml", "a folder without one", remedy)
        if self.path.is_file() and self.path.suffix not in (".mcap", ".db3"):
            raise BagError(str(self.path), "a rosbag2 folder, or an .mcap or .db3 file", f"a file {self.path.name!r}")
        try:
            _roll_back(self.path)
            reader = Reader(self.path)
            reader.open()
        except Exception as error:  # damaged files make rosbags raise struct, type, assertion and database errors
            raise self._damaged(error) from error
        return reader

    def _damaged(self, error: Exception) -> BagError:
        reason = " ".join(str(error).split()) or type(error).__name__
        found = f"a damaged one ({reason.rstrip('.')})"
        return BagError(str(self.path), _WHOLE, found, _recovery(self.path) or _DAMAGED)

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. A second call does nothing."""
        if self._reader.is_open:
            self._reader.close()

    def topics(self) -> dict[str, str]:
        """Return the message type of each topic, sorted by topic."""
        return {connection.topic: connection.msgtype for connection in self._connections(None)}

    def connections(self) -> dict[str, Connection]:
        """Return type, message definition and offered QoS of each topic, sorted by topic.

        For a topic with several publishers, those of the first.
        """
        found: dict[str, Connection] = {}
        for connection in self._connections(None):
            found.setdefault(connection.topic, connection)
        return found

    def latched(self) -> dict[str, int]:
        """Return the total history depth of the publishers of each topic whose publishers are all transient local."""
        found = {}
        for topic, connection in self.connections().items():
            assert isinstance(connection.ext, ConnectionExtRosbag2)
            offers = connection.ext.offered_qos_profiles
            if {offer.durability for offer in offers} == {QosDurability.TRANSIENT_LOCAL}:
                found[topic] = sum(max(offer.depth, 1) for offer in offers)
        return found

    def counts(self) -> dict[str, int]:
        """Return the number of messages of each topic, sorted by topic."""
        counts: dict[str, int] = {}
        for connection in self._connections(None):
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        return counts

    @property
    def start_ns(self) -> int:
        """Log time of the first message [ns]."""
        return int(self._reader.start_time)

    @property
    def duration_ns(self) -> int:
        """Time between the first and the last message [ns]."""
        return max(int(self._reader.duration) - 1, 0)  # rosbags adds 1 ns after the last message

    def _connections(self, topics: Iterable[str] | None) -> list[Connection]:
        if not self._reader.is_open:
            raise BagError(str(self.path), "open", "a closed bag", "read inside its `with` block")
        known = sorted(self._reader.connections, key=lambda connection: connection.topic)
        if topics is None:
            return known
        requested = set(topics)
        names = {connection.topic for connection in known}
        for topic in sorted(requested - names):
            raise BagError(f"a topic of {self.path}", f"one of {', '.join(sorted(names))}", repr(topic))
        return [connection for connection in known if connection.topic in requested]

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[BagMessage]:
        """Yield the messages in the order of their log times.

        Split recordings are read file by file; files that overlap in time are ordered only within each file.

        :param topics: topics to read; None for all
        :raises BagError: a topic is not in the bag, or the bag is damaged
        """
        connections = self._connections(topics)
        if not connections:
            return
        source = self._reader.messages(connections)
        while True:
            try:
                connection, stamp, data = next(source)
            except StopIteration:
                return
            except Exception as error:
                raise self._damaged(error) from error
            yield BagMessage(connection.topic, connection.msgtype, stamp, data)

    def images(self, topic: str) -> Iterator[BagImage]:
        """Yield the images of ``topic`` in the order of their log times.

        :raises BagError: no such topic, one of another type, or a damaged message
        """
        kind = self._connections([topic])[0].msgtype
        if kind != IMAGE_TYPE:
            raise BagError(f"the topic {topic} of {self.path}", f"of type {IMAGE_TYPE}", kind)
        for message in self.messages([topic]):
            try:
                yield decode_image_message(message)
            except BagError as error:
                raise BagError(f"a message of {topic} in {self.path}", error.expected, error.actual) from error


_STORE = common_types()


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
    with file.open("rb") as content:
        content.seek(-min(len(_MCAP_END), file.stat().st_size), os.SEEK_END)
        return content.read() == _MCAP_END


def _roll_back(path: Path) -> None:
    """Roll back the incomplete transaction of a killed recorder.

    rosbags opens databases as immutable and would read incomplete data. Opened normally, SQLite finds the journal and
    rolls back. If that fails (a recorder is active, the disk is read-only), the database is read as it is.
    """
    for file in path.glob("*.db3") if path.is_dir() else [path]:
        if file.suffix == ".db3" and any(file.with_name(f"{file.name}-{log}").is_file() for log in ("journal", "wal")):
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(file, timeout=0)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()


def decode_image_message(message: BagMessage) -> BagImage:
    """Deserialize ``message``, a ``sensor_msgs/msg/Image``, without copying the pixels.

    :raises BagError: the bytes are no such message
    """
    try:
        image: Any = _STORE.deserialize_cdr(message.data, IMAGE_TYPE)
    except Exception as error:  # the generated code of rosbags raises many kinds of errors
        found = f"others ({str(error) or type(error).__name__})"
        raise BagError(f"a message of {message.topic}", f"the CDR bytes of a {IMAGE_TYPE}", found) from error
    return BagImage(
        topic=message.topic,
        log_ns=message.stamp_ns,
        stamp_ns=stamp_of(image.header),
        frame_id=image.header.frame_id,
        height=image.height,
        width=image.width,
        step=image.step,
        encoding=image.encoding,
        is_bigendian=bool(image.is_bigendian),
        data=image.data,
    )
