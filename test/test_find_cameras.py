"""The cameras of a recording are found by name and encoding; which were taken is always said."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_makers import LATENCY, PERIOD, START, STORE, image

from textdifuse_ros.bags.cameras import COMPRESSED_TYPE, find_cameras
from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.cli.main import main
from textdifuse_ros.errors import BagError
from textdifuse_ros.nodes.sources import BagSource

COLOR = ("rgb8", "bgr8", "rgba8", "bayer_rggb8", "bayer_gbrg16", "yuv422", "uyvy", "yuv422_yuy2", "nv21", "8UC3")
DEPTH = (
    "/camera/camera/depth/image_rect_raw",
    "/camera/aligned_depth_to_color/image_raw",
    "/zed/zed_node/depth/depth_registered",
    "/zed/zed_node/confidence/confidence_map",
    "/kinect2/hd/image_depth_rect",
    "/depth_to_rgb/image_raw",
    "/stereo/disparity",
    "/oak/stereo/image_raw",
    "/tof/image_raw",
    "/lidar/range/image",
)


def _recording(path: Path, topics: dict[str, str], frames: dict[str, str] | None = None, pairs: int = 4) -> Path:
    """Record images of 16 x 12 on topics of given encodings, all with the same stamps."""
    with BagWriter(path) as bag:
        for topic in topics:
            bag.add_topic(topic, IMAGE_TYPE)
        for index in range(pairs):
            stamp = START + index * PERIOD
            for topic, encoding in topics.items():
                pixels = _pixels(encoding, index)
                frame = (frames or {}).get(topic, "camera")
                bag.write_raw(topic, stamp + LATENCY, image(pixels, stamp, frame, encoding))
    return path


def _pixels(encoding: str, seed: int) -> np.ndarray:
    """Random pixels of 16 x 12 in the layout of an encoding."""
    channels = {"a": 4, "3": 3, "8": 3}.get(encoding[3:4] if encoding.startswith(("rgb", "bgr")) else encoding[-1:], 1)
    channels = 2 if encoding.startswith(("yuv", "uyvy")) else 1 if encoding.startswith(("mono", "bayer")) else channels
    dtype = np.float32 if "F" in encoding else np.uint16 if "16" in encoding else np.uint8
    rows = 18 if encoding == "nv21" else 12
    shape = (rows, 16, channels) if channels > 1 else (rows, 16)
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


def _found(path: Path) -> tuple[str, str]:
    with BagReader(path) as bag:
        return find_cameras(bag)


class TestByEncoding:
    @pytest.mark.parametrize("color", COLOR)
    @pytest.mark.parametrize("infrared", ["mono8", "mono16", "16UC1"])
    def test_a_color_topic_is_visible_and_one_of_counts_or_grey_is_infrared(
        self, tmp_path: Path, color: str, infrared: str
    ) -> None:
        path = _recording(tmp_path / "in", {"/cam0/image_raw": infrared, "/cam1/image_raw": color})
        assert _found(path) == ("/cam1/image_raw", "/cam0/image_raw")

    def test_a_grey_topic_is_visible_beside_one_of_counts(self, tmp_path: Path) -> None:
        path = _recording(tmp_path / "in", {"/cam0/image_raw": "mono16", "/cam1/image_raw": "mono8"})
        assert _found(path) == ("/cam1/image_raw", "/cam0/image_raw")

    def test_of_two_topics_of_one_camera_the_encoding_decides(self, tmp_path: Path) -> None:
        topics = {
            "/thermal/image_color": "rgb8",
            "/thermal/image_raw": "mono16",
            "/rgb/grey": "mono8",
            "/rgb/raw": "rgb8",
        }
        assert _found(_recording(tmp_path / "in", topics)) == ("/rgb/raw", "/thermal/image_raw")

    @pytest.mark.parametrize("encodings", [("rgb8", "rgb8"), ("mono16", "mono16"), ("mono8", "mono8")])
    def test_two_topics_alike_are_refused_with_both(self, tmp_path: Path, encodings: tuple[str, str]) -> None:
        path = _recording(tmp_path / "in", dict(zip(("/cam0/image", "/cam1/image"), encodings, strict=True)))
        named = rf"/cam0/image \({encodings[0]}\), /cam1/image \({encodings[1]}\)"
        with pytest.raises(BagError, match=named):
            _found(path)

    def test_color_is_infrared_only_by_name(self, tmp_path: Path) -> None:
        topics = {"/rgb/image": "rgb8", "/front/image": "rgb8"}
        with pytest.raises(BagError, match=r"the infrared images .* got none among /front/image \(rgb8\)"):
            _found(_recording(tmp_path / "a", topics))
        assert _found(_recording(tmp_path / "b", {"/rgb/image": "rgb8", "/ir/image": "rgb8"}))[1] == "/ir/image"

    def test_the_encoding_of_compressed_images_counts(self, tmp_path: Path) -> None:
        types: Any = STORE.types
        with BagWriter(tmp_path / "in") as bag:
            for topic, form in (
                ("/a/compressed", "mono16; png compressed "),
                ("/b/compressed", "bgr8; jpeg compressed bgr8"),
            ):
                header = types["std_msgs/msg/Header"](
                    stamp=types["builtin_interfaces/msg/Time"](sec=1, nanosec=0), frame_id=""
                )
                message = types[COMPRESSED_TYPE](header=header, format=form, data=np.zeros(9, np.uint8))
                bag.add_topic(topic, COMPRESSED_TYPE)
                bag.write_raw(topic, START, bytes(STORE.serialize_cdr(message, COMPRESSED_TYPE)))
        assert _found(tmp_path / "in") == ("/b/compressed", "/a/compressed")


class TestDepth:
    @pytest.mark.parametrize(
        ("topic", "encoding"),
        [*itertools.product(DEPTH, ("16UC1", "32FC1")), *((topic, "mono16") for topic in DEPTH[:7])],
    )
    def test_depth_never_counts_as_infrared(self, tmp_path: Path, topic: str, encoding: str) -> None:
        path = _recording(tmp_path / "in", {"/camera/color/image_raw": "rgb8", topic: encoding})
        with pytest.raises(BagError, match=rf"none among .*{topic} \({encoding}, depth\)"):
            _found(path)

    @pytest.mark.parametrize("topic", DEPTH)
    def test_beside_depth_the_thermal_camera_is_found(self, tmp_path: Path, topic: str) -> None:
        topics = {topic: "16UC1", "/camera/color/image_raw": "rgb8", "/cam2/image_raw": "mono16"}
        assert _found(_recording(tmp_path / "in", topics)) == ("/camera/color/image_raw", "/cam2/image_raw")

    def test_the_frame_tells_depth_too(self, tmp_path: Path) -> None:
        topics = {"/rgb/image": "rgb8", "/sensor/image": "16UC1"}
        with pytest.raises(BagError, match="depth"):
            _found(_recording(tmp_path / "in", topics, {"/sensor/image": "camera_depth_optical_frame"}))

    def test_meters_without_any_name_are_not_taken_for_temperatures(self, tmp_path: Path) -> None:
        with pytest.raises(BagError, match=r"/sensor/image \(32FC1\)"):
            _found(_recording(tmp_path / "a", {"/rgb/image": "rgb8", "/sensor/image": "32FC1"}))
        assert _found(_recording(tmp_path / "b", {"/rgb/image": "rgb8", "/lwir/image": "32FC1"}))[1] == "/lwir/image"


class TestNearInfrared:
    STEREO = {"/camera/infra1/image_rect_raw": "mono8", "/camera/infra2/image_rect_raw": "mono8"}  # noqa: RUF012

    @pytest.mark.parametrize(
        "thermal", ["/thermal/image_raw", "/flir/lwir/image", "/boson/image_raw", "/cam2/image_raw"]
    )
    def test_a_thermal_camera_goes_before_the_eyes_of_a_stereo_camera(self, tmp_path: Path, thermal: str) -> None:
        topics = {"/camera/color/image_raw": "rgb8", **self.STEREO, thermal: "mono16"}
        assert _found(_recording(tmp_path / "in", topics)) == ("/camera/color/image_raw", thermal)

    def test_two_eyes_alone_are_refused_with_both(self, tmp_path: Path) -> None:
        path = _recording(tmp_path / "in", {"/camera/color/image_raw": "rgb8", **self.STEREO})
        with pytest.raises(BagError, match=r"got /camera/infra1/.* \(mono8\), /camera/infra2/.* \(mono8\)"):
            _found(path)


class TestTools:
    TOPICS = {"/camera/color/image_raw": "rgb8", "/camera/depth/image_rect_raw": "16UC1"}  # noqa: RUF012
    NAMED = tuple(TOPICS)

    def _verbs(self, path: Path, out: Path, checkpoint: Path) -> dict[str, tuple[list[str], str]]:
        model = ["--model", str(checkpoint), "--steps", "1", "--device", "cpu"]
        return {
            "bag": (["bag", str(path), str(out), *model], ""),
            "sync-doctor": (["sync-doctor", str(path)], ""),
            "calibrate": (["calibrate", str(path), "-o", str(out.with_suffix(".yaml"))], "-topic"),
        }

    @pytest.mark.parametrize("verb", ["bag", "sync-doctor", "calibrate"])
    def test_a_refusal_names_topics_and_a_flag_of_this_verb_that_works(
        self, tmp_path: Path, verb: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = _recording(tmp_path / "in", self.TOPICS)
        command, ending = self._verbs(path, tmp_path / "out", tiny_checkpoint)[verb]
        assert main(command) == 2
        error = capsys.readouterr().err
        flag = f"--infrared{ending}"
        assert error.rstrip().endswith(f"name it by {flag}") and all(topic in error for topic in self.TOPICS)
        given = [f"--visible{ending}", self.NAMED[0], flag, self.NAMED[1]]
        main([*command, *given])
        told = capsys.readouterr()
        assert all(topic in told.out + told.err for topic in self.NAMED) and "name it by" not in told.err

    @pytest.mark.parametrize("verb", ["bag", "sync-doctor", "calibrate"])
    def test_the_topics_that_were_taken_are_said(
        self, tmp_path: Path, verb: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = _recording(tmp_path / "in", {"/cam0/image_raw": "mono16", "/cam1/image_raw": "bayer_rggb8"})
        main(self._verbs(path, tmp_path / "out", tiny_checkpoint)[verb][0])
        told = capsys.readouterr()
        assert re.search(r"visible +/cam1/image_raw", told.out + told.err)
        assert re.search(r"infrared +/cam0/image_raw", told.out + told.err)

    def test_the_player_says_its_topics_and_names_its_parameter(self, tmp_path: Path) -> None:
        path = _recording(tmp_path / "in", self.TOPICS)
        with pytest.raises(BagError, match="name it by the parameter infrared_topic"):
            BagSource(path)
        source = BagSource(path, infrared=self.NAMED[1])
        assert source.origin() == "visible /camera/color/image_raw, infrared /camera/depth/image_rect_raw"
        source.close()
