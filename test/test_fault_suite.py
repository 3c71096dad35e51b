"""Every fault of cameras, transport and operators against a real ``fusion_node``: it lives, balances and recovers.

Each test has a process and a ROS domain of its own. How long each recovery took is printed when all are done [s], and
is a property of the test in the JUnit report: from the first good pair after the fault to the first fused image.
"""

# ruff: noqa: E402 (what needs ROS is imported after the skip)
from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.register_assert_rewrite("ros_helpers.fusion_rig", "ros_helpers.faulty_node")
pytest.importorskip("rclpy", reason="rclpy cannot be imported (pip install .[ros] brings it)")

from lifecycle_msgs.msg import Transition
from ros_helpers.faults import other_encoding, shifted, short, unstamped
from ros_helpers.faulty_node import PATIENCE, Fault, unfit
from ros_helpers.fusion_rig import (
    FAST,
    INFRARED,
    SENSORS,
    VISIBLE,
    dropped_since,
    environment_in,
    image,
)
from sensor_msgs.msg import Image

from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.nodes.qos import input_profile

pytest_plugins = ["ros_helpers.fusion_rig", "ros_helpers.faulty_node"]

HOUR = 3600.0
BACK = {"unmatched", "partner_missing", "time_jump"}


# ---- cameras


@pytest.fixture
def camera() -> Iterator[Callable[[str, int], subprocess.Popen[str]]]:
    """Starts a camera in a process of its own, in the given domain."""
    opened: list[subprocess.Popen[str]] = []

    def begin(stream: str, domain: int) -> subprocess.Popen[str]:
        helper = Path(__file__).parent / "ros_helpers" / "camera.py"
        run = [sys.executable, str(helper), stream]
        opened.append(subprocess.Popen(run, env=environment_in(domain), stdout=subprocess.PIPE, text=True))
        return opened[-1]

    yield begin
    for process in opened:
        process.kill()
        process.communicate()


def test_a_camera_that_is_killed_is_named_and_when_it_is_revived_pairs_come_again(faulty, camera):
    node = faulty()
    running = {stream: camera(stream, node.rig.domain) for stream in SENSORS}
    assert node.rig.wait_for(lambda: len(node.rig.fused) > 5, PATIENCE)
    for stream in SENSORS:
        running[stream].kill()
        running[stream].wait()
        assert node.reported(f"{stream} silent for"), node.rig.statuses[-1:]
        fused = node.rig.counters()["fused"]
        running[stream] = camera(stream, node.rig.domain)
        assert node.rig.wait_for(lambda fused=fused: node.rig.counters()["fused"] > fused, PATIENCE)
        node.note(f"{stream} camera killed and revived", time.monotonic() - float(running[stream].stdout.readline()))
        assert node.rig.wait_for(lambda stream=stream: f"{stream} is back" in node.process.text(), PATIENCE)
    for process in running.values():
        process.kill()
        process.wait()
    node.rig.settled()
    node.recovers("both cameras gone")


def test_stamps_that_jump_or_are_zero_lose_no_more_than_the_pairs_they_are_in(faulty):
    node = faulty()

    def of(*streams: str, seconds: float = 0.0) -> Fault:
        return lambda messages: [shifted(messages[s], seconds) if seconds else unstamped(messages[s]) for s in streams]

    for fault, inject, reasons in (
        ("both clocks an hour ahead", of(*SENSORS, seconds=HOUR), set()),
        ("both clocks an hour back", of(*SENSORS, seconds=-HOUR / 10), set()),
        ("visible an hour ahead", of(VISIBLE, seconds=HOUR), {"partner_missing", "time_jump"}),
        ("infrared an hour ahead", of(INFRARED, seconds=HOUR), {"unmatched", "time_jump"}),
        ("visible back", of(VISIBLE, seconds=-HOUR / 10), BACK),
        ("infrared back", of(INFRARED, seconds=-HOUR / 10), {*BACK, "partner_set_back"}),
        ("visible 0.2 s back", of(VISIBLE, seconds=-0.2), {"unmatched", "late"}),
        ("visible stamps zero", of(VISIBLE), {"zero_stamp"}),
        ("infrared stamps zero", of(INFRARED), {"partner_missing", "unmatched"}),
        ("all stamps zero", of(*SENSORS), {"zero_stamp"}),
    ):
        before = node.rig.settled()
        node.stream(5, inject)
        node.recovers(f"stamps: {fault}")
        after = node.rig.settled()
        lost = unfit(before, after)
        assert lost.keys() <= reasons, (fault, lost)
        assert sum(lost.values()) <= 5 + 1, (fault, lost)
        assert bool(reasons) == bool(lost), (fault, lost)


def test_a_bag_that_loops_pairs_as_well_in_each_lap(faulty, tmp_path, pair):
    # A best-effort subscription that has not seen the player yet, or a busy machine, would cost an image as well.
    node = faulty("input_depth:=50", "input_reliability:=reliable", "pairing_wait:=5.0")
    visible, infrared = pair
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(14):
            bag.write_image("/visible/image", (index + 20) * 50_000_000, "v", visible)
            bag.write_image("/infrared/image", (index + 20) * 50_000_000 + 5_000_000, "i", infrared)
    before = node.rig.settled()
    node.rig.fused.clear()
    given = {"source": tmp_path / "bag", "loop": "true", "pairs": 42, "wait_for": 1}
    arguments = [part for name, value in given.items() for part in ("-p", f"{name}:={value}")]
    run = [sys.executable, "-m", "textdifuse_ros.nodes.player_node", "--ros-args", *arguments]
    player = subprocess.Popen(run, env=environment_in(node.rig.domain), stdout=subprocess.DEVNULL)
    assert node.rig.wait_for(lambda: player.poll() is not None, 60.0) and player.returncode == 0
    after = node.rig.settled()
    assert after["received"] - before["received"] == 42
    assert after[VISIBLE]["paired"] - before[VISIBLE]["paired"] == 42, after
    stamps = [out.header.stamp.sec * 10**9 + out.header.stamp.nanosec for out in node.rig.fused]
    laps = sum(later < earlier for earlier, later in itertools.pairwise(stamps)) + 1
    assert laps == 3, "something of each lap comes out"
    node.recovers("bag loop, then another clock")


def test_bad_images_mid_stream_cost_themselves_only_and_a_new_encoding_or_size_is_taken_up(faulty):
    node = faulty()
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (60, 100, 3), dtype=np.uint8)

    def replaced(**images: np.ndarray) -> Fault:
        def inject(messages: dict[str, Image]) -> None:
            for stream, pixels in images.items():
                stamp = messages[stream].header.stamp
                messages[stream] = image(pixels, stamp.sec * 10**9 + stamp.nanosec, f"{stream}_frame")

        return inject

    def counts(messages: dict[str, Image]) -> None:
        messages[VISIBLE].encoding = "bgr8"
        replaced(infrared=node.pair[1].astype(np.uint16) * 20 + 7000)(messages)
        messages[INFRARED].encoding = "mono16"

    for fault, inject, reason in (
        ("unknown visible encoding", lambda m: other_encoding(m[VISIBLE]), "bad_visible"),
        ("unknown infrared encoding", lambda m: other_encoding(m[INFRARED]), "bad_infrared"),
        ("truncated visible", lambda m: short(m[VISIBLE]), "bad_visible"),
        ("truncated infrared", lambda m: short(m[INFRARED]), "bad_infrared"),
        ("visible of another size", replaced(visible=large), "size_mismatch"),
        ("other encodings", counts, ""),
        ("both of another size", replaced(visible=large, infrared=large[:, :, 0]), ""),
    ):
        before = node.rig.settled()
        node.rig.fused.clear()
        sent = node.stream(5, inject, gap=0.1)
        after = node.rig.settled()
        assert unfit(before, after).keys() == ({reason} if reason else set()), (fault, after)
        if not reason:
            assert node.rig.wait_for(lambda sent=sent: node.rig.output_for(sent[-1]) is not None), fault
            assert (node.rig.fused[-1].height, node.rig.fused[-1].width) == (sent[-1].height, sent[-1].width)
        node.recovers(f"mid-stream: {fault}")
        assert node.rig.fused[-1].height == node.pair[1].shape[0]


# ---- transport


def test_qos_that_does_not_fit_is_named_and_when_it_does_images_pass(note, start, tiny_checkpoint, pair):
    given = ("input_reliability:=reliable", "output_reliability:=best_effort")
    process, rig = start(f"model:={tiny_checkpoint}", *FAST, *given)
    rig.wait_until_active()
    rig.send(*rig.pair(*pair))
    assert rig.wait_for(lambda: rig.fused_best_effort), "reliable cameras and a best-effort listener fit"
    assert not rig.fused, "a reliable listener does not fit a best-effort publisher"
    assert "a subscriber of /fusion_node/fused requests another RELIABILITY than offered" in process.text()

    create, destroy = rig.node.create_publisher, rig.node.destroy_publisher
    destroy(rig.cameras[VISIBLE])
    rig.cameras[VISIBLE] = create(Image, "/visible/image", input_profile(5, "best_effort"))
    assert rig.wait_for(lambda: "offers another RELIABILITY than requested" in process.text()), process.text()
    said = "/visible/image has no publisher of compatible QoS"
    assert rig.wait_for(lambda: any(said in status.message for status in rig.statuses)), rig.statuses[-1:]
    before = rig.settled()["received"]
    rig.send(*rig.pair(*pair))
    rig.spin(0.5)
    assert rig.settled()["received"] == before
    assert rig.change(Transition.TRANSITION_DEACTIVATE) and rig.change(Transition.TRANSITION_CLEANUP)
    assert rig.set("input_reliability", "best_effort").successful
    assert rig.set("output_reliability", "reliable").successful
    begun = time.monotonic()
    assert rig.change(Transition.TRANSITION_CONFIGURE) and rig.change(Transition.TRANSITION_ACTIVATE), process.text()
    rig.wait_until_active()
    rig.fuse(*pair)
    note("QoS mismatch, set right and configured anew", time.monotonic() - begun)
    assert process.alive
    rig.settled()


def test_images_that_the_default_shared_memory_loses_are_counted_and_told_of_with_what_to_set(faulty, monkeypatch):
    """Two of 1200 x 1600 do not fit into the segment of 512 kB: most are lost, whatever the timing."""
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    node = faulty("steps:=1")
    assert node.rig.counters()[VISIBLE]["transport_loss"] == 0.0
    node.pair = np.zeros((1200, 1600, 3), np.uint8), np.zeros((8, 8), np.uint8)  # unfit: not one is fused in vain
    node.rig.statuses.clear()

    def report() -> bool:
        node.stream(3)
        return any("were lost in transport; set FASTRTPS_DEFAULT" in status.message for status in node.rig.statuses)

    assert node.rig.wait_for(report, PATIENCE), node.rig.counters()[VISIBLE]
    assert node.rig.wait_for(lambda: "visible transport: " in node.process.text())
    numbers = node.rig.settled()[VISIBLE]
    assert numbers["lost_in_transport"] >= 3 and 0.02 <= numbers["transport_loss"] <= 1.0


# ---- load and operators


def test_ten_times_too_many_images_are_superseded_and_the_counters_are_consistent_all_the_while(faulty):
    node = faulty("steps:=100")
    before = node.rig.settled()
    sent = []
    for _ in range(60):
        sent += node.stream(1, gap=0.01)
        node.rig.counters()
    after = node.rig.settled()
    assert after["received"] - before["received"] == 60
    assert dropped_since(before, after).keys() == {"superseded"}
    assert 1 <= after["fused"] - before["fused"] <= 30
    assert node.rig.wait_for(lambda: node.rig.output_for(sent[-1]) is not None), "the newest pair is always fused"
    stamps = [out.header.stamp.sec * 10**9 + out.header.stamp.nanosec for out in node.rig.fused]
    assert stamps == sorted(stamps)
    node.recovers("ten times too many images")


def test_a_storm_of_parameters_good_and_bad_holds_nothing_up(faulty):
    node = faulty()
    good = {"steps": (1, 4), "infrared_offset": (0.001, 0.0), "on_missing": ("restore", "stop"), "seed": (3, 0)}
    bad = (("steps", 0), ("tolerance", -1.0), ("model", "other"), ("sampler", "euler"), ("infrared_offset", "soon"))
    before = node.rig.settled()
    for index in range(40):
        for name, values in good.items():
            assert node.rig.set(name, values[index % 2]).successful, name
        name, value = bad[index % len(bad)]
        refused = node.rig.set(name, value)
        assert not refused.successful and name in refused.reason
        node.stream(1, gap=0.0)
    after = node.rig.settled()
    assert after["received"] - before["received"] == 40
    assert after["fused"] > before["fused"], "images come out meanwhile"
    assert unfit(before, after).keys() <= {"reconfigured", "partner_missing", "unmatched"}, after["dropped"]
    assert (after["steps"], after["seed"]) == (4, 0), "the last of each is in force"
    node.recovers("parameter storm")


def test_a_text_that_changes_with_every_frame_never_shows_another_ones_masks(faulty, tiny_text_checkpoint):
    regions = "person 5 5 25 25; car 40 10 60 30"
    node = faulty("localizer:=fixed", f'regions:="{regions}"', "localize_rate:=100.0", model=tiny_text_checkpoint)
    node.rig.provenance.clear()
    texts = ["person", "car:0.5", "", "person, car"]
    before = node.rig.settled()
    for index in range(40):
        assert node.rig.set("target_text", texts[index % len(texts)]).successful
        node.stream(1, gap=0.02)
    after = node.rig.settled()
    assert after["fused"] > before["fused"] and not unfit(before, after), after["dropped"]
    assert node.rig.wait_for(lambda: len(node.rig.provenance) >= after["fused"] - before["fused"])
    report = [{item.key: item.value for item in each.status[0].values} for each in node.rig.provenance]
    assert {each.get("text", "") for each in report} <= set(texts) and any(each.get("text") for each in report)
    assert all(each["masks_text"] in ("", each["text"]) for each in report if "text" in each)

    begun = time.monotonic()

    def located() -> bool:
        node.stream(1)
        return any(item.value == "located" for item in node.rig.provenance[-1].status[0].values if item.key == "masks")

    assert node.rig.wait_for(located, PATIENCE)
    node.note("text changed every frame, until the last one's masks", time.monotonic() - begun)
    node.recovers("text changed every frame")


def test_deactivation_under_load_counts_what_waited_and_activation_takes_up_again(faulty):
    node = faulty("steps:=100", "input_depth:=20", "pairing_wait:=60.0")
    before = node.rig.settled()
    node.stream(8, gap=0.0)
    node.rig.send(node.rig.pair(*node.pair)[0], None)
    assert node.rig.wait_for(lambda: node.rig.counters()["received"] == before["received"] + 9)
    assert node.rig.counters()[VISIBLE]["waiting"] == 1
    assert node.rig.change(Transition.TRANSITION_DEACTIVATE)
    numbers = node.rig.counters()
    assert numbers["waiting"] == 0
    assert numbers["dropped"]["deactivated"] in (1, 2)  # the lone one, and a pair if one was in the slot
    assert node.rig.change(Transition.TRANSITION_ACTIVATE)
    node.rig.wait_until_active()
    node.recovers("deactivated under load and activated")


@pytest.mark.parametrize(
    ("number", "size"),
    [(signal.SIGINT, (45, 70)), (signal.SIGTERM, (45, 70)), (signal.SIGINT, (480, 1000))],
    ids=["ctrl-c", "terminate", "ctrl-c in a fusion of several seconds"],
)
def test_a_signal_under_load_ends_the_process_cleanly(start, tiny_checkpoint, note, number, size):
    # Reliable, for images that all but fill the default shared-memory segment.
    process, rig = start(f"model:={tiny_checkpoint}", "steps:=100", "input_reliability:=reliable", *FAST)
    rig.wait_until_active()
    grey = np.full(size, 90, np.uint8)
    for _ in range(5):
        rig.send(*rig.pair(grey, grey))
        rig.spin(0.02)
    assert rig.wait_for(lambda: rig.counters()["waiting"] > 0)
    begun = time.monotonic()
    process.popen.send_signal(number)
    assert process.popen.wait(PATIENCE) == 0, process.text()
    note(f"end after {number.name}, {size[1]} x {size[0]} in work", time.monotonic() - begun)
    assert "Traceback" not in process.text() and "error" not in process.text().lower()
