"""Reading a rosbag2 recording."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rosbags.interfaces import Connection, ConnectionExtRosbag2, QosDurability

from textdifuse_ros.bags import mcap_storage, sqlite_storage
from textdifuse_ros.bags.definitions import IMAGE_TYPE, common_types
from textdifuse_ros.bags.metadata import (
    METADATA,
    Metadata,
    find_files,
    parse_metadata,
    read_information,
)
from textdifuse_ros.bags.refusals import ANY_RECORDING, check_kind, damaged, without_metadata
from textdifuse_ros.bags.storage import (
    CDR,
    ZSTD_MAGIC,
    Storage,
    StoredTopic,
    definition_of,
    quoted,
    unpack_file,
    unpack_message,
)
from textdifuse_ros.errors import BagError
from textdifuse_ros.sensors import stamp_of

_MAX_LISTED = 20  # topics in one remark
_SPARE = 2**28  # bytes to leave free on the disk of temporary files


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

    The first bytes of a file tell its format. Files that were compressed as a whole (zstd) are decompressed into a
    temporary folder. Topics whose messages are not CDR are passed over; :meth:`remarks` names them.

    Use it as a context manager::

        with BagReader("drive") as bag:
            for message in bag.messages(["/visible/image"]):
                ...

    :param path: the folder or file
    :raises BagError: nothing there, no metadata.yaml, files missing, damaged, cut short, of ROS 1, or without a single
        message
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stack: ExitStack | None = ExitStack()
        self._storages: list[Storage] = []
        self._remarks: list[str] = []
        self._differences: dict[str, str] = {}
        try:
            self._metadata = self._open()
            self._known = self._find_topics()
            if all(storage.times is None for storage in self._storages):
                raise BagError(str(self.path), "a recording with messages", "an empty one")
        except BaseException:
            self.close()
            raise

    def _open(self) -> Metadata | None:
        """Open the storage files; returns the metadata of a folder."""
        if not self.path.exists():
            raise BagError(str(self.path), ANY_RECORDING, "nothing there")
        if not self.path.is_dir():
            self._storages.append(self._open_file(self.path))
            return None
        if not (self.path / METADATA).is_file():
            raise without_metadata(self.path)
        try:
            metadata = parse_metadata(read_information(self.path))
        except (OSError, ValueError) as error:
            raise damaged(self.path, error) from error
        files, remarks = find_files(self.path, metadata.files)
        self._remarks += remarks
        self._storages += [self._open_file(file) for file in files]
        return metadata

    def _open_file(self, file: Path) -> Storage:
        """Open a storage file as its first bytes say."""
        assert self._stack is not None
        check_kind(file)
        try:
            plain = self._unpacked(file)
            storage: Storage
            with plain.open("rb") as content:
                start = content.read(16)
            if start.startswith(mcap_storage.MAGIC):
                storage = mcap_storage.McapStorage(plain, file)
            elif start == sqlite_storage.MAGIC:
                storage = sqlite_storage.SqliteStorage(plain)
            else:
                raise ValueError("neither an mcap file nor a database")
        except BagError:
            raise
        except Exception as error:  # damaged content raises struct, value and database errors
            raise damaged(file, error) from error
        self._stack.callback(storage.close)
        self._remarks += storage.remarks
        return storage

    def _unpacked(self, file: Path) -> Path:
        """Return the file, or its content in a temporary folder if it is compressed as a whole."""
        with file.open("rb") as content:
            if content.read(4) != ZSTD_MAGIC:
                return file
            content.seek(0)
            assert self._stack is not None
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="textdifuse-")))
            try:
                unpack_file(content, folder / "recording", shutil.disk_usage(folder).free - _SPARE)
            except BagError as error:
                remedy = f"decompress it by `zstd -d {file}` where there is room"
                raise BagError(error.what, error.expected, error.actual, remedy) from error
            return folder / "recording"

    def _find_topics(self) -> dict[str, Connection]:
        """Return the topics that can be read, sorted by name, and remark on all others."""
        stored: dict[str, list[StoredTopic]] = {}
        faults: dict[str, str] = {}
        for storage in self._storages:
            for topic in storage.topics:
                if topic.fault:
                    faults[topic.topic] = topic.fault
                else:
                    stored.setdefault(topic.topic, []).append(topic)
        listed = self._metadata.topics if self._metadata else {}
        for name, entry in listed.items():
            if name not in stored and name not in faults and entry.encoding != CDR:
                faults[name] = quoted(entry.encoding)
        if faults:
            names = [f"{quoted(name)} ({fault})" for name, fault in sorted(faults.items())]
            more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
            self._remarks.append(f"left out, not CDR messages of ROS 2: {', '.join(names[:_MAX_LISTED])}{more}")
        names = sorted(stored.keys() | (listed.keys() - faults.keys()))
        if not names and faults:
            remedy = "a bag of ROS 1 is converted by `rosbags-convert --src IN.bag --dst OUT`"
            raise BagError(str(self.path), "a recording of ROS 2 messages (CDR)", self._remarks[-1], remedy)
        self._faults = {name: fault for name, fault in faults.items() if name not in stored}
        return {name: self._connection(number, name, stored.get(name, [])) for number, name in enumerate(names, 1)}

    def _connection(self, number: int, name: str, stored: list[StoredTopic]) -> Connection:
        """Return what is known of a topic: the QoS of metadata.yaml, else the stored one; definitions as stored."""
        listed = self._metadata.topics.get(name) if self._metadata else None
        kind = stored[0].type if stored else listed.type if listed else ""
        digest = next((topic.digest for topic in stored if topic.digest), "")
        if not digest and listed and listed.type == kind:
            digest = listed.digest
        offers = listed.qos if listed and listed.qos else [offer for topic in stored[:1] for offer in topic.qos]
        definitions = [topic.definition for topic in stored if topic.type == kind and topic.definition.data]
        none = definition_of("", "")
        count = self._indexed_count(name)
        definition = definitions[0] if definitions else none
        return Connection(number, name, kind, definition, digest, count, ConnectionExtRosbag2(CDR, offers), self)

    def _indexed_count(self, name: str) -> int:
        """Return the number of messages of a topic, as the index of each file tells."""
        return sum(
            storage.counts.get(topic.id, 0)
            for storage in self._storages
            for topic in storage.topics
            if topic.topic == name and not topic.fault
        )

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. A second call does nothing."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def topics(self) -> dict[str, str]:
        """Return the message type of each topic that can be read, sorted by topic."""
        return {name: connection.msgtype for name, connection in self.connections().items()}

    def connections(self) -> dict[str, Connection]:
        """Return type, message definition and offered QoS of each topic that can be read, sorted by topic."""
        if self._stack is None:
            raise BagError(str(self.path), "open", "a closed bag", "read inside its `with` block")
        return dict(self._known)

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
        return {name: connection.msgcount for name, connection in self.connections().items()}

    def remarks(self) -> list[str]:
        """Return what is left out, and where counts differ from the messages that were read, a line each."""
        return [*self._remarks, *(self._differences[topic] for topic in sorted(self._differences))]

    @property
    def start_ns(self) -> int:
        """Log time of the first message [ns]."""
        return min(storage.times[0] for storage in self._storages if storage.times)

    @property
    def duration_ns(self) -> int:
        """Time between the first and the last message [ns]."""
        return max(0, max(storage.times[1] for storage in self._storages if storage.times) - self.start_ns)

    def check_readable(self, topic: str) -> None:
        """Check that a topic is not one of those that are left out.

        :param topic: its name
        :raises BagError: names the reason
        """
        if topic in self._faults:
            raise BagError(f"the topic {topic} of {self.path}", "CDR messages of ROS 2", self._faults[topic])

    def _check_topics(self, topics: Iterable[str]) -> set[str]:
        known = self.connections()
        wanted = set(topics)
        for topic in sorted(wanted - known.keys()):
            self.check_readable(topic)
            raise BagError(f"a topic of {self.path}", f"one of {', '.join(known)}", repr(topic))
        return wanted

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[BagMessage]:
        """Yield the messages in the order of their log times.

        Split recordings are read file by file; files that overlap in time are ordered only within each file.

        :param topics: topics to read; None for all
        :raises BagError: a topic is not in the bag, or the bag is damaged
        """
        wanted = self._check_topics(self.connections() if topics is None else topics)
        read: Counter[str] = Counter()
        for storage in self._storages:
            chosen = {topic.id: topic for topic in storage.topics if topic.topic in wanted and not topic.fault}
            source = storage.messages(set(chosen)) if chosen else iter(())
            while True:
                try:
                    number, stamp, packed = next(source)
                    data = unpack_message(packed)
                except StopIteration:
                    break
                except BagError:
                    raise
                except Exception as error:
                    raise damaged(self.path, error) from error
                topic = chosen[number]
                read[topic.topic] += 1
                yield BagMessage(topic.topic, topic.type, stamp, data)
        self._compare(wanted, read)

    def _compare(self, topics: set[str], read: Counter[str]) -> None:
        """Hold what metadata.yaml and the index of the files count against what was read to its end."""
        for topic in topics:
            claims = {"the index of the file": self._known[topic].msgcount}
            if self._metadata and topic in self._metadata.topics:
                claims[METADATA] = self._metadata.topics[topic].count
            for source, count in claims.items():
                if count != read[topic]:
                    self._differences[topic] = f"{source} counts {count} messages of {topic}, {read[topic]} were read"

    def images(self, topic: str) -> Iterator[BagImage]:
        """Yield the images of ``topic`` in the order of their log times.

        :raises BagError: no such topic, one of another type, or a damaged message
        """
        self._check_topics([topic])
        kind = self._known[topic].msgtype
        if kind != IMAGE_TYPE:
            raise BagError(f"the topic {topic} of {self.path}", f"of type {IMAGE_TYPE}", kind)
        for message in self.messages([topic]):
            try:
                yield decode_image_message(message)
            except BagError as error:
                raise BagError(f"a message of {topic} in {self.path}", error.expected, error.actual) from error


_STORE = common_types()


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
