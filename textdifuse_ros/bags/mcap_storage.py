"""Reading an mcap file (https://mcap.dev/spec) by its data section.

The summary at the end of the file is optional, and so is each record in it. Here it only saves time: the data section
is walked from its first record to its last, over the chunks that the summary lists without reading them. Where schemas,
channels or statistics are missing in the summary, the chunks are read once for them. So no message is lost because
something is not repeated.
"""

from __future__ import annotations

import heapq
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

from textdifuse_ros.bags.storage import CDR, MAX_BYTES, StoredTopic, definition_of, qos_of, quoted, unpack_bounded, zstd
from textdifuse_ros.errors import BagError, quote

MAGIC = b"\x89MCAP0\r\n"
_FOOTER_BYTES = 9 + 20 + len(MAGIC)
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 2, 3, 4, 5, 6
_CHUNK_INDEX, _STATISTICS, _DATA_END = 0x08, 0x0B, 0x0F
_RECORD = struct.Struct("<BQ")
_MESSAGE_START = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time


class _Fields:
    """Reads the fields of a record one after the other; raises struct.error where the record ends too early."""

    def __init__(self, record: bytes) -> None:
        self._record, self._at = record, 0

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + form, self._record, self._at)
        self._at += struct.calcsize("<" + form)
        return found

    def blob(self, form: str = "I") -> bytes:
        (size,) = self.take(form)
        begin, self._at = self._at, self._at + size
        if self._at > len(self._record):
            raise struct.error("a record that ends too early")
        return self._record[begin : self._at]

    def text(self) -> str:
        return self.blob().decode(errors="replace")


@dataclass(frozen=True)
class _Schema:
    name: str
    encoding: str
    text: str


@dataclass(frozen=True)
class _Channel:
    schema: int
    topic: str
    encoding: str
    metadata: bytes


@dataclass(frozen=True)
class _Chunk:
    """A chunk by its place in the file; ``channels`` is None if its index does not say what is in it."""

    offset: int
    start_ns: int
    channels: frozenset[int] | None = None


@dataclass
class _Statistics:
    messages: int
    schemas: int
    channels: int
    times: tuple[int, int]
    counts: dict[int, int]


@dataclass
class _Loose:
    """The messages outside chunks: log times [ns], offsets of their data, sizes and channels."""

    times: array[int] = field(default_factory=lambda: array("Q"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    channels: array[int] = field(default_factory=lambda: array("H"))


class McapStorage:
    """An open mcap file; see :class:`.Storage`.

    :param path: the file
    :param shown: the path to name in errors
    :raises BagError: the file was cut short, or claims a size beyond all bounds
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self._shown = shown
        self._file = path.open("rb")
        try:
            self._size = path.stat().st_size
            self._schemas: dict[int, _Schema] = {}
            self._channels: dict[int, _Channel] = {}
            self._statistics: _Statistics | None = None
            self._loose = _Loose()
            self.remarks: list[str] = []
            indexed = self._read_summary()
            self._chunks = self._walk(indexed)
            self._complete()
        except BaseException:
            self._file.close()
            raise
        self.topics = [self._topic(number, channel) for number, channel in sorted(self._channels.items())]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, ids: set[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, log time [ns] and bytes of each message, in the order of their log times.

        :param ids: channels to read
        """
        merged = heapq.merge(self._chunk_messages(ids), self._loose_messages(ids), key=lambda item: item[:2])
        for stamp, _, _, channel, data in merged:
            yield channel, stamp, data

    # -- reading the structure --

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise ValueError(f"a record of {size} bytes at {offset} that ends after the file")
        self._file.seek(offset)
        return self._file.read(size)

    def _record(self, offset: int) -> tuple[int, int, int]:
        """Return the opcode of the record at ``offset``, where its content begins, and its size."""
        code, size = _RECORD.unpack(self._read(offset, _RECORD.size))
        if offset + _RECORD.size + size > self._size:
            raise ValueError(f"a record of {size} bytes at {offset} that ends after the file")
        return code, offset + _RECORD.size, size

    def _content(self, offset: int, size: int) -> _Fields:
        self._check_size(size)
        return _Fields(self._read(offset, size))

    def _read_summary(self) -> dict[int, tuple[int, _Chunk]]:
        """Read what the summary has; returns the indexed chunks and where the record after each begins, by offset."""
        footer = self._size - _FOOTER_BYTES
        code, at, _ = self._record(max(footer, 0))
        if code != _FOOTER or self._read(0, len(MAGIC)) != MAGIC:
            raise ValueError("no footer")
        (start,) = self._content(at, 20).take("Q")
        self._data_end = start or footer
        if not len(MAGIC) <= self._data_end <= footer:
            raise ValueError(f"a summary at {start}")
        indexed: dict[int, tuple[int, _Chunk]] = {}
        offset = self._data_end
        while offset < footer:
            code, at, size = self._record(offset)
            offset = at + size
            if code == _CHUNK_INDEX:
                fields = self._content(at, size)
                begin, _, place, length = fields.take("QQQQ")
                offsets = fields.blob()
                (index_length,) = fields.take("Q")
                channels = frozenset(channel for channel, _ in struct.iter_unpack("<HQ", offsets))
                indexed[place] = place + length + index_length, _Chunk(place, begin, channels or None)
            else:
                self._note(code, at, size)
        return indexed

    def _note(self, code: int, at: int, size: int) -> None:
        """Keep a schema, a channel or the statistics."""
        if code in (_SCHEMA, _CHANNEL, _STATISTICS):
            self._keep(code, self._content(at, size))

    def _keep(self, code: int, fields: _Fields) -> None:
        if code == _SCHEMA:
            (number,) = fields.take("H")
            self._schemas.setdefault(number, _Schema(fields.text(), fields.text(), fields.text()))
        elif code == _CHANNEL:
            number, schema = fields.take("HH")
            self._channels.setdefault(number, _Channel(schema, fields.text(), fields.text(), fields.blob()))
        else:
            messages, schemas, channels, _, _, _, first, last = fields.take("QHIIIIQQ")
            counts = dict(struct.iter_unpack("<HQ", fields.blob()))
            self._statistics = _Statistics(messages, schemas, channels, (first, last), counts)

    def _walk(self, indexed: dict[int, tuple[int, _Chunk]]) -> list[_Chunk]:
        """Find all chunks and all records outside of them, over the indexed chunks without reading them."""
        chunks = []
        offset = len(MAGIC)
        while offset < self._data_end:
            if offset in indexed:
                after, chunk = indexed[offset]
                chunks.append(chunk)
                if after <= offset or after > self._data_end:
                    raise ValueError(f"an index of the chunk at {offset} that ends at {after}")
                offset = after
                continue
            code, at, size = self._record(offset)
            if code == _CHUNK:
                chunks.append(_Chunk(offset, *struct.unpack("<Q", self._read(at, 8))))
            elif code == _MESSAGE:
                channel, _, stamp, _ = _MESSAGE_START.unpack(self._read(at, _MESSAGE_START.size))
                self._loose.times.append(stamp)
                self._loose.offsets.append(at + _MESSAGE_START.size)
                self._loose.sizes.append(size - _MESSAGE_START.size)
                self._loose.channels.append(channel)
            elif code == _DATA_END:
                break
            elif not code:
                raise ValueError(f"a record of kind 0 at {offset}")
            else:
                self._note(code, at, size)
            offset = at + size
        return sorted(chunks, key=lambda chunk: (chunk.start_ns, chunk.offset))

    def _complete(self) -> None:
        """Read the chunks for what the summary does not repeat, and count the messages if it does not."""
        found = self._statistics
        mentioned = set().union(*(chunk.channels or () for chunk in self._chunks), self._loose.channels)
        if (
            found is not None
            and sum(found.counts.values()) == found.messages
            and (found.messages or not (self._chunks or self._loose.times))
            and (found.schemas, found.channels) == (len(self._schemas), len(self._channels))
            and mentioned <= self._channels.keys()
            and {channel.schema for channel in self._channels.values()} <= {0, *self._schemas}
        ):
            self.counts = found.counts
            self.times = found.times if found.messages else None
            return
        counts: Counter[int] = Counter(self._loose.channels)
        stamps = {min(self._loose.times), max(self._loose.times)} if self._loose.times else set()
        for chunk in self._chunks:
            for code, content, begin, size in self._records(chunk):
                if code == _MESSAGE:
                    channel, _, stamp, _ = _MESSAGE_START.unpack_from(content, begin)
                    counts[channel] += 1
                    stamps = {min(stamp, *stamps), max(stamp, *stamps)} if stamps else {stamp}
                elif code in (_SCHEMA, _CHANNEL):
                    self._keep(code, _Fields(content[begin : begin + size]))
        if unknown := sorted(counts.keys() - self._channels.keys()):
            self.remarks.append(f"{sum(counts[number] for number in unknown)} messages belong to no channel")
        self.counts = {number: counts[number] for number in self._channels}
        for number, claimed in sorted((found.counts if found is not None else {}).items()):
            if claimed != counts[number]:
                topic = quoted(self._channels[number].topic) if number in self._channels else f"channel {number}"
                self.remarks.append(f"its statistics count {claimed} messages of {topic}, there are {counts[number]}")
        self.times = (min(stamps), max(stamps)) if stamps else None

    def _topic(self, number: int, channel: _Channel) -> StoredTopic:
        schema = self._schemas.get(channel.schema, _Schema("", "", ""))
        fault = ""
        if channel.encoding != CDR:
            fault = channel.encoding or "no encoding"
        elif not channel.schema:
            fault = "no type: its schema is 0"
        elif not schema.name:
            fault = f"no type: schema {channel.schema} is not in the file"
        qos = qos_of(_qos_text(channel.metadata))
        definition = definition_of(schema.encoding, schema.text)
        return StoredTopic(
            number, channel.topic, _ros_name(schema.name), channel.encoding, definition, "", qos, quoted(fault)
        )

    # -- reading messages --

    def _chunk_messages(self, ids: set[int]) -> Iterator[tuple[int, int, int, int, bytes]]:
        """Yield log time, offset of the chunk, number within it, channel and data; chunks may overlap in time."""
        waiting: list[tuple[int, int, int, int, bytes]] = []
        for chunk in self._chunks:
            if chunk.channels is not None and not chunk.channels & ids:
                continue
            while waiting and waiting[0][0] < chunk.start_ns:
                yield heapq.heappop(waiting)
            for number, (code, content, begin, size) in enumerate(self._records(chunk)):
                if code == _MESSAGE:
                    channel, _, stamp, _ = _MESSAGE_START.unpack_from(content, begin)
                    if channel in ids:
                        data = content[begin + _MESSAGE_START.size : begin + size]
                        heapq.heappush(waiting, (stamp, chunk.offset, number, channel, data))
        while waiting:
            yield heapq.heappop(waiting)

    def _loose_messages(self, ids: set[int]) -> Iterator[tuple[int, int, int, int, bytes]]:
        loose = self._loose
        for index in np.argsort(np.frombuffer(loose.times, np.uint64), kind="stable") if loose.times else ():
            if loose.channels[index] in ids:
                offset = loose.offsets[index]
                data = self._read(offset, loose.sizes[index])
                yield loose.times[index], offset, 0, loose.channels[index], data

    def _records(self, chunk: _Chunk) -> Iterator[tuple[int, bytes, int, int]]:
        """Yield opcode, decompressed chunk, begin and size of each record of a chunk."""
        content = self._decompressed(chunk)
        offset = 0
        while offset < len(content):
            code, size = _RECORD.unpack_from(content, offset)
            begin = offset + _RECORD.size
            offset = begin + size
            if offset > len(content) or (code == _MESSAGE and size < _MESSAGE_START.size):
                raise ValueError(f"a record of {size} bytes in the chunk at {chunk.offset}")
            yield code, content, begin, size

    def _decompressed(self, chunk: _Chunk) -> bytes:
        code, at, size = self._record(chunk.offset)
        if code != _CHUNK:
            raise ValueError(f"no chunk at {chunk.offset}")
        fields = self._content(at, size)
        _, _, whole, crc = fields.take("QQQI")
        self._check_size(whole)
        compression, packed = fields.text(), fields.blob("Q")
        if not compression:
            content = packed
        elif compression == "zstd":
            content = unpack_bounded(zstd.ZstdDecompressor(), packed, whole)
        elif compression == "lz4":
            content = unpack_bounded(LZ4FrameDecompressor(), packed, whole)
        else:
            remedy = "convert it with `mcap compress`"
            raise BagError(f"the chunks of {self._shown}", "compressed by lz4 or zstd", quote(compression), remedy)
        if len(content) != whole:
            raise ValueError(f"a chunk at {chunk.offset} of {len(content)} bytes in place of {whole}")
        if crc and crc32(content) != crc:
            raise ValueError(f"a chunk at {chunk.offset} with another checksum")
        return content

    def _check_size(self, size: int) -> None:
        if size > MAX_BYTES:
            remedy = "rewrite it with smaller chunks, by `mcap compress`"
            raise BagError(f"a record of {self._shown}", f"at most {MAX_BYTES} bytes", f"{size}", remedy)


def _qos_text(metadata: bytes) -> str:
    """Return the offered QoS in a channel's metadata; empty if there is none."""
    fields = _Fields(metadata)
    try:
        while True:
            name, text = fields.text(), fields.text()
            if name == "offered_qos_profiles":
                return text
    except struct.error:
        return ""


def _ros_name(name: str) -> str:
    """Write the name of a type as ROS 2 does, also where DDS (``sensor_msgs::msg::Image``) or ROS 1 has written it."""
    parts = name.replace("::", "/").split("/")
    return "/".join([parts[0], "msg", parts[1]] if len(parts) == 2 else parts)
