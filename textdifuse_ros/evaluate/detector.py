"""A trained object detector, exported to ONNX, that judges images: YOLOX and Ultralytics layouts.

ONNX Runtime runs it where it is installed (``pip install textdifuse_ros[detect]``), OpenCV's dnn module otherwise.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.onnx_graph import FLOAT32, OnnxGraph, read_graph

LEAST_SCORE = 0.01
"""Boxes of lower scores are dropped; average precision needs those of low scores, too."""
NMS_IOU = 0.45
"""Of two boxes of a class with a larger intersection over union, the one of lower score is dropped."""

_PADDING = 114
_STRIDES = (8, 16, 32)
_YOLOX, _ULTRALYTICS = "YOLOX", "Ultralytics"

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

_SAME = {"bus": "car", "truck": "car", "van": "car", "people": "person", "pedestrian": "person", "bike": "bicycle"}


def kind_of(name: str) -> str:
    """Return the class that a detector's or a label's class ``name`` counts as: buses, trucks and vans are cars."""
    name = name.strip().lower()
    return _SAME.get(name, name)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one class in one image.

    :ivar edges: float64 [N, 4], left, top, right, bottom [pixels]
    :ivar scores: float64 [N], in [0, 1]
    """

    edges: np.ndarray
    scores: np.ndarray

    def suppressed(self) -> Boxes:
        """Suppress boxes that overlap one of higher score by more than :data:`NMS_IOU`."""
        rectangles = np.hstack((self.edges[:, :2], self.edges[:, 2:] - self.edges[:, :2]))
        kept = cv2.dnn.NMSBoxes(rectangles.tolist(), self.scores.tolist(), 0.0, NMS_IOU)
        order = np.asarray(kept, np.int64).reshape(-1)
        return Boxes(self.edges[order], self.scores[order])

    def joined(self, other: Boxes) -> Boxes:
        """Join with the boxes of ``other``, of the same class, and suppress."""
        edges, scores = np.vstack((self.edges, other.edges)), np.hstack((self.scores, other.scores))
        return Boxes(edges, scores).suppressed()

    def above(self, score: float) -> Boxes:
        """Keep boxes of at least this ``score``."""
        kept = self.scores >= score
        return Boxes(self.edges[kept], self.scores[kept])


Detected = dict[str, Boxes]
"""The boxes found in one image, by class."""


class OnnxDetector:
    """A detector loaded from an ONNX file.

    The layout follows from the shape of its output, with N the number of cells at strides 8, 16 and 32: YOLOX
    [1, N, 5 + C] (grid offsets, log sizes, objectness, scores), Ultralytics [1, 4 + C, N] (centers and sizes in pixels,
    scores).

    :param path: the file
    :param engine: ``onnxruntime``, ``opencv``, or "" for ONNX Runtime where it is installed
    :ivar kinds: the classes that it finds, see :func:`kind_of`
    :ivar summary: file, layout, size and engine, for reports
    :raises FileError: not readable, or of another layout
    """

    def __init__(self, path: Path, engine: str = "") -> None:
        self._graph = read_graph(path)
        self._height, self._width = _input_size(self._graph, path)
        self._infer, name = _engine(path, engine)
        blank = np.full((1, 3, self._height, self._width), _PADDING, np.float32)
        self._layout, classes = self._find_layout(path, [output.shape for output in self._infer(blank)])
        names = _class_names(self._graph, classes, path)
        self.kinds = tuple(dict.fromkeys(map(kind_of, names)))
        self._members = {kind: [n for n, item in enumerate(names) if kind_of(item) == kind] for kind in self.kinds}
        size = f"{self._width} x {self._height}"
        self.summary = f"{path.name} ({self._layout}, {classes} classes, {size} pixels, {name})"

    def detect(self, image: np.ndarray) -> Detected:
        """Find the objects of an image.

        :param image: uint8 [H, W, 3] RGB
        :returns: boxes of scores of at least :data:`LEAST_SCORE` within the image, after non-maximum suppression, for
            each of :attr:`kinds`
        """
        scale = min(self._height / image.shape[0], self._width / image.shape[1])
        blob, offset = self._letterbox(image, scale)
        output = self._infer(blob)[0][0].astype(np.float64)
        centers, sizes, scores = self._decode(output)
        edges = (np.hstack((centers - sizes / 2, centers + sizes / 2)) - np.tile(offset, 2)) / scale
        edges = np.clip(edges, 0, (image.shape[1], image.shape[0]) * 2)
        found = {}
        for kind, members in self._members.items():
            best = scores[:, members].max(1)
            found[kind] = Boxes(edges, best).above(LEAST_SCORE).suppressed()
        return found

    def _letterbox(self, image: np.ndarray, scale: float) -> tuple[np.ndarray, tuple[float, float]]:
        """Fit the image into the input; returns it and the offset of its corner (x, y) [pixels]."""
        height, width = (max(1, int(side * scale + 1e-6)) for side in image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        left = top = 0
        if self._layout == _ULTRALYTICS:  # in the middle; YOLOX fills from the corner
            left, top = (self._width - width) // 2, (self._height - height) // 2
        canvas = np.full((self._height, self._width, 3), _PADDING, np.float32)
        canvas[top : top + height, left : left + width] = small
        levels = canvas[:, :, ::-1] if self._layout == _YOLOX else canvas / 255
        return np.ascontiguousarray(levels.transpose(2, 0, 1)[None], np.float32), (left, top)

    def _decode(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Split an output into centers [N, 2] and sizes [N, 2] in pixels of the input, and scores [N, C]."""
        if self._layout == _ULTRALYTICS:
            rows = output.T
            return rows[:, :2], rows[:, 2:4], rows[:, 4:]
        corners, strides = _grid(self._height, self._width)
        return (output[:, :2] + corners) * strides, np.exp(output[:, 2:4]) * strides, output[:, 4:5] * output[:, 5:]

    def _find_layout(self, path: Path, shapes: list[tuple[int, ...]]) -> tuple[str, int]:
        """Recognize the layout from the shapes of the outputs; returns its name and the number of classes."""
        cells = len(_grid(self._height, self._width)[0])
        if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][0] == 1:
            _, rows, columns = shapes[0]
            if rows == cells and columns > 5:
                return _YOLOX, columns - 5
            if columns == cells and rows > 4:
                return _ULTRALYTICS, rows - 4
        expected = f"[1, {cells}, 5 + classes] (YOLOX) or [1, 4 + classes, {cells}] (Ultralytics)"
        found = " and ".join(str(list(shape)) for shape in shapes)
        raise FileError(f"the output of {path}", expected, found, "export it for detection without NMS in the graph")


def _input_size(graph: OnnxGraph, path: Path) -> tuple[int, int]:
    shape = graph.shape
    is_image = len(shape) == 4 and shape[1] == 3 and graph.element == FLOAT32
    if not is_image or any(side < 32 or side % 32 for side in shape[2:]):
        expected = "float32 [1, 3, H, W], of a fixed size in multiples of 32"
        found = f"{list(shape)} (0 = not fixed)" if graph.element == FLOAT32 else f"element type {graph.element}"
        raise FileError(
            f"the input of {path}", expected, found, "export it with a fixed size and without half precision"
        )
    return shape[2], shape[3]


def _class_names(graph: OnnxGraph, classes: int, path: Path) -> tuple[str, ...]:
    """Return the names of the classes: of the file's metadata (as Ultralytics writes them), else COCO's."""
    names: tuple[str, ...] = COCO_CLASSES
    if "names" in graph.metadata:
        try:
            listed = ast.literal_eval(graph.metadata["names"])
            names = tuple(str(listed[n]) for n in range(len(listed)))
        except (ValueError, SyntaxError, KeyError, TypeError) as error:
            raise FileError(f"the class names of {path}", "a dictionary by index", graph.metadata["names"]) from error
    if len(names) != classes:
        remedy = "a detector of other classes than COCO's must name them in its metadata 'names'"
        raise FileError(f"the classes of {path}", f"{len(names)}", f"{classes}", remedy)
    return names


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners [N, 2] of all cells in units of their strides, and the strides [N, 1]."""
    corners, strides = [], []
    for stride in _STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        corners.append(np.stack((x, y), 2).reshape(-1, 2))
        strides.append(np.full((len(corners[-1]), 1), stride))
    return np.concatenate(corners), np.concatenate(strides)


Infer = Callable[[np.ndarray], list[np.ndarray]]


def _engine(path: Path, name: str) -> tuple[Infer, str]:
    """Load the file; returns a function from a blob to the outputs, and the name of the engine."""
    if name != "opencv":
        try:
            return _onnx_runtime(path)
        except ImportError:
            if name:
                raise
    return _opencv(path)


def _onnx_runtime(path: Path) -> tuple[Infer, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one process per core already
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no public base class
        raise FileError(f"the detector {path}", "a file that ONNX Runtime can run", _line(error)) from error
    name = session.get_inputs()[0].name
    return lambda blob: list(session.run(None, {name: blob})), f"ONNX Runtime {onnxruntime.__version__}"


def _opencv(path: Path) -> tuple[Infer, str]:
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        remedy = "install ONNX Runtime: pip install textdifuse_ros[detect]"
        raise FileError(f"the detector {path}", "a file that OpenCV can run", _line(error), remedy) from error
    outputs = network.getUnconnectedOutLayersNames()

    def infer(blob: np.ndarray) -> list[np.ndarray]:
        network.setInput(blob)
        return list(network.forward(outputs))

    return infer, f"OpenCV {cv2.__version__}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
