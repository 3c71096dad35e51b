"""Input and metadata of an ONNX file, read without the ``onnx`` package.

OpenCV runs ONNX files but does not tell the size of their input or their metadata. Only the few fields needed are
decoded; their numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from textdifuse_ros.errors import FileError

FLOAT32 = 1
"""The element type float32 of ``onnx.proto3``."""

_GRAPH, _METADATA = 7, 14  # of ModelProto
_INITIALIZER, _INPUT = 5, 11  # of GraphProto
_TENSOR_NAME = 8  # of TensorProto


@dataclass(frozen=True)
class OnnxGraph:
    """What is known of an ONNX file without running it.

    :ivar shape: shape of the input; 0 for a dimension that is not fixed
    :ivar element: element type of the input, see :data:`FLOAT32`
    :ivar metadata: metadata by key
    """

    shape: tuple[int, ...]
    element: int
    metadata: dict[str, str]


def read_graph(path: Path) -> OnnxGraph:
    """Read the input and the metadata of an ONNX file.

    :param path: the file
    :raises FileError: not readable, no ONNX file, or one with several inputs
    """
    what = f"the detector {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(what, "a readable ONNX file", error.strerror or error) from error
    try:
        model = list(_fields(data))
        graph = [field for number, value in model if number == _GRAPH for field in _fields(_bytes(value))]
        weights = {_text(_first(value, _TENSOR_NAME)) for number, value in graph if number == _INITIALIZER}
        # Older files list their weights as inputs too.
        inputs = [_bytes(value) for number, value in graph if number == _INPUT]
        inputs = [value for value in inputs if _text(_first(value, 1)) not in weights]
        metadata = {_text(_first(value, 1)): _text(_first(value, 2)) for number, value in model if number == _METADATA}
        if len(inputs) == 1:
            return OnnxGraph(*_tensor_type(inputs[0]), metadata)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise FileError(what, "an ONNX file", "another or a damaged one") from error
    raise FileError(what, "an ONNX file with one input", f"one with {len(inputs)}")


def _tensor_type(value_info: bytes) -> tuple[tuple[int, ...], int]:
    """Read the shape and the element type of a ValueInfoProto of a tensor."""
    tensor = _first(_first(value_info, 2), 1)
    dimensions = [list(_fields(_bytes(value))) for number, value in _fields(_first(tensor, 2)) if number == 1]
    shape = [next((value for number, value in fields if number == 1), 0) for fields in dimensions]
    element = next((value for number, value in _fields(tensor) if number == 1), 0)
    return tuple(_integer(size) for size in shape), _integer(element)


def _first(message: bytes | int, number: int) -> bytes:
    """Return the first field ``number`` of a ``message``; empty where it is missing."""
    return next((_bytes(value) for found, value in _fields(_bytes(message)) if found == number), b"")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Decode the fields of a protobuf ``message``: their numbers and values (wire format, protobuf.dev)."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number instead of a message")
    return value


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a message instead of a number")
    return value


def _text(value: bytes) -> str:
    return value.decode()
