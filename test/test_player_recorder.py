"""Player and recorder as real processes over DDS: a recording goes in, and comes out byte for byte."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Writer

from textdifuse_ros.bags.cameras import CALIBRATION_TYPE as INFO_TYPE
from textdifuse_ros.bags.cameras import COMPRESSED_TYPE
from textdifuse_ros.bags.definitions import IMAGE_TYPE, common_types
from textdifuse_ros.bags.reader import BagReader, decode_image_message
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.errors import BagError

needs_ros = pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="rclpy is not installed")

ROOT = Path(__file__).resolve().parents[1]
START = 1_700_000_000_000_000_000
PERIOD = 50_000_000
FRAMES = 12
# CDR of a std_msgs/msg/String. A whole number of words: DDS fills up others with zero bytes, for every recorder.
NOTE = b"\x00\x01\x00\x00\x04\x00\x00\x00hi!\x00"

NEVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, NEVER, NEVER,
    QosLiveliness.AUTOMATIC, NEVER, False,
)  # fmt: skip


def record_pairs(path: Path, storage: str = "mcap") -> Path:
    with BagWriter(path, storage) as bag:
        bag.add_topic("/note", "std_msgs/msg/String")
        for index in range(FRAMES):
            noise = np.random.default_rng(index)
            now = START + index * PERIOD
            bag.write_image("/cam/color", now, "color", noise.integers(0, 256, (48, 64, 3), dtype=np.uint8), now - 9)
            bag.write_image("/cam/thermal", now + 2_000_000, "thermal", noise.integers(0, 256, (48, 64), np.uint8))
            bag.write_raw("/note", now + 4_000_000, NOTE)
    return path


def make_folder(path: Path, pairs: int) -> Path:
    for index in range(pairs):
        noise = np.random.default_rng(index)
        for side, shape, dtype in (("vis", (24, 32, 3), np.uint8), ("ir", (24, 32), np.uint16)):
            (path / side).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path / side / f"{index:03d}.png"), noise.integers(0, np.iinfo(dtype).max, shape, dtype))
    return path


class Programs:
    """Starts the nodes in a DDS domain of their own and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []
        self.env = {name: value for name, value in os.environ.items() if name != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
        self.domain = random.SystemRandom().randint(20, 100)
        self.env.update(
            ROS_DOMAIN_ID=str(self.domain),
            ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
            HOME=str(folder),
            ROS_LOG_DIR=str(folder / "log"),
            PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        )

    def start(
        self, name: str, *, most_bytes: int = 0, remap: dict[str, str] | None = None, **parameters: object
    ) -> subprocess.Popen[str]:
        """:param most_bytes: that a file may have, as on a disk that is full then"""
        limit = ["prlimit", f"--fsize={most_bytes}"] if most_bytes else []
        arguments = [item for rule in (remap or {}).items() for item in ("-r", ":=".join(rule))]
        arguments += [item for key, value in parameters.items() for item in ("-p", f"{key}:={value}")]
        command = [*limit, sys.executable, "-m", f"textdifuse_ros.nodes.{name}", "--ros-args", *arguments]
        process = subprocess.Popen(
            command, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self._folder
        )
        self._running.append(process)
        return process

    def recorder(self, output: str, topics: str, **parameters: Any) -> subprocess.Popen[str]:
        return self.start("recorder_node", output=output, topics=f'"{topics}"', **parameters)

    def player(self, **parameters: Any) -> dict:
        process = self.start("player_node", **parameters)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return json.loads(out)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    found = Programs(tmp_path)
    yield found
    found.close()


def _stopped(process: subprocess.Popen[str], number: int = signal.SIGINT) -> dict:
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    return json.loads(out)


@needs_ros
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_message_comes_out_byte_for_byte_whatever_its_type(
    programs: Programs, tmp_path: Path, storage: str
) -> None:
    source = record_pairs(tmp_path / "in", storage)
    recorder = programs.recorder("out", "visible/image,infrared/image,/note", storage=storage)
    report = programs.player(source=source, wait_for=1, topics='"/note"', summary="told.json")
    recorded = _stopped(recorder, signal.SIGTERM if storage == "mcap" else signal.SIGINT)

    expected = {"/visible/image": FRAMES, "/infrared/image": FRAMES, "/note": FRAMES}
    assert report["published"] == recorded["recorded"] == expected
    assert report["pairs"] == FRAMES and report["laps"] == 1
    assert json.loads((tmp_path / "told.json").read_text()) == report
    names = {"/cam/color": "/visible/image", "/cam/thermal": "/infrared/image", "/note": "/note"}
    with BagReader(source) as before, BagReader(tmp_path / "out") as after:
        for old, new in names.items():
            assert [m.data for m in after.messages([new])] == [m.data for m in before.messages([old])]
            assert after.topics()[new] == before.topics()[old]


@needs_ros
def test_the_rate_scales_time_and_the_clock_follows_the_recording(programs: Programs, tmp_path: Path) -> None:
    source = record_pairs(tmp_path / "in")
    recorder = programs.recorder("out", "visible/image,infrared/image,/clock")
    slow = programs.player(source=source, wait_for=1, clock="true", rate=0.5)
    recorded = _stopped(recorder)
    fast = programs.player(source=source, rate=4.0)

    length = ((FRAMES - 1) * PERIOD + 2_000_000) / 1e9
    assert slow["seconds"] == pytest.approx(length / 0.5, abs=0.15)
    assert fast["seconds"] == pytest.approx(length / 4.0, abs=0.15)
    with BagReader(tmp_path / "out") as bag:
        stamps = [m.stamp_ns for m in bag.messages(["/visible/image"])]
        ticks = [_clock(m.data) for m in bag.messages(["/clock"])]
    gaps = np.diff(stamps)
    assert np.median(gaps) == pytest.approx(PERIOD / 0.5, rel=0.1), "true spacing, scaled"
    assert recorded["recorded"]["/clock"] > 2 * FRAMES, "it ticks between the messages too"
    assert ticks == sorted(ticks)
    assert ticks[0] >= START and ticks[-1] == START + (FRAMES - 1) * PERIOD + 2_000_000


def _clock(data: bytes) -> int:
    seconds, nanoseconds = np.frombuffer(data[4:12], np.uint32)
    return int(seconds) * 10**9 + int(nanoseconds)


@needs_ros
def test_a_loop_goes_on_until_told_to_stop_and_ends_cleanly(programs: Programs, tmp_path: Path) -> None:
    source = record_pairs(tmp_path / "in")
    counted = programs.player(source=source, loop="true", pairs=2 * FRAMES + 3, rate=4.0)
    assert counted["pairs"] == 2 * FRAMES + 3 and counted["laps"] == 3

    recorder = programs.recorder("out", "visible/image,infrared/image")
    endless = programs.start("player_node", source=source, loop="true", rate=4.0, wait_for=1)
    time.sleep(4.0)
    assert endless.poll() is None
    report = _stopped(endless)
    _stopped(recorder)
    assert report["pairs"] > FRAMES
    with BagReader(tmp_path / "out") as bag:
        stamps = [image.stamp_ns for image in bag.images("/visible/image")]
    assert stamps[FRAMES] == stamps[0] == START - 9, "a lap has the recorded stamps again"


@needs_ros
def test_a_folder_of_pairs_is_played_with_stamps_that_go_on_over_the_laps(programs: Programs, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", 3)
    (folder / "vis" / "001.png").write_bytes(b"no image")
    recorder = programs.recorder("out", "visible/image,infrared/image")
    report = programs.player(source=folder, fps=20.0, loop="true", pairs=4, wait_for=1)
    _stopped(recorder)
    assert report["pairs"] == 4
    with BagReader(tmp_path / "out") as bag:
        visible = [decode_image_message(m) for m in bag.messages(["/visible/image"])]
        infrared = [decode_image_message(m) for m in bag.messages(["/infrared/image"])]
    assert [v.stamp_ns for v in visible] == [i.stamp_ns for i in infrared]
    assert list(np.diff([v.stamp_ns for v in visible])) == [100_000_000, 50_000_000, 100_000_000], "001 is left out"
    assert (visible[0].encoding, infrared[0].encoding) == ("rgb8", "mono16")
    thermal = cv2.imread(str(folder / "ir" / "000.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(infrared[0].data.view(np.uint16).reshape(24, 32), thermal)
    color = cv2.cvtColor(cv2.imread(str(folder / "vis" / "000.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(visible[0].data.reshape(24, 32, 3), color)


@needs_ros
@pytest.mark.parametrize(
    ("program", "parameters", "said"),
    [
        ("player_node", {"source": "absent"}, "absent must be a rosbag2 folder"),
        ("player_node", {}, "source must be"),
        ("player_node", {"source": ".", "rate": -1.0}, "rate must be a number in"),
        ("player_node", {"source": "in", "rat": 2.0}, "did you mean rate?"),
        ("player_node", {"source": "in", "wait_for": 1, "wait_timeout": 0.3}, "must be 1 within 0.3 s"),
        ("recorder_node", {}, "output must be"),
        ("recorder_node", {"output": "in"}, "in must be a new folder, got one that exists; choose another name"),
        ("recorder_node", {"output": "out", "topics": '"a b"'}, "topics must be names of topics by the rules of ROS"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    programs: Programs, tmp_path: Path, program: str, parameters: dict, said: str
) -> None:
    record_pairs(tmp_path / "in")
    process = programs.start(program, **parameters)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said in err and len(err.strip().splitlines()) == 1 and not out


@needs_ros
def test_a_topic_of_an_unknown_type_is_left_out_and_said_so_and_the_others_are_recorded(
    programs: Programs, tmp_path: Path
) -> None:
    """The events of an introspected service: a type that no .msg file defines."""
    import rclpy
    from rclpy.context import Context
    from rclpy.qos import qos_profile_system_default
    from rclpy.service_introspection import ServiceIntrospectionState
    from std_srvs.srv import Trigger

    context = Context()
    rclpy.init(args=[], context=context, domain_id=programs.domain)
    node = rclpy.create_node("introspected", context=context, use_global_arguments=False)
    try:
        service = node.create_service(Trigger, "/job", lambda request, response: response)
        state = ServiceIntrospectionState.CONTENTS
        service.configure_introspection(node.get_clock(), qos_profile_system_default, state)
        recorder = programs.recorder("out", "/job/_service_event,/note")
        programs.player(source=record_pairs(tmp_path / "in"), topics='"/note"', rate=0.2)
        recorded = _stopped(recorder)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert "std_srvs/srv/Trigger_Event" in recorded["skipped"]["/job/_service_event"]
    assert recorded["recorded"]["/note"] > 0 and recorded["recorded"]["/job/_service_event"] == 0
    with BagReader(tmp_path / "out") as bag:
        assert bag.counts() == {"/note": recorded["recorded"]["/note"]}


@needs_ros
@pytest.mark.parametrize("arguments", [["--help"], ["--ros-args", "-p", "source:=pairs", "-p", "fps:=100.0"]])
def test_a_reader_that_goes_away_ends_the_program_quietly(
    programs: Programs, tmp_path: Path, arguments: list[str]
) -> None:
    make_folder(tmp_path / "pairs", 2)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "textdifuse_ros.nodes.player_node", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=programs.env, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert done.returncode == 141 and "BrokenPipe" not in done.stderr, done.stderr


@needs_ros
def test_nothing_recorded_is_still_a_recording_that_closes(programs: Programs, tmp_path: Path) -> None:
    recorder = programs.recorder("out", "nobody")
    time.sleep(2.0)
    assert _stopped(recorder)["recorded"] == {"/nobody": 0}
    assert (tmp_path / "out" / "metadata.yaml").is_file()


@needs_ros
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recorder_that_is_killed_leaves_all_but_the_last_second(
    programs: Programs, tmp_path: Path, storage: str
) -> None:
    recorder = programs.recorder("out", "visible/image,infrared/image,/note", storage=storage)
    programs.player(source=record_pairs(tmp_path / "in"), wait_for=1, topics='"/note"')
    time.sleep(2.5)
    recorder.kill()
    recorder.communicate()
    file = tmp_path / "out" / ("out.mcap" if storage == "mcap" else "out.db3")
    if storage == "sqlite3":
        with BagReader(file) as bag:
            assert bag.counts() == {"/infrared/image": FRAMES, "/note": FRAMES, "/visible/image": FRAMES}
        return
    assert file.read_bytes().count(NOTE) == FRAMES, "a second is enough for all, though a chunk is never full"
    with pytest.raises(BagError, match="mcap recover"):
        BagReader(file)


@needs_ros
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recorder_whose_disk_is_full_ends_with_its_counts_and_one_line(
    programs: Programs, tmp_path: Path, storage: str
) -> None:
    with BagWriter(tmp_path / "in") as bag:
        for index in range(20):
            for topic in ("/visible", "/infrared"):
                image = np.full((480, 640), index, np.uint8)
                bag.write_image(topic, START + index * PERIOD, "camera", image)
    recorder = programs.recorder("out", "visible/image", storage=storage, most_bytes=2_500_000)
    programs.player(source=tmp_path / "in", wait_for=0, rate=0.5)
    out, err = recorder.communicate(timeout=30)
    assert recorder.returncode == 2, err
    assert 0 < json.loads(out)["recorded"]["/visible/image"] < 20
    assert "Traceback" not in err and err.strip().splitlines()[-1].startswith("recorder_node: out must be"), err


@needs_ros
def test_a_topic_is_recorded_once_and_one_that_nobody_publishes_is_told_of(programs: Programs, tmp_path: Path) -> None:
    recorder = programs.recorder("~/out", "/note,note,/nobody", summary="~/told.json")
    player = programs.start("player_node", source=record_pairs(tmp_path / "in"), topics='"/note"', loop="true")
    time.sleep(8.0)
    player.kill()
    recorder.send_signal(signal.SIGINT)
    out, err = recorder.communicate(timeout=20)
    assert err.count("nobody publishes /nobody so far") == 1 and "/visible/image" in err
    report = json.loads(out)
    assert report["recorded"].keys() == {"/note", "/nobody"} and report["recorded"]["/note"] > 0
    assert json.loads((tmp_path / "told.json").read_text()) == report
    with BagReader(tmp_path / "out") as bag:
        assert bag.counts() == {"/note": report["recorded"]["/note"]}
        qos = bag.connections()["/note"].ext.offered_qos_profiles[0]  # type: ignore[union-attr]
    assert (qos.reliability.name, qos.durability.name) == ("RELIABLE", "VOLATILE")


@needs_ros
def test_compressed_images_and_calibrations_are_played_to_where_the_node_listens(
    programs: Programs, tmp_path: Path
) -> None:
    """By the remapping of the raw images, as ``fusion_node`` has it."""
    kinds = {"/rgb/image/compressed": COMPRESSED_TYPE, "/rgb/camera_info": INFO_TYPE, "/ir/image": IMAGE_TYPE}
    contents = {}
    with BagWriter(tmp_path / "in") as bag:
        for number, (topic, kind) in enumerate(kinds.items()):
            bag.add_topic(topic, kind)
            for index in range(5):
                contents[topic] = NOTE[:8] + bytes([number]) + NOTE[9:]
                bag.write_raw(topic, START + index * PERIOD, contents[topic])
    recorder = programs.recorder("out", "/front/color/compressed,/front/camera_info,/infrared/image")
    report = programs.player(source=tmp_path / "in", wait_for=1, remap={"visible/image": "/front/color"})
    _stopped(recorder)
    assert report["pairs"] == 5
    with BagReader(tmp_path / "out") as bag:
        found = {message.topic: bytes(message.data) for message in bag.messages()}
        assert set(bag.counts().values()) == {5}
    assert list(found.values()) == list(contents.values())
    assert list(found) == ["/front/color/compressed", "/front/camera_info", "/infrared/image"]


@needs_ros
def test_a_latched_topic_reaches_who_comes_later_and_is_recorded_as_latched(programs: Programs, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "in") as bag:
        bag.add_topic("/map", "std_msgs/msg/String", offered=[LATCHED])
        bag.write_raw("/map", START, NOTE)
        for index in range(200):
            for topic in ("/rgb", "/ir"):
                bag.write_image(topic, START + index * PERIOD, "camera", np.zeros((4, 4), np.uint8))
    player = programs.start("player_node", source=tmp_path / "in", topics="all")
    time.sleep(4.0)
    recorder = programs.recorder("out", "/map")
    time.sleep(4.0)
    _stopped(recorder)
    assert player.poll() is None
    with BagReader(tmp_path / "out") as bag:
        assert bag.counts() == {"/map": 1}
        offered = bag.connections()["/map"].ext.offered_qos_profiles[0]  # type: ignore[union-attr]
    assert (offered.durability, offered.reliability) == (LATCHED.durability, LATCHED.reliability)


@needs_ros
def test_of_all_topics_those_are_left_out_that_cannot_be_published(programs: Programs, tmp_path: Path) -> None:
    definition = {"msgdef": "uint8 number\n", "rihs01": "RIHS01_" + 64 * "0"}
    with Writer(tmp_path / "in", version=9) as writer:
        store = common_types()
        others = [writer.add_connection("/own", "strange_msgs/msg/Thing", **definition)]
        others += [writer.add_connection(name, "std_msgs/msg/String", typestore=store) for name in ("/a b", "/note")]
        cameras = [writer.add_connection(name, IMAGE_TYPE, typestore=store) for name in ("/rgb", "/ir")]
        for connection in (*others, *cameras):
            writer.write(connection, START, NOTE)
    for word in ("all", '"*"'):
        process = programs.start("player_node", source=tmp_path / "in", topics=word)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert json.loads(out)["published"] == {"/note": 1, "/visible/image": 1, "/infrared/image": 1}
        assert "not playing /own: the message type strange_msgs" in err and "not playing /a b: topics must be" in err
    process = programs.start("player_node", source=tmp_path / "in", topics='"/a b"')
    out, err = process.communicate(timeout=30)
    assert process.returncode == 2 and "topics must be names of topics by the rules of ROS" in err


@needs_ros
def test_so_many_pairs_end_with_the_last_of_them_and_not_when_the_next_is_due(
    programs: Programs, tmp_path: Path
) -> None:
    with BagWriter(tmp_path / "in") as bag:
        for index in range(2):
            for topic in ("/rgb", "/ir"):
                bag.write_image(topic, START + index * 30 * 10**9, "camera", np.zeros((4, 4), np.uint8))
    report = programs.player(source=tmp_path / "in", pairs=1)
    assert report["pairs"] == 1 and report["seconds"] < 5
