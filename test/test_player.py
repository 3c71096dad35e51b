"""The player as a real process over DDS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from player_inputs import FRAMES, NOTE, PERIOD, START, make_folder, record_blank, record_pairs
from rosbags.rosbag2 import Writer

from textdifuse_ros.bags.cameras import CALIBRATION_TYPE, COMPRESSED_TYPE
from textdifuse_ros.bags.definitions import IMAGE_TYPE, common_types
from textdifuse_ros.bags.reader import BagReader, decode_image_message
from textdifuse_ros.bags.writer import BagWriter

pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from ros_helpers.programs import PATIENCE, Programs

pytest_plugins = ["ros_helpers.programs"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_message_is_played_and_recorded_byte_for_byte(programs: Programs, tmp_path: Path, storage: str) -> None:
    source = record_pairs(tmp_path / "in", storage)
    topics = ("/visible/image", "/infrared/image", "/note")
    recorder = programs.recorder("out", *topics, storage=storage)
    played = programs.play(*topics, source=source, topics='"/note"', summary="played.json").report()
    recorded = recorder.stop(signal.SIGTERM if storage == "mcap" else signal.SIGINT)

    assert played["published"] == recorded["recorded"] == dict.fromkeys(topics, FRAMES)
    assert played["pairs"] == FRAMES and played["laps"] == 1
    assert json.loads((tmp_path / "played.json").read_text()) == played
    names = {"/cam/color": "/visible/image", "/cam/thermal": "/infrared/image", "/note": "/note"}
    with BagReader(source) as before, BagReader(tmp_path / "out") as after:
        for old, new in names.items():
            assert [m.data for m in after.messages([new])] == [m.data for m in before.messages([old])]
            assert after.topics()[new] == before.topics()[old]


def test_the_log_names_the_topics_and_wrong_counts_and_every_pair_is_played(programs: Programs, tmp_path: Path) -> None:
    source = record_pairs(tmp_path / "in")
    metadata = source / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(f"message_count: {FRAMES}\n", f"message_count: {FRAMES + 3}\n"))
    player = programs.start("player_node", source=source, rate=100.0)
    assert player.report()["pairs"] == FRAMES
    assert "playing visible /cam/color, infrared /cam/thermal" in player.err
    assert f"metadata.yaml counts {FRAMES + 3} messages of /cam/color, {FRAMES} were read" in player.err


def test_the_rate_scales_time_and_the_clock_follows_the_recording(programs: Programs, tmp_path: Path) -> None:
    source = record_pairs(tmp_path / "in")
    topics = ("/visible/image", "/infrared/image", "/clock")
    recorder = programs.recorder("out", *topics)
    slow = programs.play(*topics, source=source, clock="true", rate=0.1).report()
    recorded = recorder.stop()
    fast = programs.start("player_node", source=source, rate=100.0).report()

    length = ((FRAMES - 1) * PERIOD + 2_000_000) / 1e9
    assert slow["seconds"] >= length / 0.1 > fast["seconds"] >= length / 100
    with BagReader(tmp_path / "out") as bag:
        stamps = [m.stamp_ns for m in bag.messages(["/visible/image"])]
        ticks = [_clock(m.data) for m in bag.messages(["/clock"])]
    assert np.median(np.diff(stamps)) == pytest.approx(PERIOD / 0.1, rel=0.5), "spaced as recorded, scaled"
    assert recorded["recorded"]["/clock"] > 2 * FRAMES, "it ticks between the messages too"
    assert ticks == sorted(ticks)
    assert ticks[0] >= START and ticks[-1] == START + (FRAMES - 1) * PERIOD + 2_000_000


def _clock(data: bytes) -> int:
    seconds, nanoseconds = np.frombuffer(data[4:12], np.uint32)
    return int(seconds) * 10**9 + int(nanoseconds)


def test_a_loop_ends_after_the_requested_pairs(programs: Programs, tmp_path: Path) -> None:
    source = record_pairs(tmp_path / "in")
    report = programs.start("player_node", source=source, loop="true", pairs=2 * FRAMES + 3, rate=4.0).report()
    assert report["pairs"] == 2 * FRAMES + 3 and report["laps"] == 3


def test_an_endless_loop_repeats_the_recorded_stamps_until_a_signal(programs: Programs, tmp_path: Path) -> None:
    topics = ("/visible/image", "/infrared/image")
    recorder = programs.recorder("out", *topics)
    player = programs.play(*topics, source=record_pairs(tmp_path / "in"), loop="true", rate=4.0)
    images = programs.observer.subscribe("/visible/image")
    programs.observer.wait_for(lambda: len(images) > 2 * FRAMES, "two laps")
    assert player.running
    report = player.stop()
    recorder.stop()
    assert report["pairs"] > FRAMES
    with BagReader(tmp_path / "out") as bag:
        stamps = [image.stamp_ns for image in bag.images("/visible/image")]
    assert stamps[FRAMES] == stamps[0] == START - 9


def test_the_stamps_of_a_folder_increase_over_the_laps(programs: Programs, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", 3)
    (folder / "vis" / "001.png").write_bytes(b"no image")
    topics = ("/visible/image", "/infrared/image")
    recorder = programs.recorder("out", *topics)
    report = programs.play(*topics, source=folder, fps=20.0, loop="true", pairs=4).report()
    recorder.stop()
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


@pytest.mark.parametrize(
    ("program", "parameters", "message"),
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
def test_wrong_input_is_reported_in_one_line(
    programs: Programs, tmp_path: Path, program: str, parameters: dict, message: str
) -> None:
    record_pairs(tmp_path / "in")
    started = programs.start(program, **parameters)
    assert started.finish() == 2
    assert message in started.err and len(started.err.strip().splitlines()) == 1 and not started.out


@pytest.mark.parametrize("arguments", [["--help"], ["--ros-args", "-p", "source:=pairs", "-p", "fps:=100.0"]])
def test_a_closed_output_pipe_ends_the_program_quietly(
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


def test_compressed_images_and_calibrations_are_played_where_the_node_subscribes(
    programs: Programs, tmp_path: Path
) -> None:
    """They follow the remapping of the raw images, as in ``fusion_node``."""
    kinds = {"/rgb/image/compressed": COMPRESSED_TYPE, "/rgb/camera_info": CALIBRATION_TYPE, "/ir/image": IMAGE_TYPE}
    contents = {}
    with BagWriter(tmp_path / "in") as bag:
        for number, (topic, kind) in enumerate(kinds.items()):
            bag.add_topic(topic, kind)
            for index in range(5):
                contents[topic] = NOTE[:8] + bytes([number]) + NOTE[9:]
                bag.write_raw(topic, START + index * PERIOD, contents[topic])
    topics = ("/front/color/compressed", "/front/camera_info", "/infrared/image")
    recorder = programs.recorder("out", *topics)
    cameras = ("/front/color/compressed", "/infrared/image")
    remap = {"visible/image": "/front/color"}
    report = programs.play(*topics, cameras=cameras, source=tmp_path / "in", remap=remap).report()
    recorder.stop()
    assert report["pairs"] == 5
    with BagReader(tmp_path / "out") as bag:
        found = {message.topic: bytes(message.data) for message in bag.messages()}
        assert set(bag.counts().values()) == {5}
    assert found == dict(zip(topics, contents.values(), strict=True))


def test_topics_that_cannot_be_published_are_left_out_of_all(programs: Programs, tmp_path: Path) -> None:
    definition = {"msgdef": "uint8 number\n", "rihs01": "RIHS01_" + 64 * "0"}
    with Writer(tmp_path / "in", version=9) as writer:
        store = common_types()
        others = [writer.add_connection("/own", "strange_msgs/msg/Thing", **definition)]
        others += [writer.add_connection(name, "std_msgs/msg/String", typestore=store) for name in ("/a b", "/note")]
        cameras = [writer.add_connection(name, IMAGE_TYPE, typestore=store) for name in ("/rgb", "/ir")]
        for connection in (*others, *cameras):
            writer.write(connection, START, NOTE)
    for word in ("all", '"*"'):
        player = programs.start("player_node", source=tmp_path / "in", topics=word)
        assert player.report()["published"] == {"/note": 1, "/visible/image": 1, "/infrared/image": 1}
        assert "not playing /own: the message type strange_msgs" in player.err
        assert "not playing /a b: topics must be" in player.err
    player = programs.start("player_node", source=tmp_path / "in", topics='"/a b"')
    assert player.finish() == 2 and "topics must be names of topics by the rules of ROS" in player.err


def test_playback_ends_with_the_last_requested_pair_not_when_the_next_is_due(
    programs: Programs, tmp_path: Path
) -> None:
    record_blank(tmp_path / "in", 2, round(2 * PATIENCE * 10**9)).close()
    report = programs.start("player_node", source=tmp_path / "in", pairs=1).report()
    assert report["pairs"] == 1
