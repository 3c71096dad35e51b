"""``fusion_node`` with a text, as a real process: masks, strengths, changes while it runs, and what is refused."""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

pytest.register_assert_rewrite("ros_helpers.fusion_rig")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from ros_helpers.fusion_rig import FAST, START_TIMEOUT, Process, Rig, pixels
from sensor_msgs.msg import Image
from std_msgs.msg import String

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.nodes.qos import output_profile

pytest_plugins = ["ros_helpers.fusion_rig"]

REGIONS = "person 5 5 25 25; car 40 10 60 30"
FIXED = ("localizer:=fixed", f'regions:="{REGIONS}"', "localize_rate:=100.0")
PERSON, CAR = (slice(5, 25), slice(5, 25)), (slice(10, 30), slice(40, 60))
TOPICS = {"mask": Image, "instances": Image, "overlay": Image, "objects": String}


class Heard:
    """What came on the topics of a text, for each fused image."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.messages: dict[str, list[Any]] = {topic: [] for topic in TOPICS}
        for topic, kind in TOPICS.items():
            rig.node.create_subscription(kind, f"/fusion_node/{topic}", self.messages[topic].append, output_profile(50))

    def fuse(self, pair: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        """Fuse a pair, and wait for all that goes with it, under the very same header."""
        fused = self.rig.fuse(*pair)
        found: dict[str, Any] = {}

        def complete() -> bool:
            for topic, messages in self.messages.items():
                found[topic] = next((each for each in messages if header_of(each) == header_dict(fused.header)), None)
            found["told"] = next((each for each in self.rig.provenance if each.header == fused.header), None)
            return all(each is not None for each in found.values())

        assert self.rig.wait_for(complete), {topic: len(messages) for topic, messages in self.messages.items()}
        report = {item.key: item.value for item in found["told"].status[0].values}
        instances = np.frombuffer(found["instances"].data, np.uint16)
        return {
            "fused": pixels(fused),
            "overlay": pixels(found["overlay"]),
            "mask": np.frombuffer(found["mask"].data, np.uint8).reshape(fused.height, fused.width),
            "instances": instances.reshape(fused.height, fused.width),
            "encodings": tuple(found[topic].encoding for topic in ("mask", "instances", "overlay")),
            "objects": json.loads(found["objects"].data),
            "told": report,
        }

    def fuse_until(self, state: str, pair: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def reached() -> bool:
            found.update(self.fuse(pair))
            return bool(found["told"]["masks"] == state)

        assert self.rig.wait_for(reached, 30.0), found["told"]
        return found


def header_dict(header: Any) -> dict[str, Any]:
    stamp = {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec}
    return {"stamp": stamp, "frame_id": header.frame_id}


def header_of(message: Any) -> Any:
    return json.loads(message.data)["header"] if isinstance(message, String) else header_dict(message.header)


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_text_checkpoint, domain) -> Iterator[tuple[Process, Rig, Heard]]:
    rig = Rig(domain)
    heard = Heard(rig)
    given = (f"model:={tiny_text_checkpoint}", "target_text:=person", *FIXED, *FAST)
    process = Process(tmp_path_factory.mktemp("text"), domain, *given)
    try:
        rig.wait_until_active()
        yield process, rig, heard
    finally:
        process.close()
        rig.close()


@pytest.fixture
def heard(running) -> Iterator[Heard]:
    """The shared node with its text of the start; set back afterwards, and its counters are consistent."""
    process, rig, heard = running
    try:
        yield heard
    finally:
        for name, value in (
            ("target_text", ""), ("localizer", "fixed"), ("regions", REGIONS), ("target_text", "person"),
            ("target_strength", 1.0), ("localizer_model", "locate"),
        ):  # fmt: skip
            assert rig.set(name, value).successful, name
        assert process.alive, process.text()
        rig.settled()


@pytest.fixture(scope="module")
def plain(tiny_text_checkpoint) -> Fuser:
    return Fuser.from_config(FuserConfig(model=str(tiny_text_checkpoint), threads=1))


def painted(size: tuple[int, int], region: tuple[slice, slice], level: int = 1) -> np.ndarray:
    labels = np.zeros(size, np.uint8)
    labels[region] = level
    return labels


def test_what_the_text_of_the_start_names_stands_out_and_is_published_under_the_fused_header(heard, pair, plain):
    found = heard.fuse_until("located", pair)
    assert found["encodings"] == ("mono8", "mono16", "rgb8")
    labels = painted(found["mask"].shape, PERSON)
    np.testing.assert_array_equal(found["mask"], labels, "the scene stands still")
    np.testing.assert_array_equal(found["instances"] > 0, labels > 0)

    expected = plain.fuse(*pair).image
    changed = (found["fused"] != expected).any(2)
    assert changed[PERSON].mean() > 0.5, "the random re-modulation is strong"
    assert not changed[labels == 0].any(), "outside the mask the bytes are those of the plain fusion"
    assert (found["overlay"] != found["fused"]).any(2)[PERSON].mean() > 0.5

    objects, report = found["objects"], found["told"]
    assert (objects["text"], objects["strength"], objects["width"], objects["height"]) == ("person", 1.0, 70, 45)
    assert objects["categories"] == [{"id": 1, "name": "person", "strength": 1.0}]
    (item,) = objects["objects"]
    assert item["bbox"] == [5, 5, 20, 20] and item["category_id"] == 1 and item["area"] == 400
    assert item["id"] == found["instances"].max()
    stamps = [out.header.stamp.sec + out.header.stamp.nanosec / 1e9 for out in heard.rig.fused]
    assert objects["masks"]["text"] == "person" and objects["masks"]["state"] == "located"
    assert any(abs(objects["masks"]["stamp"] - stamp) < 1e-6 for stamp in stamps), "of a key frame that was sent"
    assert (report["text"], report["strength"], report["masks_text"], report["objects"]) == (
        "person",
        "1.0",
        "person",
        "1",
    )
    assert float(report["masks_stamp"]) == pytest.approx(objects["masks"]["stamp"], abs=1e-6)
    text = heard.rig.counters()["text"]
    assert (text["target"], text["masks"], text["localizer"]) == ("person", "located", "fixed")
    assert heard.rig.wait_for(lambda: any(values(s).get("text.target") == "person" for s in heard.rig.statuses))


def test_after_a_change_of_the_text_the_mask_is_empty_until_the_first_result_and_never_the_old_ones(heard, pair, plain):
    heard.fuse_until("located", pair)
    assert heard.rig.set("target_text", "dog, car:0.5").successful
    first = heard.fuse(pair)
    assert not first["mask"].any() and not first["instances"].any() and first["objects"]["objects"] == []
    assert (first["told"]["text"], first["told"]["masks"]) == ("dog, car:0.5", "waiting")
    assert first["told"]["masks_text"] == first["told"]["masks_stamp"] == ""
    np.testing.assert_array_equal(first["fused"], plain.fuse(*pair).image)
    np.testing.assert_array_equal(first["overlay"], first["fused"])
    found = heard.fuse_until("located", pair)
    np.testing.assert_array_equal(found["mask"], painted(found["mask"].shape, CAR, 2))
    assert [item["category_id"] for item in found["objects"]["objects"]] == [2]
    assert [item["strength"] for item in found["objects"]["categories"]] == [1.0, 0.5]


def test_a_strength_holds_from_the_next_image_on_and_needs_no_new_look(heard, pair, plain):
    strong = heard.fuse_until("located", pair)
    assert heard.rig.set("target_strength", 0.0).successful
    found = heard.fuse(pair)
    assert (found["told"]["strength"], found["told"]["masks"]) == ("0.0", "located")
    np.testing.assert_array_equal(found["fused"], plain.fuse(*pair).image)
    np.testing.assert_array_equal(found["mask"], strong["mask"])
    assert heard.rig.set("target_strength", 2).successful, "an integer will do"
    stronger = heard.fuse(pair)
    assert stronger["objects"]["strength"] == 2.0
    assert (stronger["fused"] != found["fused"]).any() and (stronger["fused"] != strong["fused"]).any()
    refused = heard.rig.set("target_strength", 3.0)
    assert not refused.successful and "target_strength" in refused.reason


def test_nothing_found_is_published_too_and_without_a_text_nothing_is(heard, pair, plain):
    assert heard.rig.set("target_text", "dog").successful
    found = heard.fuse_until("located", pair)
    assert not found["mask"].any() and found["objects"]["objects"] == []
    np.testing.assert_array_equal(found["fused"], plain.fuse(*pair).image)
    assert heard.rig.set("target_text", "").successful
    for messages in heard.messages.values():
        messages.clear()
    np.testing.assert_array_equal(pixels(heard.rig.fuse(*pair)), plain.fuse(*pair).image)
    heard.rig.spin(0.3)
    assert not any(heard.messages.values())
    assert heard.rig.counters()["text"]["masks"] == "off"


def test_a_text_that_is_wrong_is_refused_and_what_was_in_force_stays(heard, pair):
    assert heard.rig.set("target_text", "").successful
    assert heard.rig.set("localizer", "builtin").successful
    refused = heard.rig.set("target_text", "a unicorn")
    assert not refused.successful
    assert refused.reason.startswith("target_text must be classes that the localizer knows (")
    assert "person" in refused.reason and "'unicorn'" in refused.reason
    refused = heard.rig.set("target_text", True)
    assert "target_text must be text, got True" in refused.reason and "quotes" in refused.reason
    assert "target_text" in heard.rig.set("target_text", "person:9").reason
    assert heard.rig.counters()["text"]["target"] == ""


def test_a_localizer_that_fails_or_cannot_be_had_is_reported_and_the_fusion_goes_on(
    heard, running, pair, plain, tmp_path
):
    """The mask given by hand is of another size than the images: each look at a key frame raises."""
    process, rig, _ = running
    cv2.imwrite(str(tmp_path / "small.png"), np.ones((8, 8), np.uint8))
    assert rig.set("regions", str(tmp_path / "small.png")).successful
    found = heard.fuse_until("failed", pair)
    assert not found["mask"].any()
    np.testing.assert_array_equal(found["fused"], plain.fuse(*pair).image)
    assert "the mask given in regions must be" in found["objects"]["masks"]["error"]
    said = "the mask given in regions must be as large as the image"
    assert rig.wait_for(lambda: warned(rig, said)) and said in process.text()

    rig.set("target_text", "")
    rig.set("localizer", "builtin")
    rig.set("localizer_model", "/nowhere/at.all")
    assert rig.set("target_text", "person").successful, "words are checked at once, weights are read beside the fusion"
    heard.fuse_until("failed", pair)
    assert rig.wait_for(lambda: warned(rig, "parameter localizer_model: "))
    assert "parameter localizer_model: " in process.text()
    before = rig.counters()["fused"]
    heard.fuse(pair)
    assert rig.counters()["fused"] == before + 1


def test_what_a_launch_file_may_make_of_a_text_never_ends_the_node(start, tiny_text_checkpoint, pair):
    """``on`` is a truth value, 42 a number, [a, b] a list; and a wrong word refuses the transition, not the process."""
    parameters = (f"model:={tiny_text_checkpoint}", "target_text:=on", *FAST)
    process, rig = start(*parameters)
    assert rig.wait_for(lambda: "startup failed" in process.text(), START_TIMEOUT), process.text()
    assert "target_text must be text, got True (bool); put it in quotes" in process.text()
    for text, named in (
        (42, "target_text must be classes that the localizer knows (sky, "),
        ("unicorn", "'unicorn'"),
        (["person", "unicorns"], "'unicorns'"),
    ):
        assert rig.set("target_text", text).successful is (text == 42), "words are looked up once a text was"
        if text == 42:
            assert not rig.change(Transition.TRANSITION_CONFIGURE)
            assert named in process.text() and "got '42'" in process.text()
        else:
            assert named in rig.set("target_text", text).reason
    assert process.alive and rig.state() == "unconfigured"
    for name, value in (("target_text", ""), ("localizer", "fixed"), ("regions", REGIONS)):
        assert rig.set(name, value).successful
    assert rig.set("target_text", ["person", "car"]).successful
    assert rig.change(Transition.TRANSITION_CONFIGURE), process.text()
    assert rig.change(Transition.TRANSITION_ACTIVATE)
    rig.wait_until_active()
    rig.fuse(*pair)
    assert rig.counters()["text"]["target"] == "person, car"


def values(status: Any) -> dict[str, str]:
    return {item.key: item.value for item in status.values}


def warned(rig: Rig, text: str) -> bool:
    return any(text in status.message and status.level == DiagnosticStatus.WARN for status in rig.statuses)


def test_a_text_that_was_wrong_at_the_start_does_not_stand_in_the_way_of_its_cure(start, tiny_text_checkpoint):
    process, rig = start(f"model:={tiny_text_checkpoint}", "warm_up_size:=[48,64]", "target_text:=dragon")
    assert rig.wait_for(lambda: "target_text must be classes" in process.text())
    assert rig.set("steps", 2).successful
    refused = rig.set("target_text", "griffin")
    assert not refused.successful and "'griffin'" in refused.reason
    assert rig.set("regions", REGIONS).successful and rig.set("localizer", "fixed").successful
    assert rig.change(Transition.TRANSITION_CONFIGURE), process.text()
