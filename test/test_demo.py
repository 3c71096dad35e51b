"""The demo with real processes over DDS, and its report."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.checkpoint import find_checkpoint
from textdifuse_ros.cli.demo import RESULTS
from textdifuse_ros.demo.inputs import MAX_LOAD, MAX_RATE, choose_rate
from textdifuse_ros.demo.output import claim_output
from textdifuse_ros.demo.report import FolderInput, RecordedInput, RunCounters, make_images
from textdifuse_ros.errors import CheckpointError, InputError

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 180.0  # [s]
needs_ros = pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="rclpy is not installed")


def _model(tiny: Path) -> str:
    """The shipped model if it is installed."""
    try:
        find_checkpoint("drive")
    except CheckpointError:
        return str(tiny)
    return "drive"


def _start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "textdifuse_ros.cli.main", "demo", "-o", "out", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=env, text=True, stdout=pipe, stderr=pipe, start_new_session=True)


def _run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    process = _start(folder, *arguments)
    try:
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _processes(folder: Path) -> list[str]:
    """Command lines of the processes that were given this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(entry.name) != os.getpid():
            found.append(line.replace("\0", " "))
    return found


@needs_ros
@pytest.mark.slow
def test_the_synthetic_drive_is_fused_and_every_pair_accounted_for(tmp_path: Path, tiny_checkpoint: Path) -> None:
    out = tmp_path / "out"
    claim_output(out, RESULTS)
    (out / "mine.txt").write_text("kept")
    (out / "summary.json").write_text("of an earlier run")
    arguments = ("--steps", 1, "--size", "160x120", "--pairs", 50, "--rate", 4)
    done = _run(tmp_path, "--model", _model(tiny_checkpoint), *arguments)
    assert done.returncode == 0, done.stderr

    report = json.loads((out / "summary.json").read_text())
    assert report["pairs_in"] == 50 == report["fused"] + sum(report["dropped"].values())
    assert {"transport", "superseded"} <= set(report["dropped"])
    assert 0 < report["latency_ms"]["median"] <= report["latency_ms"]["p99"]
    assert report["steps"] == 1 and report["device"] and len(report["weights"]) == 64
    first, later = report["texts"]
    assert (first["text"], later["text"]) == ("person", "car") and first["frames"] + later["frames"] == report["fused"]
    assert first["last_stamp_ns"] < later["first_stamp_ns"] and later["waiting"], "localized again for the new text"
    with BagReader(out / "fused_bag") as fused, BagReader(out / "input_bag") as inputs:
        images = list(fused.images("/fusion_node/fused"))
        stamps = {image.stamp_ns for image in inputs.images("/visible/image")}
    assert len(images) == report["fused"]
    assert {image.stamp_ns for image in images} <= stamps, "the visible header is kept"
    assert {(image.width, image.height, image.encoding) for image in images} == {(160, 120, "rgb8")}
    sheet = cv2.imread(str(out / "contact_sheet.png"))
    assert sheet is not None and sheet.std() > 5
    assert sheet.shape[1] == 4 * (420 + 4) + 4, "visible, infrared, fused and overlay"
    video = cv2.VideoCapture(str(out / "drive.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == report["fused"]
    assert (out / "mine.txt").read_text() == "kept"
    assert not _processes(tmp_path)
    for word in ("pairs in", "fused", "dropped", "median", "p99"):
        assert word in done.stdout


@needs_ros
@pytest.mark.slow
def test_a_folder_is_played_in_laps_without_its_unreadable_pair(tmp_path: Path, tiny_checkpoint: Path) -> None:
    noise = np.random.default_rng(0)
    for index in range(4):
        for side, shape in (("vis", (48, 64, 3)), ("ir", (48, 64))):
            (tmp_path / "data" / side).mkdir(parents=True, exist_ok=True)
            image = noise.integers(0, 256, shape, dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "data" / side / f"{index}.png"), image)
    broken = tmp_path / "data" / "ir" / "2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    done = _run(tmp_path, "--data", "data", "--model", tiny_checkpoint, "--steps", 1, "--pairs", 50, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert report["pairs_in"] == 50 == report["fused"] + sum(report["dropped"].values())
    assert report["source"] == "data" and report["texts"] == []
    assert "2.png" in (tmp_path / "out" / "logs" / "player.log").read_text()
    with BagReader(tmp_path / "out" / "fused_bag") as bag:
        first = next(bag.images("/fusion_node/fused"))
    start = json.loads((tmp_path / "out" / "logs" / "player.json").read_text())["start_ns"]
    visible, _ = FolderInput(tmp_path / "data", start, report["rate_hz"]).pair(first.stamp_ns)
    assert visible.shape[:2] == (first.height, first.width)


@needs_ros
@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "number", "status"),
    [
        (os.kill, signal.SIGINT, 130),
        (os.killpg, signal.SIGINT, 130),  # like Ctrl-C in a terminal: to all foreground processes
        (os.kill, signal.SIGTERM, 130),
        (os.kill, signal.SIGKILL, -9),
    ],
    ids=["SIGINT", "Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_no_process_is_left_after_a_signal(
    tmp_path: Path, tiny_checkpoint: Path, send: Callable[[int, int], None], number: int, status: int
) -> None:
    arguments = ("--model", tiny_checkpoint, "--steps", 1, "--size", "64x48", "--pairs", 50, "--rate", 1)
    process = _start(tmp_path, *arguments)
    try:
        _await(lambda: any("player_node" in line for line in _processes(tmp_path)))
        send(process.pid, number)
        _, err = process.communicate(timeout=PATIENCE)
        _await(lambda: not _processes(tmp_path))
    finally:
        process.kill()
    assert process.returncode == status, err
    if status == 130:
        assert err.strip().splitlines()[-1] == "textdifuse: interrupted" and "must be" not in err
    assert not (tmp_path / "out" / "summary.json").exists()


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "10"], "pairs must be at least 50, got 10"),
        (["--data", "absent"], "absent"),
        (["--model", "absent"], "absent"),
        (["--rate", "-1"], "rate must be in"),
        (["--text", "person, unicorn"], "--text must be classes that the localizer knows"),
        (["--text", "", "--text-later", "car"], "--text must be given where --text-later is"),
    ],
)
@needs_ros
def test_wrong_input_is_reported_in_one_line(
    tmp_path: Path, tiny_checkpoint: Path, arguments: list[str], message: str
) -> None:
    model = [] if "--model" in arguments else ["--model", tiny_checkpoint]
    done = _run(tmp_path, "--size", "32x24", *model, *arguments)
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("seconds", [0.001, 0.2])
def test_the_rate_leaves_time_to_fuse_each_pair(seconds: float) -> None:
    class SlowFuser:
        def warm_up(self, height: int, width: int) -> None: ...

        def fuse(self, visible: np.ndarray, infrared: np.ndarray) -> None:
            time.sleep(seconds)

        def close(self) -> None: ...

    samples = [(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))]
    rate, measured = choose_rate(SlowFuser(), 0.0, samples)  # type: ignore[arg-type]
    assert measured >= seconds
    assert rate == min(MAX_RATE, MAX_LOAD / measured)
    assert choose_rate(SlowFuser(), 3.0, samples)[0] == 3.0  # type: ignore[arg-type]


class TestCounters:
    @staticmethod
    def report(**changes: object) -> dict:
        node = {
            "received": 50,
            "fused": 40,
            "dropped": {"superseded": 10},
            "waiting": 0,
            "latency_ms": {"median": 1.0, "p99": 2.0},
            **dict.fromkeys(("device", "steps", "sampler", "seed", "model", "weights"), ""),
            **changes,
        }
        return {"player": {"pairs": 52}, "node": node}

    def test_pairs_that_did_not_arrive_are_lost_in_transport(self) -> None:
        counters = RunCounters.from_report(self.report(), 40)
        assert counters.dropped == {"transport": 2, "superseded": 10} and not counters.faults()
        assert counters.summary()["pairs_in"] == 52

    @pytest.mark.parametrize(
        ("changes", "recorded", "fault"),
        [
            ({"fused": 41}, 41, "add up"),
            ({"waiting": 1}, 40, "add up"),
            ({"received": 53}, 40, "add up"),
            ({}, 39, "fused_bag must hold every fused image"),
            ({"fused": 0, "dropped": {"bad_visible": 50}}, 0, "at least one"),
        ],
    )
    def test_an_inconsistent_counter_is_a_fault(self, changes: dict, recorded: int, fault: str) -> None:
        faults = RunCounters.from_report(self.report(**changes), recorded).faults()
        assert any(fault in line for line in faults)

    def test_each_text_must_appear_in_the_recorded_images(self) -> None:
        def run(text: str, frames: int) -> dict:
            return {"text": text, "frames": frames, "with_objects": 0}

        texts = [run("person", 30), run("car", 10)]
        counters = RunCounters.from_report(self.report(), 40, texts, ["person", "car"])
        assert not counters.faults() and counters.summary()["texts"] == texts
        for wrong in ([], texts[:1], [run("person", 40)], [run("person", 30), run("car", 9)], texts[::-1]):
            (fault,) = RunCounters.from_report(self.report(), 40, wrong, ["person", "car"]).faults()
            assert "must report its text, 'person', then 'car'" in fault


def test_sixteen_bit_infrared_is_visible_in_sheet_and_video(tmp_path: Path) -> None:
    thermal = np.tile(np.linspace(7000, 7400, 64).astype(np.uint16), (48, 1))
    grey = np.full((48, 64, 3), 90, np.uint8)
    for side, image in (("vis", grey), ("ir", thermal)):
        (tmp_path / "data" / side).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / side / "0.png"), image)
    with BagWriter(tmp_path / "fused_bag") as bag:
        for index in range(3):
            bag.write_image("/fusion_node/fused", index * 10**8, "v", grey)
    assert make_images(FolderInput(tmp_path / "data", 0, 10.0), tmp_path) == 3
    read, frame = cv2.VideoCapture(str(tmp_path / "drive.mp4")).read()
    width = frame.shape[1] // 3
    band = len(frame) - round(480 * 48 / 64)
    assert read and np.ptp(frame[band + 4 :, width + 4 : 2 * width - 4]) > 200
    for left in range(0, 3 * width, width):
        inked = np.flatnonzero((frame[:band, left : left + width] > 128).all(-1).any(1))
        assert np.ptp(inked) >= 0.025 * len(frame), "a label above each image"
    sheet = cv2.imread(str(tmp_path / "contact_sheet.png"))
    width = sheet.shape[1] // 3
    assert np.ptp(sheet[100:200, width + 8 : 2 * width - 8]) > 200


def test_the_input_of_a_fused_image_is_found_by_its_stamp(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(6):
            bag.write_image("/v", index * 100, "v", np.full((8, 8, 3), index, np.uint8))
            bag.write_image("/i", index * 100 + 30, "i", np.full((8, 8), index + 100, np.uint8))
    source = RecordedInput(tmp_path / "bag", "/v", "/i")
    for index in (0, 2, 5):
        visible, infrared = source.pair(index * 100)
        assert (visible.max(), infrared.max()) == (index, index + 100)


def test_a_fused_image_of_another_node_is_reported(tmp_path: Path) -> None:
    grey = np.full((8, 8, 3), 90, np.uint8)
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_image("/v", 0, "v", grey)
        bag.write_image("/i", 0, "i", grey[..., 0])
    with BagWriter(tmp_path / "fused_bag") as bag:
        for stamp in (0, 7):
            bag.write_image("/fusion_node/fused", stamp, "v", grey)
    with pytest.raises(InputError, match="of an image that was played, got 7; another node seems to publish"):
        make_images(RecordedInput(tmp_path / "bag", "/v", "/i"), tmp_path)


@needs_ros
def test_the_domain_of_a_run_is_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    from textdifuse_ros.demo import domain

    monkeypatch.setattr(domain, "LAST_DOMAIN", 4)
    monkeypatch.setattr(domain, "FIRST_PORT", 5400)  # below the ports of ROS, which other programs may use
    taken = {}
    try:
        # Like participants: the discovery port is shared, the others are exclusive.
        for number, offset in ((1, 0), (2, 10), (3, 12)):
            taken[number] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            taken[number].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, offset == 0)
            taken[number].bind(("", 5400 + 250 * number + offset))
        assert {domain.free_domain() for _ in range(20)} == {4}
        monkeypatch.setattr(domain, "LAST_DOMAIN", 3)
        with pytest.raises(InputError, match="one of 1 to 3 without a node"):
            domain.free_domain()
    finally:
        for probe in taken.values():
            probe.close()


@needs_ros
def test_the_domain_of_a_real_node_is_taken() -> None:
    from textdifuse_ros.demo.domain import free_domain, is_taken

    number = free_domain()
    env = {**os.environ, "ROS_DOMAIN_ID": str(number), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    script = "import rclpy; rclpy.init(); node = rclpy.create_node('robot'); print('here', flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], env=env, stdin=pipe, stdout=pipe, text=True) as node:
        assert node.stdout is not None and node.stdout.readline().strip() == "here"
        assert is_taken(number)
        node.communicate("\n")
    assert not is_taken(number)
