"""Mcap files as other writers make them: parts of the summary left out, other encodings, other profiles."""

from __future__ import annotations

import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
OPTIONAL = ("schemas", "channels", "chunk indexes", "statistics", "message indexes", "counts by channel")
"""What a writer may leave out; the two last are in the data section and within the statistics."""


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
}


@dataclass(frozen=True)
class Channel:
    """A channel and its schema; ``schema`` None stands for schema 0."""

    topic: str
    schema: str | None
    encoding: str = "cdr"
    schema_encoding: str = "ros2msg"
    text: str = ""


@dataclass(frozen=True)
class Message:
    """A message of the channel with the number ``channel``."""

    channel: int
    stamp_ns: int
    data: bytes


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data


def _record(code: int, content: bytes) -> bytes:
    return struct.pack("<BQ", code, len(content)) + content


def _schema(number: int, channel: Channel) -> bytes:
    content = struct.pack("<H", number) + _text(channel.schema or "") + _text(channel.schema_encoding)
    return _record(3, content + _text(channel.text))


def _channel(number: int, channel: Channel) -> bytes:
    schema = 0 if channel.schema is None else number
    return _record(
        4, struct.pack("<HH", number, schema) + _text(channel.topic) + _text(channel.encoding) + struct.pack("<I", 0)
    )


def _message(message: Message) -> bytes:
    return _record(5, struct.pack("<HIQQ", message.channel, 0, message.stamp_ns, message.stamp_ns) + message.data)


def write_mcap(
    path: Path,
    channels: Sequence[Channel],
    messages: Sequence[Message],
    *,
    without: Collection[str] = (),
    profile: str = "ros2",
    chunked: bool = True,
    summary: bool = True,
    missing_schemas: bool = False,
    compression: str = "",
    claimed_size: int | None = None,
    miscount: int = 0,
) -> Path:
    """Write a file.

    :param channels: numbered from 1
    :param messages: in chunks of three
    :param without: parts of ``OPTIONAL`` that are left out
    :param summary: whether there is one
    :param missing_schemas: leave the schemas out everywhere, which no writer may do
    :param compression: of the chunks: none, ``lz4`` or ``zstd``
    :param claimed_size: what the chunks say of their size [bytes]; None for the truth
    :param miscount: added to the counts of the statistics
    """
    definitions = b"" if missing_schemas else b"".join(
        _schema(number, channel) for number, channel in enumerate(channels, 1) if channel.schema is not None
    )  # fmt: skip
    definitions += b"".join(_channel(number, channel) for number, channel in enumerate(channels, 1))
    content = MAGIC + _record(1, _text(profile) + _text("tests"))
    indexes = b""
    groups = [messages[begin : begin + 3] for begin in range(0, len(messages), 3)]
    if not chunked:
        content += definitions + b"".join(map(_message, messages))
    for number, group in enumerate(groups if chunked else []):
        body = definitions if not number else b""
        places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for message in group:
            places[message.channel].append((message.stamp_ns, len(body)))
            body += _message(message)
        first, last = min(m.stamp_ns for m in group), max(m.stamp_ns for m in group)
        begin, size = len(content), len(body) if claimed_size is None else claimed_size
        head = struct.pack("<QQQI", first, last, size, crc32(body)) + _text(compression)
        packed = COMPRESSIONS[compression](body)
        content += _record(6, head + struct.pack("<Q", len(packed)) + packed)
        end = len(content)
        offsets = b""
        if "message indexes" not in without:
            for channel, entries in places.items():
                offsets += struct.pack("<HQ", channel, len(content))
                content += _record(7, struct.pack("<HI", channel, 16 * len(entries)) + b"".join(
                    struct.pack("<QQ", *entry) for entry in entries
                ))  # fmt: skip
        indexes += _record(8, struct.pack("<QQQQI", first, last, begin, end - begin, len(offsets)) + offsets
                           + struct.pack("<Q", len(content) - end) + _text(compression)
                           + struct.pack("<QQ", len(packed), size))  # fmt: skip
    content += _record(15, struct.pack("<I", 0))
    start = len(content) if summary else 0
    if summary:
        content += b"" if "schemas" in without or missing_schemas else b"".join(
            _schema(number, channel) for number, channel in enumerate(channels, 1) if channel.schema is not None
        )  # fmt: skip
        if "channels" not in without:
            content += b"".join(_channel(number, channel) for number, channel in enumerate(channels, 1))
        content += b"" if "chunk indexes" in without else indexes
        if "statistics" not in without:
            counts = {n: sum(m.channel == n for m in messages) + miscount for n in range(1, len(channels) + 1)}
            times = [m.stamp_ns for m in messages]
            numbers = (sum(counts.values()), sum(c.schema is not None for c in channels), len(channels), 0, 0)
            by_channel = b"".join(struct.pack("<HQ", *item) for item in counts.items())
            by_channel = b"" if "counts by channel" in without else by_channel
            content += _record(11, struct.pack("<QHIIIIQQ", *numbers, len(groups), min(times), max(times))
                               + _text(by_channel))  # fmt: skip
    if start == len(content):
        start = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content + _record(2, struct.pack("<QQI", start, 0, 0)) + MAGIC)
    return path
