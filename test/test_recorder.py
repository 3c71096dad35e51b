"""The recorder as a real process over DDS."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from player_inputs import FRAMES, NOTE, PERIOD, START, record_blank, record_pairs
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.errors import BagError

pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from ros_helpers.programs import Programs, wait_for

pytest_plugins = ["ros_helpers.programs"]

NEVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, NEVER, NEVER,
    QosLiveliness.AUTOMATIC, NEVER, False,
)  # fmt: skip


def contains_note(file: Path) -> bool:
    return file.is_file() and NOTE in file.read_bytes()


def test_a_topic_of_an_unknown_type_is_reported_and_the_others_are_recorded(programs: Programs, tmp_path: Path) -> None:
    """The events of an introspected service have a type that no .msg file defines."""
    from rclpy.qos import qos_profile_system_default
    from rclpy.service_introspection import ServiceIntrospectionState
    from std_srvs.srv import Trigger

    node = programs.observer.node
    service = node.create_service(Trigger, "/job", lambda request, response: response)
    state = ServiceIntrospectionState.CONTENTS
    service.configure_introspection(node.get_clock(), qos_profile_system_default, state)
    recorder = programs.recorder("out", "/job/_service_event", "/note")
    programs.play("/note", source=record_pairs(tmp_path / "in"), topics='"/note"').report()
    wait_for(lambda: "not recording /job/_service_event" in recorder.err, "the report")
    recorded = recorder.stop()
    assert "std_srvs/srv/Trigger_Event" in recorded["skipped"]["/job/_service_event"]
    assert recorded["recorded"] == {"/note": FRAMES, "/job/_service_event": 0}
    with BagReader(tmp_path / "out") as bag:
        assert bag.counts() == {"/note": FRAMES}


def test_an_empty_recording_is_closed_as_well(programs: Programs, tmp_path: Path) -> None:
    assert programs.recorder("out", "nobody").stop()["recorded"] == {"/nobody": 0}
    assert (tmp_path / "out" / "metadata.yaml").is_file()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_killed_recorder_leaves_what_it_has_flushed(programs: Programs, tmp_path: Path, storage: str) -> None:
    topics = ("/visible/image", "/infrared/image", "/note")
    recorder = programs.recorder("out", *topics, storage=storage)
    programs.play(*topics, source=record_pairs(tmp_path / "in"), topics='"/note"').report()
    file = tmp_path / "out" / ("out.mcap" if storage == "mcap" else "out.db3")

    def flushed() -> bool:
        if storage == "mcap":  # a chunk would only be written when it is full
            return file.read_bytes().count(NOTE) == FRAMES
        with suppress(BagError), BagReader(file) as bag:
            return bag.counts() == dict.fromkeys(topics, FRAMES)
        return False

    wait_for(flushed, "the messages on the disk")
    recorder.kill()
    if storage == "sqlite3":
        with BagReader(file) as bag:
            assert bag.counts() == dict.fromkeys(topics, FRAMES)
    else:
        assert file.read_bytes().count(NOTE) == FRAMES
        with pytest.raises(BagError, match="mcap recover"):
            BagReader(file)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_on_a_full_disk_the_recorder_exits_with_its_counts_and_one_line(
    programs: Programs, tmp_path: Path, storage: str
) -> None:
    with BagWriter(tmp_path / "in") as bag:
        for index in range(20):
            for topic in ("/visible", "/infrared"):
                image = np.full((480, 640), index, np.uint8)
                bag.write_image(topic, START + index * PERIOD, "camera", image)
    recorder = programs.recorder("out", "/visible/image", storage=storage, most_bytes=2_500_000)
    programs.play("/visible/image", source=tmp_path / "in", rate=0.5)
    assert recorder.finish() == 2, recorder.err
    assert 0 < json.loads(recorder.out)["recorded"]["/visible/image"] < 20
    assert "Traceback" not in recorder.err
    assert recorder.err.strip().splitlines()[-1].startswith("recorder_node: out must be"), recorder.err


def test_each_topic_is_recorded_once_and_one_without_a_publisher_is_reported(
    programs: Programs, tmp_path: Path
) -> None:
    player = programs.start("player_node", source=record_pairs(tmp_path / "in"), topics='"/note"', loop="true")
    programs.observer.subscribe("/visible/image")
    recorder = programs.recorder("~/out", "/note", "note", "/nobody", summary="~/counts.json")
    wait_for(lambda: "no publisher on /nobody yet" in recorder.err, "the warning")
    wait_for(lambda: contains_note(tmp_path / "out" / "out.mcap"), "a note on the disk")
    player.kill()
    report = recorder.stop()
    assert recorder.err.count("no publisher on") == 1 and "/visible/image" in recorder.err
    assert report["recorded"].keys() == {"/note", "/nobody"} and report["recorded"]["/note"] > 0
    assert json.loads((tmp_path / "counts.json").read_text()) == report
    with BagReader(tmp_path / "out") as bag:
        assert bag.counts() == {"/note": report["recorded"]["/note"]}
        qos = bag.connections()["/note"].ext.offered_qos_profiles[0]  # type: ignore[union-attr]
    assert (qos.reliability.name, qos.durability.name) == ("RELIABLE", "VOLATILE")


def test_a_latched_topic_reaches_a_late_recorder_and_is_recorded_as_latched(programs: Programs, tmp_path: Path) -> None:
    with record_blank(tmp_path / "in", 200) as bag:
        bag.add_topic("/map", "std_msgs/msg/String", offered=[LATCHED])
        bag.write_raw("/map", START, NOTE)
    player = programs.start("player_node", source=tmp_path / "in", topics="all", rate=0.05)
    images = programs.observer.subscribe("/visible/image")
    programs.observer.wait_for(lambda: len(images) > 1, "images after the map")
    recorder = programs.recorder("out", "/map")
    wait_for(lambda: contains_note(tmp_path / "out" / "out.mcap"), "the map on the disk")
    recorder.stop()
    assert player.running
    with BagReader(tmp_path / "out") as found:
        assert found.counts() == {"/map": 1}
        offered = found.connections()["/map"].ext.offered_qos_profiles[0]  # type: ignore[union-attr]
    assert (offered.durability, offered.reliability) == (LATCHED.durability, LATCHED.reliability)
