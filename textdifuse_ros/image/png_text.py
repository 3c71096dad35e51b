"""The chunks of a PNG file: whether they are whole, and the text they carry.

OpenCV neither writes nor reads text chunks (PNG specification, third edition, 11.3.3).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

from textdifuse_ros.errors import FileError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AFTER_HEADER = len(SIGNATURE) + 25  # IHDR comes first and has 13 bytes of content
_LONGEST_TEXT = 1 << 20  # bytes; a compressed text that unpacks to more is cut off


def chunks(data: bytes, what: str) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks of a PNG file, in their order, each checked, up to IEND.

    :param data: the file's content, signature included
    :param what: names the file in error messages
    :returns: four-byte names and contents
    :raises FileError: a chunk's checksum is wrong, or the file ends before IEND
    """
    view, start = memoryview(data), len(SIGNATURE)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise FileError(what, "an undamaged PNG file", f"a wrong checksum in chunk {kind!r}", "copy it again")
        yield kind, view[start + 8 : end - 4]
        if kind == b"IEND":
            return
        start = end
    raise FileError(what, "a whole PNG file", f"one that breaks off after {len(data)} bytes", "copy it again")


def add_text(data: bytes, texts: Mapping[str, str]) -> bytes:
    """A PNG file with text chunks put behind its header: tEXt for ASCII, iTXt (UTF-8) for everything else.

    :param texts: by keyword; a keyword has 1 to 79 printable ASCII characters, a text holds no NUL
    :raises FileError: a keyword or text that PNG cannot hold
    """
    parts = [data[:_AFTER_HEADER]]
    for key, value in texts.items():
        if not (key.isascii() and key.isprintable() and key == key.strip() and 1 <= len(key) <= 79):
            raise FileError("the keyword of a PNG text", "1 to 79 printable ASCII characters", repr(key))
        if "\0" in value:
            raise FileError(f"the PNG text {key!r}", "free of NUL characters", repr(value))
        if value.isascii():
            parts.append(_chunk(b"tEXt", key.encode() + b"\0" + value.encode()))
        else:  # not compressed, no language, no translated keyword
            parts.append(_chunk(b"iTXt", key.encode() + b"\0\0\0\0\0" + value.encode()))
    return b"".join([*parts, data[_AFTER_HEADER:]])


def read_text(data: bytes, what: str) -> dict[str, str]:
    """The texts of a PNG file by keyword (tEXt, zTXt, iTXt); chunks that are not as specified are passed over.

    :raises FileError: the file is damaged or truncated
    """
    readers = {b"tEXt": _plain, b"zTXt": _compressed, b"iTXt": _international}
    texts = {}
    for kind, content in chunks(data, what):
        if kind in readers:
            key, _, rest = bytes(content).partition(b"\0")
            try:
                texts[key.decode("latin-1")] = readers[kind](rest)
            except (ValueError, zlib.error):
                continue
    return texts


def _plain(rest: bytes) -> str:
    return rest.decode("latin-1")


def _compressed(rest: bytes) -> str:
    return _unpack(rest[1:]).decode("latin-1")


def _international(rest: bytes) -> str:
    _language, _translated, text = rest[2:].split(b"\0", 2)
    return (_unpack(text) if rest[0] else text).decode("utf-8")


def _unpack(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, _LONGEST_TEXT)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
