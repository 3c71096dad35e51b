"""``textdifuse bag``: every pair of a recording fused, the same bytes however often it is killed, many at once."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_makers import LATENCY, NOTE, PERIOD, SKEW, START, STORE, files, image, images, record, scene

from textdifuse_ros.bags.definitions import IMAGE_TYPE
from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.segments import read_notes
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.cli.main import main
from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.image.gain import ThermalGain
from textdifuse_ros.image.intake import AlignedPair, SensorIntake
from textdifuse_ros.offline import recording

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: several recordings at once were not tried"
)
PARTIAL = "000000"


@pytest.fixture
def options(tiny_checkpoint: Path) -> list[str]:
    return ["--model", str(tiny_checkpoint), "--steps", "1", "--device", "cpu", "--precision", "float32"]


def fuse(*arguments: Any) -> int:
    return main(["bag", *map(str, arguments)])


def start(*arguments: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "textdifuse_ros.cli.main", "bag", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class TestOneRecording:
    @pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
    def test_every_pair_is_fused_under_the_visible_header_at_the_time_of_its_later_half(
        self, tmp_path: Path, options: list[str], storage: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = record(tmp_path / "in", 7, storage=storage)
        assert fuse(source, tmp_path / "out", "--storage", storage, *options) == 0
        output = capsys.readouterr()
        assert "fused 7 of 7 pairs" in output.out
        assert re.search(r"in: one pair takes \d+ ms here: about \d:\d\d:\d\d for 7 pairs", output.err)
        assert "7/7" in output.err and "pair" in output.err
        found = images(tmp_path / "out")
        assert [item.stamp_ns for item in found] == [START + n * PERIOD for n in range(7)]
        assert [item.log_ns for item in found] == [START + n * PERIOD + SKEW + LATENCY for n in range(7)]
        assert {(item.frame_id, item.encoding) for item in found} == {("color", "rgb8")}
        assert {(item.height, item.width) for item in found} == {(48, 64)}
        with BagReader(tmp_path / "out") as bag:
            assert bag.counts() == {"/fusion_node/fused": 7, "/fusion_node/provenance": 7}
        assert not (tmp_path / "out.partial").exists()

    def test_the_images_are_those_that_the_fuser_gives(self, tmp_path: Path, options: list[str]) -> None:
        from textdifuse_ros.config.base import FuserConfig
        from textdifuse_ros.fusion.fuser import Fuser

        record(tmp_path / "in", 3)
        assert fuse(tmp_path / "in", tmp_path / "out", *options) == 0
        fuser = Fuser.from_config(FuserConfig(model=options[1], steps=1, device="cpu", precision="float32"))
        gain = ThermalGain(SensorConfig())
        for index, found in enumerate(images(tmp_path / "out")):
            visible, counts = scene(index)
            expected = fuser.fuse(visible, gain.apply(counts, START + index * PERIOD + SKEW)).image
            np.testing.assert_array_equal(found.data.reshape(48, 64, 3), expected)

    def test_what_made_an_image_stands_beside_it(self, tmp_path: Path, options: list[str]) -> None:
        record(tmp_path / "in", 2)
        assert fuse(tmp_path / "in", tmp_path / "out", "--name", "car/eyes", *options) == 0
        with BagReader(tmp_path / "out") as bag:
            message = next(bag.messages(["/car/eyes/provenance"]))
        report: Any = STORE.deserialize_cdr(message.data, message.type)
        values = {item.key: item.value for item in report.status[0].values}
        assert report.header.frame_id == "color" and report.status[0].message == "fused" and report.status[0].level == 0
        assert values["steps"] == "1" and values["sources"] == "visible+infrared" and len(values["weights"]) == 64
        assert values["stamp_difference_ms"] == "4.000"

    def test_topics_are_copied_only_when_asked_for_with_their_bytes_and_in_order(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        record(tmp_path / "in", 12)
        assert fuse(tmp_path / "in", tmp_path / "out", "--copy-topics", *options) == 0
        with BagReader(tmp_path / "in") as bag:
            before = [(item.topic, item.type, item.stamp_ns, bytes(item.data)) for item in bag.messages()]
        with BagReader(tmp_path / "out") as bag:
            after = [(item.topic, item.type, item.stamp_ns, bytes(item.data)) for item in bag.messages()]
        assert [item for item in after if not item[0].startswith("/fusion_node")] == before
        assert [item[2] for item in after] == sorted(item[2] for item in after)
        assert fuse(tmp_path / "out", tmp_path / "again", "--copy-topics", *options, "--visible", before[1][0]) == 2
        assert "--name" in capsys.readouterr().err, "what was fused before is not mixed with what is fused now"

    def test_types_that_are_not_installed_and_latched_topics_are_copied_as_they_are(
        self, tmp_path: Path, options: list[str]
    ) -> None:
        from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
        from rosbags.rosbag2 import Writer

        never = QosTime(9223372036, 854775807)
        latched = Qos(
            QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, never, never,
            QosLiveliness.AUTOMATIC, never, False,
        )  # fmt: skip
        with Writer(tmp_path / "in", version=9) as writer:
            own = writer.add_connection(
                "/own", "strange_msgs/msg/Thing", msgdef="uint8 number\n", rihs01="RIHS01_" + 64 * "0",
                offered_qos_profiles=[latched],
            )  # fmt: skip
            writer.write(own, START, b"\x00\x01\x00\x00\x07")
            for topic, encoding, side in (("/visible", "rgb8", 0), ("/infrared", "mono16", 1)):
                connection = writer.add_connection(topic, IMAGE_TYPE, typestore=STORE)
                writer.write(connection, START, image(scene(0)[side], START, "c", encoding))
        assert fuse(tmp_path / "in", tmp_path / "out", "--copy-topics", *options) == 0
        with BagReader(tmp_path / "out") as bag:
            found = bag.connections()["/own"]
            assert found.msgdef.data == "uint8 number\n" and found.ext.offered_qos_profiles == [latched]  # type: ignore
            assert [bytes(item.data) for item in bag.messages(["/own"])] == [b"\x00\x01\x00\x00\x07"]

    @pytest.mark.parametrize("name", ["", "/", "1st", "my node", "car//eyes", "car/1st", "~/eyes", "f\u00fcsion"])
    def test_a_name_that_no_node_can_have_is_refused(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        record(tmp_path / "in", 1)
        assert fuse(tmp_path / "in", tmp_path / "out", "--name", name, *options) == 2
        assert "--name must be letters, digits and _" in capsys.readouterr().err
        assert sorted(item.name for item in tmp_path.iterdir()) == ["in"]

    def test_one_topic_for_both_cameras_is_refused(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        record(tmp_path / "in", 1)
        same = ("--visible", "/cam/color/image_raw", "--infrared", "/cam/color/image_raw")
        assert fuse(tmp_path / "in", tmp_path / "out", *same, *options) == 2
        assert "must be two topics, got /cam/color/image_raw for both" in capsys.readouterr().err

    def test_one_camera_info_for_both_cameras_is_refused_where_it_is_needed(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with BagWriter(tmp_path / "in") as bag:
            for topic, side in (("/cam/color", 0), ("/cam/thermal", 1)):
                bag.add_topic(topic, IMAGE_TYPE)
                bag.write_raw(topic, START, image(scene(0)[side], START, "cam", "mono16" if side else "rgb8"))
            bag.add_topic("/cam/camera_info", "sensor_msgs/msg/CameraInfo")
            bag.write_raw("/cam/camera_info", START, NOTE)
        assert fuse(tmp_path / "in", tmp_path / "out", "--rectify", *options) == 2
        assert "must be a topic for each camera, got /cam/camera_info for both" in capsys.readouterr().err
        assert fuse(tmp_path / "in", tmp_path / "out", *options) == 0

    def test_pairs_that_cannot_be_decoded_are_left_out_and_told(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        record(tmp_path / "in", 6, bad=(2, 4))
        assert fuse(tmp_path / "in", tmp_path / "out", *options) == 1
        report = capsys.readouterr()
        assert "fused 4 of 6 pairs" in report.out and "2 bad_visible" in report.err and "nonsense" in report.err
        assert [item.stamp_ns for item in images(tmp_path / "out")] == [START + n * PERIOD for n in (0, 1, 3, 5)]
        summary = json.loads(read_notes(tmp_path / "out")["textdifuse"])["summary"]
        assert summary["failed"]["bad_visible"]["count"] == 2 and summary["visible"]["received"] == 6
        record(tmp_path / "all_bad", 2, bad=(0, 1))
        assert fuse(tmp_path / "all_bad", tmp_path / "none", *options) == 2
        assert sorted(item.name for item in tmp_path.iterdir()) == ["all_bad", "in", "out"]

    def test_a_message_cut_short_costs_nothing_but_itself(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with BagWriter(tmp_path / "in") as writer:
            for topic, encoding, side in (("/visible", "rgb8", 0), ("/infrared", "mono16", 1)):
                writer.add_topic(topic, IMAGE_TYPE)
                for index in range(4):
                    stamp = START + index * PERIOD
                    whole = image(scene(index)[side], stamp, "c", encoding)
                    cut = {("/visible", 1): whole[:7], ("/infrared", 2): whole[:-9]}
                    writer.write_raw(topic, stamp, cut.get((topic, index), whole))
        assert fuse(tmp_path / "in", tmp_path / "out", *options) == 1
        report = capsys.readouterr()
        assert "fused 2 of 3 pairs" in report.out
        assert "1 of 4 visible images without a counterpart: zero_stamp" in report.out
        assert "1 bad_infrared" in report.err
        assert [item.stamp_ns for item in images(tmp_path / "out")] == [START, START + 3 * PERIOD]

    def test_parameters_of_the_node_and_its_file_count(self, tmp_path: Path, options: list[str]) -> None:
        record(tmp_path / "in", 3)
        (tmp_path / "p.yaml").write_text("fusion_node:\n  ros__parameters:\n    tolerance: 0.003\n    gain: minmax\n")
        assert fuse(tmp_path / "in", tmp_path / "a", "--params-file", tmp_path / "p.yaml", *options) == 2
        given = ("--params-file", tmp_path / "p.yaml", "--tolerance", "0.01", *options)
        assert fuse(tmp_path / "in", tmp_path / "a", *given) == 0
        assert fuse(tmp_path / "in", tmp_path / "b", *options) == 0
        assert files(tmp_path / "a")["a.mcap"] != files(tmp_path / "b")["b.mcap"], "the gain is another"

    def test_a_text_makes_its_object_stand_out_and_leaves_a_mask(
        self, tmp_path: Path, tiny_text_checkpoint: Path, options: list[str]
    ) -> None:
        record(tmp_path / "in", 3)
        rest = ["--model", str(tiny_text_checkpoint), *options[2:]]
        given = ["--text", "person", "--localizer", "fixed", "--regions", "person 8 8 30 30"]
        assert fuse(tmp_path / "in", tmp_path / "plain", *rest) == 0
        assert fuse(tmp_path / "in", tmp_path / "out", *rest, *given) == 0
        mask = images(tmp_path / "out", "/fusion_node/mask")[1].data.reshape(48, 64)
        expected = np.zeros((48, 64), np.uint8)
        expected[8:30, 8:30] = 1
        np.testing.assert_array_equal(mask, expected)
        plain, found = (images(tmp_path / name)[1].data.reshape(48, 64, 3) for name in ("plain", "out"))
        assert (plain != found).any(2)[expected == 1].any() and not (plain != found).any(2)[expected == 0].any()
        assert fuse(tmp_path / "in", tmp_path / "no", *options, *given) == 2, "a model without re-modulation"


class TestResuming:
    PAIRS = 30

    @pytest.fixture
    def pieces_of_eight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recording, "PIECE_PAIRS", 8)

    def test_a_killed_process_is_taken_up_where_it_was_and_the_bytes_are_the_same(
        self, tmp_path: Path, options: list[str]
    ) -> None:
        """By kill -9 after the first piece; the second run begins there, with the gain as the first one had it."""
        source = record(tmp_path / "in", 110, bad=(5, 60))
        slow = [*options[:2], *options[4:], "--copy-topics", "--steps", "6"]
        assert fuse(source, tmp_path / "a" / "out", *slow) == 1
        process = start(source, tmp_path / "b" / "out", *slow)
        deadline = time.monotonic() + 120
        while not (tmp_path / "b" / "out.partial" / PARTIAL).is_dir() and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "b" / "out").exists()
        assert fuse(source, tmp_path / "b" / "out", *slow) == 1
        assert files(tmp_path / "b" / "out") == files(tmp_path / "a" / "out")

    @pytest.mark.usefixtures("pieces_of_eight")
    def test_interrupted_after_any_pair_only_the_rest_is_fused_again(
        self, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = record(tmp_path / "in", self.PAIRS, bad=(3, 11))
        assert fuse(source, tmp_path / "a" / "out", *options) == 1
        fused = 0
        align = SensorIntake.align

        def counted(self: SensorIntake, visible: Any, infrared: Any) -> AlignedPair:
            nonlocal fused
            if visible is not None:  # else an image of a finished piece, for the gain
                if fused == stop:
                    raise KeyboardInterrupt
                fused += 1
            return align(self, visible, infrared)

        monkeypatch.setattr(SensorIntake, "align", counted)
        monkeypatch.setattr(recording, "TRIALS", 0)  # the measurement aligns as well
        for stop in (9, 24):
            fused, output = 0, tmp_path / f"b{stop}" / "out"
            assert fuse(source, output, *options) == 130
            done, fused = stop, 0
            stop = -1
            assert fuse(source, output, *options) == 1
            assert fused == self.PAIRS - done, f"stopped at {done}"
            assert files(output) == files(tmp_path / "a" / "out")

    def test_what_is_done_stays_and_what_is_something_else_is_refused(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        record(tmp_path / "in", 2)
        assert fuse(tmp_path / "in", tmp_path / "out", *options) == 0
        before = (tmp_path / "out" / "out.mcap").stat().st_mtime_ns
        assert fuse(tmp_path / "in", tmp_path / "out", *options) == 0
        assert (tmp_path / "out" / "out.mcap").stat().st_mtime_ns == before
        for output, given in ((tmp_path / "out", ["--seed", "3"]), (tmp_path, []), (tmp_path / "in", [])):
            capsys.readouterr()
            assert fuse(tmp_path / "in", output, *options, *given) == 2
            assert "something else" in capsys.readouterr().err
        assert sorted(item.name for item in tmp_path.iterdir()) == ["in", "out"]

    def test_no_pair_at_all_is_an_error_that_says_what_to_do(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        record(tmp_path / "in", 2)
        assert fuse(tmp_path / "in", tmp_path / "out", "--tolerance", "0.001", *options) == 2
        assert "sync-doctor" in capsys.readouterr().err


class TestMany:
    def test_one_after_the_other_each_into_a_folder_of_its_name(
        self, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        sources = [record(tmp_path / name, 2 + n, seed=n) for n, name in enumerate(("one", "two"))]
        (tmp_path / "gone").mkdir()
        assert fuse(sources[0], tmp_path / "gone", sources[1], tmp_path / "out", *options) == 1
        assert "gone" in capsys.readouterr().err
        assert [len(images(tmp_path / "out" / name)) for name in ("one", "two")] == [2, 3]
        (tmp_path / "x").mkdir()
        record(tmp_path / "x" / "one", 2)
        assert fuse(sources[0], tmp_path / "x" / "one", tmp_path / "out", *options) == 2
        assert "different names" in capsys.readouterr().err

    @needs_ray
    @pytest.mark.slow
    def test_two_workers_give_the_bytes_of_one_and_one_bad_recording_stops_nobody(
        self, tmp_path: Path, options: list[str]
    ) -> None:
        sources = [record(tmp_path / name, 5, seed=n) for n, name in enumerate(("one", "two", "three"))]
        with BagWriter(tmp_path / "bad") as writer:
            writer.add_topic("/note", "std_msgs/msg/String")
            writer.write_raw("/note", 1, NOTE)
        assert fuse(*sources, tmp_path / "a", *options) == 0
        process = start(*sources, tmp_path / "bad", tmp_path / "b", "--workers", "2", *options)
        errors = process.communicate(timeout=240)[1].decode()
        assert process.returncode == 1, errors
        assert f"{tmp_path / 'bad'}: the visible images" in errors
        for source in sources:
            assert files(tmp_path / "b" / source.name) == files(tmp_path / "a" / source.name)

    def test_without_ray_several_workers_are_refused_with_a_remedy(
        self, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        record(tmp_path / "in", 2)
        assert fuse(tmp_path / "in", tmp_path / "out", "--workers", "2", *options) == 2
        assert "[ray]" in capsys.readouterr().err
