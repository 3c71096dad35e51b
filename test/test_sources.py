"""Sources of the player: cameras and calibrations of a recording, folders of pairs, live stamps."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from player_inputs import FRAMES, NOTE, PERIOD, START, make_folder, record_pairs

from textdifuse_ros.bags.cameras import CALIBRATION_TYPE as INFO_TYPE
from textdifuse_ros.bags.cameras import COMPRESSED_TYPE, find_camera, find_cameras
from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.errors import BagError
from textdifuse_ros.nodes.sources import (
    INFRARED_IMAGE,
    VISIBLE_IMAGE,
    BagSource,
    FolderSource,
    PlaybackEntry,
    open_source,
    restamp,
)


class TestSources:
    def test_cameras_are_found_by_name(self) -> None:
        path = Path("bag")
        assert find_camera("visible", ["/cam/rgb", "/cam/ir"], path) == "/cam/rgb"
        assert find_camera("infrared", ["/cam/rgb", "/cam/lwir_image"], path) == "/cam/lwir_image"
        assert find_camera("visible", ["/front", "/thermal"], path) == "/front", "what is not infrared"

    @pytest.mark.parametrize("topics", [["/a", "/b"], ["/left/rgb", "/right/rgb"], []])
    def test_an_ambiguous_recording_requires_the_parameter(self, topics: list[str]) -> None:
        with pytest.raises(BagError, match="visible_topic"):
            find_camera("visible", topics, Path("bag"))

    def test_topics_may_be_given(self, tmp_path: Path) -> None:
        source = BagSource(record_pairs(tmp_path / "bag"), visible="/cam/thermal", infrared="/cam/color", others="*")
        assert set(source.topics()) == {VISIBLE_IMAGE, INFRARED_IMAGE, "/note"}
        first = next(source.lap(0))
        assert first.topic == INFRARED_IMAGE and first.offset_ns == 0 and first.time_ns == START
        assert source.lap_ns > (FRAMES - 1) * PERIOD
        source.close()

    def test_an_unknown_topic_is_refused_with_a_list_of_the_known(self, tmp_path: Path) -> None:
        source = record_pairs(tmp_path / "bag")
        for camera in ("/camera/color", "/note"):
            with pytest.raises(BagError, match="one of /cam/color, /cam/thermal, got"):
                BagSource(source, visible=camera)
        with pytest.raises(BagError, match="one of /cam/color, /cam/thermal, /note, got '/nots'"):
            BagSource(source, others="/nots")
        with pytest.raises(BagError, match="two topics, got /cam/color for both"):
            BagSource(source, visible="/cam/color", infrared="/cam/color")

    def test_the_calibrations_of_the_cameras_are_played(self, tmp_path: Path) -> None:
        def source(name: str, *topics: str, infos: tuple[str, ...]) -> tuple[BagSource, list[str]]:
            reports: list[str] = []
            with BagWriter(tmp_path / name) as bag:
                for topic in topics:
                    bag.write_image(topic, START, "camera", np.zeros((4, 4), np.uint8))
                for topic in infos:
                    bag.add_topic(topic, INFO_TYPE)
                    bag.write_raw(topic, START, NOTE)
            return BagSource(tmp_path / name, report=reports.append), reports

        apart, reports = source("a", "/rgb/image", "/ir/image", infos=("/rgb/camera_info", "/ir/camera_info"))
        assert (
            apart.topics().keys() == {VISIBLE_IMAGE, INFRARED_IMAGE, "visible/camera_info", "infrared/camera_info"}
            and not reports
        )
        assert [entry.topic for entry in apart.lap(0)].count("infrared/camera_info") == 1
        one, reports = source("b", "/rgb/image", "/ir/image", infos=("/ir/camera_info",))
        assert one.topics().keys() == {VISIBLE_IMAGE, INFRARED_IMAGE, "infrared/camera_info"} and not reports
        shared, reports = source("c", "/cam/rgb", "/cam/ir", infos=("/cam/camera_info",))
        assert shared.topics().keys() == {VISIBLE_IMAGE, INFRARED_IMAGE}
        assert reports == ["left out: /cam/camera_info, which belongs to both cameras"]
        for opened in (apart, one, shared):
            opened.close()

    def test_raw_images_are_preferred_to_compressed_ones_of_the_same_camera(self, tmp_path: Path) -> None:
        kinds = {"/rgb/image_raw": IMAGE_TYPE, "/thermal/image_raw": IMAGE_TYPE}
        kinds["/rgb/rect/compressed"] = COMPRESSED_TYPE
        with BagWriter(tmp_path / "bag") as bag:
            for topic, kind in kinds.items():
                bag.add_topic(topic, kind)
            bag.write_image("/rgb/image_raw", 1, "v", np.zeros((8, 8, 3), np.uint8))
        with BagReader(tmp_path / "bag") as bag:
            assert find_cameras(bag) == ("/rgb/image_raw", "/thermal/image_raw")

    def test_compressed_images_are_found_by_their_type(self, tmp_path: Path) -> None:
        compressed = {"/rgb/jpeg", "/ir/image/compressed", "/rgb/depth/compressedDepth", "/ir/image/zstd"}
        with BagWriter(tmp_path / "bag") as bag:
            for topic in compressed:
                bag.add_topic(topic, COMPRESSED_TYPE)
                bag.write_raw(topic, START, NOTE)
        source = BagSource(tmp_path / "bag")
        assert source.cameras == (f"{VISIBLE_IMAGE}/compressed", f"{INFRARED_IMAGE}/compressed")
        assert {entry.topic for entry in source.lap(0)} == set(source.cameras)
        source.close()

    def test_the_lap_of_a_single_instant_has_a_duration(self, tmp_path: Path) -> None:
        with BagWriter(tmp_path / "bag") as bag:
            for topic in ("/rgb", "/ir"):
                bag.write_image(topic, START, "camera", np.zeros((4, 4), np.uint8))
        source = BagSource(tmp_path / "bag")
        assert source.lap_ns == 100_000_000
        source.close()

    @pytest.mark.parametrize("content", [b"", b"\x00\x01\x00\x00\x07\x00\x00\x00", bytes(40), b"\x00\x01" + bytes(20)])
    def test_a_message_without_stamp_is_unchanged_when_live(self, content: bytes) -> None:
        entry = PlaybackEntry(VISIBLE_IMAGE, 0, START, content)
        assert restamp(entry, START + 5) == content

    def test_a_live_stamp_is_shifted_by_the_age_of_the_recording(self) -> None:
        content = b"\x00\x01\x00\x00" + struct.pack("<iI", 1_600_000_000, 7) + b"rest"
        moved = restamp(PlaybackEntry(VISIBLE_IMAGE, 0, START, content), START + 10**9 + 5)
        assert moved == b"\x00\x01\x00\x00" + struct.pack("<iI", 1_600_000_001, 12) + b"rest"

    def test_a_folder_with_vis_is_opened_as_images_and_others_are_refused(self, tmp_path: Path) -> None:
        options = {"fps": 10.0, "visible": "", "infrared": "", "others": "", "report": print}
        assert isinstance(open_source(str(make_folder(tmp_path / "data", 1)), **options), FolderSource)
        (tmp_path / "empty").mkdir()
        with pytest.raises(BagError, match="vis/ and ir/"):
            open_source(str(tmp_path / "empty"), **options)
        record_pairs(tmp_path / "bag")
        (tmp_path / "bag" / "metadata.yaml").unlink()
        with pytest.raises(BagError, match=r"name the file inside, .*bag\.mcap"):
            open_source(str(tmp_path / "bag"), **options)
