"""The detector that judges images: layouts, letterbox, classes, engines."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest
from onnx import TensorProto
from tiny_detectors import save_ultralytics, save_yolox

from textdifuse_ros.errors import FileError
from textdifuse_ros.evaluate.detector import Boxes, OnnxDetector, kind_of

WHITE, GREEN, BLUE, GREY = (255, 255, 255), (0, 255, 0), (0, 0, 255), (90, 90, 90)
LAYOUTS = {"YOLOX": save_yolox, "Ultralytics": save_ultralytics}


@pytest.fixture(params=LAYOUTS)
def layout(request) -> str:
    return request.param


@pytest.fixture
def file(layout, tmp_path):
    return LAYOUTS[layout](tmp_path / "tiny.onnx")


def image_with(*colored, height=96, width=192) -> np.ndarray:
    """A grey image, uint8 [height, width, 3], with boxes (left, top, right, bottom) in a color."""
    image = np.full((height, width, 3), GREY, np.uint8)
    for color, (left, top, right, bottom) in colored:
        image[top:bottom, left:right] = color
    return image


@pytest.mark.parametrize("engine", ["onnxruntime", "opencv"])
class TestBothEngines:
    def test_boxes_come_out_in_pixels_of_the_image_by_color(self, file, layout, engine) -> None:
        """At half the size, in the input's upper half (YOLOX) or in its middle (Ultralytics)."""
        detector = OnnxDetector(file, engine)
        assert layout in detector.summary and "96 x 96 pixels" in detector.summary
        found = detector.detect(image_with((WHITE, (32, 16, 48, 32)), (BLUE, (96, 48, 112, 64))))
        assert found["person"].edges.tolist() == [[32, 16, 48, 32]]
        assert found["car"].edges.tolist() == [[96, 48, 112, 64]]
        assert found["person"].scores == pytest.approx([1], abs=0.01)
        assert not len(found["bicycle"].scores)

    def test_a_tall_image_is_fitted_too(self, file, engine) -> None:
        found = OnnxDetector(file, engine).detect(image_with((WHITE, (16, 96, 32, 112)), height=192, width=96))
        assert found["person"].edges.tolist() == [[16, 96, 32, 112]]

    def test_a_second_image_is_not_mixed_with_the_first(self, file, engine) -> None:
        detector = OnnxDetector(file, engine)
        first = detector.detect(image_with((WHITE, (0, 0, 16, 16))))
        assert not len(detector.detect(image_with())["person"].scores)
        assert first["person"].edges.tolist() == [[0, 0, 16, 16]]


class TestClasses:
    def test_trucks_count_as_cars_and_are_found_once(self, file) -> None:
        found = OnnxDetector(file).detect(image_with((GREEN, (32, 16, 48, 32))))
        assert "truck" not in found and found["car"].edges.tolist() == [[32, 16, 48, 32]]

    @pytest.mark.parametrize(("name", "kind"), [("Bus", "car"), ("People", "person"), ("dog", "dog"), (" Car", "car")])
    def test_names_of_labels_are_unified(self, name, kind) -> None:
        assert kind_of(name) == kind

    def test_names_are_read_from_the_metadata(self, layout, tmp_path) -> None:
        file = LAYOUTS[layout](tmp_path / "own.onnx", 3, names={0: "Pedestrian", 1: "deer", 2: "car"})
        detector = OnnxDetector(file)
        assert detector.kinds == ("person", "deer", "car")
        found = detector.detect(image_with((WHITE, (0, 0, 16, 16)), (BLUE, (64, 0, 80, 16))))
        assert len(found["person"].scores) == len(found["car"].scores) == 1

    def test_other_classes_than_cocos_must_be_named(self, layout, tmp_path) -> None:
        with pytest.raises(FileError, match=r"must be 80, got 3; .*metadata 'names'"):
            OnnxDetector(LAYOUTS[layout](tmp_path / "own.onnx", 3))
        with pytest.raises(FileError, match="must be 2, got 3"):
            OnnxDetector(LAYOUTS[layout](tmp_path / "own.onnx", 3, names={0: "person", 1: "car"}))


class TestSuppression:
    BOXES = Boxes(np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10.0]]), np.array([0.6, 0.9, 0.3]))

    def test_of_two_boxes_of_an_object_the_better_one_stays(self) -> None:
        kept = self.BOXES.suppressed()
        assert kept.scores == pytest.approx([0.9, 0.3]) and kept.edges[0].tolist() == [1, 0, 11, 10]

    def test_joining_keeps_what_only_one_of_both_has(self) -> None:
        other = Boxes(np.array([[0, 0, 10, 10], [60, 0, 70, 10.0]]), np.array([0.95, 0.2]))
        joined = self.BOXES.joined(other)
        assert joined.scores == pytest.approx([0.95, 0.3, 0.2])
        nothing = Boxes(np.zeros((0, 4)), np.zeros(0))
        assert len(nothing.joined(nothing).scores) == 0


class TestEngines:
    def test_opencv_runs_the_file_without_onnx_runtime(self, file, monkeypatch) -> None:
        original = builtins.__import__

        def missing(name, *rest):
            if name == "onnxruntime":
                raise ImportError(name)
            return original(name, *rest)

        monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
        monkeypatch.setattr(builtins, "__import__", missing)
        assert "OpenCV" in OnnxDetector(file).summary

    def test_onnx_runtime_is_preferred(self, file) -> None:
        assert "ONNX Runtime" in OnnxDetector(file).summary


class TestRejectedFiles:
    @pytest.mark.parametrize("sides", [(64, "width"), ("height", "width"), (60, 64)])
    def test_an_input_of_no_fixed_suitable_size(self, layout, tmp_path, sides) -> None:
        file = LAYOUTS[layout](tmp_path / "tiny.onnx", sides=sides)
        with pytest.raises(FileError, match=r"float32 \[1, 3, H, W\], of a fixed size in multiples of 32, got \[1, 3,"):
            OnnxDetector(file)

    def test_half_precision(self, layout, tmp_path) -> None:
        file = LAYOUTS[layout](tmp_path / "tiny.onnx", element=TensorProto.FLOAT16)
        with pytest.raises(FileError, match="float32"):
            OnnxDetector(file)

    def test_another_layout_is_named_with_its_shape(self, tmp_path) -> None:
        """The detector has the cells of 96 pixels, its input has 64."""
        file = save_yolox(tmp_path / "tiny.onnx", sides=(64, 64))
        expected = r"\[1, 84, 5 \+ classes\] \(YOLOX\) or \[1, 4 \+ classes, 84\] \(Ultralytics\), got \[1, 109, 85\]"
        with pytest.raises(FileError, match=expected):
            OnnxDetector(file, "onnxruntime")

    @pytest.mark.parametrize("content", [b"", b"no model", b"\x89PNG\r\n\x1a\n" + bytes(64)])
    def test_a_file_that_is_no_onnx(self, tmp_path, content) -> None:
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(FileError, match=r"the detector .*x\.onnx must be an ONNX file"):
            OnnxDetector(tmp_path / "x.onnx")

    def test_a_file_that_is_cut_off(self, file, tmp_path) -> None:
        (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:-200])
        with pytest.raises(FileError, match=r"the detector .*cut\.onnx must be"):
            OnnxDetector(tmp_path / "cut.onnx")

    def test_a_missing_file(self, tmp_path) -> None:
        with pytest.raises(FileError, match=r"a readable ONNX file, got No such file"):
            OnnxDetector(tmp_path / "none.onnx")
