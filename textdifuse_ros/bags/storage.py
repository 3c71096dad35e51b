"""What a storage file of a recording gives, whatever its format: :mod:`.mcap_storage`, :mod:`.sqlite_storage`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag2.metadata import parse_qos

from textdifuse_ros.errors import BagError, quote

CDR = "cdr"
MAX_BYTES = 2**30
"""Largest chunk or message, decompressed [bytes]: a size that a file claims is checked before memory is taken."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}


@dataclass(frozen=True)
class StoredTopic:
    """A topic as one storage file describes it; an mcap file may have several channels of one topic.

    :ivar id: number within the file
    :ivar topic: its name
    :ivar type: message type, for example ``sensor_msgs/msg/Image``
    :ivar encoding: of its messages; only ``cdr`` can be read
    :ivar definition: of the type, as far as the file has it
    :ivar digest: hash of the type; may be empty
    :ivar qos: offered by its publishers
    :ivar fault: why its messages cannot be read; empty if they can
    """

    id: int
    topic: str
    type: str
    encoding: str
    definition: MessageDefinition
    digest: str = ""
    qos: list[Qos] = field(default_factory=list)
    fault: str = ""


class Storage(Protocol):
    """An open storage file.

    :ivar topics: all its topics
    :ivar counts: number of messages by id of the topic, as far as the index of the file tells
    :ivar times: log times of the first and of the last message [ns]; None if there is no message
    :ivar remarks: what is lost or differs, a line each
    """

    topics: list[StoredTopic]
    counts: dict[int, int]
    times: tuple[int, int] | None
    remarks: list[str]

    def messages(self, ids: set[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield id of the topic, log time [ns] and bytes of each message, in the order of their log times.

        :param ids: topics to read
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def definition_of(encoding: str, text: str) -> MessageDefinition:
    """Return the definition of a type; none for an encoding that is not ROS 2's, or is ``unknown``.

    :param encoding: ``ros2msg``, ``ros2idl`` or another
    :param text: the definition
    """
    kind = _FORMATS.get(encoding, MessageDefinitionFormat.NONE)
    return MessageDefinition(kind, "" if kind == MessageDefinitionFormat.NONE else text)


def qos_of(content: object) -> list[Qos]:
    """Parse the QoS of publishers; profiles that cannot be read are none: they do not decide what is read.

    :param content: YAML text, or what was read from it
    """
    try:
        offers = parse_qos(content)  # type: ignore[arg-type]
        numbers = [number for offer in offers for number in (offer.depth, *offer.deadline, *offer.lifespan)]
        return offers if all(isinstance(number, int) for number in numbers) else []
    except Exception:  # whatever the YAML was instead of profiles
        return []


def quoted(text: str) -> str:
    """Shorten a text of a file to a part of a line.

    :param text: any text
    """
    return text if len(text) < 80 and text.isprintable() else quote(text)


def unpack_message(data: bytes) -> bytes:
    """Decompress a message that was compressed by itself; CDR, which begins with 0, is returned as it is.

    :param data: a message
    :raises BagError: it is larger than ``MAX_BYTES``
    """
    if not data.startswith(ZSTD_MAGIC):
        return data
    return unpack_bounded(zstd.ZstdDecompressor(), data, MAX_BYTES)


def unpack_bounded(decompressor: object, data: bytes, size: int) -> bytes:
    """Decompress ``data``.

    :param decompressor: of zstd or lz4
    :param data: compressed
    :param size: largest result [bytes]
    :raises BagError: the result is larger
    """
    raw: bytes = decompressor.decompress(data, size + 1)  # type: ignore[attr-defined]
    if len(raw) > size:
        raise BagError("compressed data of a recording", f"at most {size} bytes", "more")
    return raw


def unpack_file(source: BinaryIO, target: Path, room: int) -> None:
    """Decompress a file that was compressed as a whole.

    :param source: opened for reading
    :param target: file to write
    :param room: largest size of the result [bytes]
    :raises BagError: the result is larger
    """
    with zstd.open(source, "rb") as content, target.open("wb") as output:
        while block := content.read(2**22):
            room -= len(block)
            if room < 0:
                raise BagError(f"the room in {target.parent}", "enough for the decompressed recording", "less")
            output.write(block)
