"""PNG chunks: integrity checks and text.

OpenCV does not support text chunks (PNG specification, third edition, 11.3.3).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

from textdifuse_ros.errors import FileError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AFTER_HEADER = len(SIGNATURE) + 25  # IHDR is the first chunk and has 13 bytes of content
_MAX_TEXT = 1 << 20  # bytes; compressed texts that unpack to more are truncated


def chunks(data: bytes, what: str) -> Iterator[tuple[bytes, memoryview]]:
    """Iterate over the chunks of a PNG file up to IEND, verifying their checksums.

    :param data: content of the file, signature included
    :param what: name of the file in error messages
    :returns: four-byte name and content of each chunk
    :raises FileError: wrong checksum, or the file ends before IEND
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
    raise FileError(what, "a whole PNG file", f"a file truncated after {len(data)} bytes", "copy it again")


def add_text(data: bytes, texts: Mapping[str, str]) -> bytes:
    """Insert text chunks after the header of a PNG file: tEXt for ASCII, iTXt (UTF-8) otherwise.

    :param data: content of the file
    :param texts: texts without NUL by keyword of 1 to 79 printable ASCII characters
    :returns: content of the new file
    :raises FileError: a keyword or text that PNG does not allow
    """
    parts = [data[:_AFTER_HEADER]]
    for key, value in texts.items():
        if not (key.isascii() and key.isprintable() and key == key.strip() and 1 <= len(key) <= 79):
            raise FileError("the keyword of a PNG text", "1 to 79 printable ASCII characters", repr(key))
        if "\0" in value:
            raise FileError(f"the PNG text {key!r}", "free of NUL characters", repr(value))
        if value.isascii():
            parts.append(_chunk(b"tEXt", key.encode() + b"\0" + value.encode()))
        else:  # uncompressed, no language, no translated keyword
            parts.append(_chunk(b"iTXt", key.encode() + b"\0\0\0\0\0" + value.encode()))
    return b"".join([*parts, data[_AFTER_HEADER:]])


def read_text(data: bytes, what: str) -> dict[str, str]:
    """Read the texts of a PNG file (tEXt, zTXt, iTXt); invalid text chunks are skipped.

    :param data: content of the file
    :param what: name of the file in error messages
    :returns: texts by keyword
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
    return zlib.decompressobj().decompress(packed, _MAX_TEXT)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
