"""Tiny ONNX detectors: each cell of 8 x 8 pixels that is white is a person, blue a car, green a truck.

A person's score rises from 0 at a mean of 127.5 to 1 at white, the other ones are differences of two channels: the
padding and all darker grey levels score 0. The cells of strides 16 and 32 never find anything.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 96
CELLS = 144 + 36 + 9
PERSON, CAR, TRUCK = 0, 2, 7


def save_yolox(path: Path, classes: int = 80, **settings: object) -> Path:
    """Save a detector in YOLOX's layout: BGR in 0 .. 255, output [1, 189, 5 + classes]."""
    rows = np.zeros((5 + classes, 3), np.float32)
    bias = np.zeros(5 + classes, np.float32)
    bias[:5] = 0.5, 0.5, 0, 0, 1  # the middle of the cell, the logarithms of its sides, the objectness
    _color(rows[5:], bias[5:], np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float32) / 255)
    nodes = [
        *_cells(),
        helper.make_node("Transpose", ["all"], ["output"], perm=[0, 2, 1]),
    ]
    return _save(path, nodes, rows, bias, [1, CELLS, 5 + classes], **settings)


def save_ultralytics(path: Path, classes: int = 80, **settings: object) -> Path:
    """Save a detector in Ultralytics' layout: RGB in 0 .. 1, output [1, 4 + classes, 189] with boxes in pixels."""
    rows = np.zeros((4 + classes, 3), np.float32)
    bias = np.zeros(4 + classes, np.float32)
    _color(rows[4:], bias[4:], np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32))
    y, x = np.mgrid[: SIZE // 8, : SIZE // 8].reshape(2, -1) * 8 + 4
    boxes = np.zeros((1, 4 + classes, CELLS), np.float32)
    boxes[0, :4, : x.size] = x, y, np.full(x.size, 8), np.full(x.size, 8)
    nodes = [*_cells(), helper.make_node("Add", ["all", "boxes"], ["output"])]
    return _save(path, nodes, rows, bias, [1, 4 + classes, CELLS], boxes, **settings)


def _color(rows: np.ndarray, bias: np.ndarray, channels: np.ndarray) -> None:
    """Set the weights of the classes; the channels are red, green and blue."""
    red, green, blue = channels
    rows[PERSON], bias[PERSON] = channels.sum(0) * 2 / 3, -1
    for kind, weight in ((CAR, blue - red), (TRUCK, green - red)):
        if kind < len(rows):
            rows[kind] = weight


def _cells() -> list[onnx.NodeProto]:
    return [
        helper.make_node("AveragePool", ["image"], ["mean"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["mean", "rows", "bias"], ["raw"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["raw"], ["cells"]),
        helper.make_node("Reshape", ["cells", "shape"], ["near"]),
        helper.make_node("Concat", ["near", "far"], ["all"], axis=2),
    ]


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    rows: np.ndarray,
    bias: np.ndarray,
    output: list[int],
    boxes: np.ndarray | None = None,
    names: dict[int, str] | None = None,
    sides: tuple[object, object] = (SIZE, SIZE),
    element: int = TensorProto.FLOAT,
) -> Path:
    """Save the graph; ``names`` go to the metadata, ``sides`` and ``element`` are those of the input."""
    far = np.zeros((1, len(rows), CELLS - (SIZE // 8) ** 2), np.float32)
    weights = {"rows": rows[:, :, None, None], "bias": bias, "far": far, "shape": np.array([1, len(rows), -1])}
    if boxes is not None:
        weights["boxes"] = boxes
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", element, [1, 3, *sides])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if names is not None:
        helper.set_model_props(model, {"names": str(names)})
    onnx.save(model, str(path))
    return path
