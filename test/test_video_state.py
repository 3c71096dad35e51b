"""The video state: less flicker, as sharp; nothing stays beyond a cut, nor of what a text made stand out."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from turning_camera import FRAMES, HEIGHT, WIDTH, Pair, drive

from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.result import FusionResult
from textdifuse_ros.image.intake import AlignedPair
from textdifuse_ros.metrics.detail import average_gradient
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.regions import find_motion, flicker
from textdifuse_ros.offline import recording
from textdifuse_ros.offline.plan import RecordingJob
from textdifuse_ros.offline.recording import fuse_recording
from textdifuse_ros.runtime.engine import Engine, FusionRequest
from textdifuse_ros.runtime.processor import PairProcessor, ProcessedPair
from textdifuse_ros.runtime.video_state import LONGEST_GAP, VideoState
from textdifuse_ros.scenes.config import DriveSceneConfig
from textdifuse_ros.scenes.drive import NightDrive

DARKER, BRIGHTER = 0.9, 1.1


def unsteady(frames: list[Pair]) -> list[FusionResult]:
    """A fusion whose gain changes from frame to frame for no reason."""
    gains = [DARKER if n % 2 else BRIGHTER for n in range(len(frames))]
    return [
        FusionResult((0.8 * gain * np.maximum(visible, infrared[..., None])).astype(np.uint8), {}, {})
        for (visible, infrared), gain in zip(frames, gains, strict=True)
    ]


def steadied(frames: list[Pair], results: list[FusionResult], state: VideoState | None = None) -> list[FusionResult]:
    state = state or VideoState()
    return [state.steady(*frame, result, n / 10) for n, (frame, result) in enumerate(zip(frames, results, strict=True))]


def measure(frames: list[Pair], results: list[FusionResult]) -> tuple[float, float]:
    """Mean AG and flicker."""
    greys = [to_grey(result.image) for result in results]
    motions = [find_motion(before[1], now[1]) for before, now in pairwise(frames)]
    changes = [flicker(*moment, motion) for moment, motion in zip(pairwise(greys), motions, strict=True)]
    return float(np.mean([average_gradient(grey) for grey in greys])), float(np.mean(changes))


@pytest.fixture(scope="module")
def fuser(tiny_text_checkpoint: Path) -> Fuser:
    return Fuser.from_config(FuserConfig(model=str(tiny_text_checkpoint), steps=1, device="cpu", threads=1))


def same(one: FusionResult, other: FusionResult) -> bool:
    return bool(np.array_equal(one.image, other.image))


# ---- what it is for


def test_a_gain_that_changes_from_frame_to_frame_flickers_much_less_and_is_as_sharp():
    frames = drive(1)
    alone = unsteady(frames)
    (sharp, before), (kept, after) = measure(frames, alone), measure(frames, steadied(frames, alone))
    assert after < 0.6 * before
    assert abs(kept / sharp - 1) < 0.02


def test_the_shipped_weights_flicker_less_on_a_noisy_drive_and_are_as_sharp():
    scene = NightDrive(DriveSceneConfig(frames=FRAMES, width=320, height=240, seed=5, noise=2.0))
    frames = [(frame.visible, frame.infrared) for frame in scene]
    fuser = Fuser.from_config(FuserConfig(steps=1, device="cpu"))
    alone = [fuser.fuse(*frame) for frame in frames]
    (sharp, before), (kept, after) = measure(frames, alone), measure(frames, steadied(frames, alone))
    assert after < 0.9 * before
    assert abs(kept / sharp - 1) < 0.02


def test_what_moves_against_the_scene_leaves_no_ghost():
    """A bright body jumps by its own width; where it was, nothing of it may stay."""
    frames, results = [], []
    for left in (20, 64):
        visible, infrared = (image.copy() for image in drive(3, noise=0.0)[0])
        for image in (visible, infrared):
            image[30:66, left : left + 40] = 255
        frames.append((visible, infrared))
        results.append(FusionResult(np.maximum(visible, infrared[..., None]), {}, {}))
    left = slice(30, 66), slice(24, 56)
    difference = steadied(frames, results)[1].image[left].astype(int) - results[1].image[left]
    assert np.abs(difference).mean() < 2


# ---- where it is reset


def test_after_a_cut_the_image_is_that_of_its_own_pair_at_once():
    before, after = drive(1), drive(4)
    frames = before + after
    alone = unsteady(frames)
    state = VideoState()
    results = steadied(frames, alone, state)
    assert same(results[FRAMES], alone[FRAMES])
    assert results[FRAMES].provenance["video"] == 0
    for n in (FRAMES - 1, FRAMES + 1):
        assert not same(results[n], alone[n])
        assert float(results[n].provenance["video"]) > 0.5


@pytest.mark.parametrize("stamps", [(5.0, 4.9), (5.0, 5.0), (5.0, 5.0 + 1.1 * LONGEST_GAP)])
def test_time_that_goes_back_or_leaps_resets_the_state(stamps):
    frames = drive(1)[:2]
    alone = unsteady(frames)
    state = VideoState()
    state.steady(*frames[0], alone[0], stamps[0])
    assert same(state.steady(*frames[1], alone[1], stamps[1]), alone[1])
    state.reset()
    state.steady(*frames[0], alone[0], 5.0)
    assert not same(state.steady(*frames[1], alone[1], 5.1), alone[1]), "and but for the stamps it would not have"


def test_after_a_reset_the_image_comes_out_as_it_is():
    frames = drive(1)[:2]
    alone = unsteady(frames)
    state = VideoState()
    state.steady(*frames[0], alone[0])
    state.reset()
    assert same(state.steady(*frames[1], alone[1]), alone[1])


def test_another_size_resets_the_state_and_small_images_are_left_alone(pair):
    frames = drive(1)[:3]
    alone = unsteady(frames)
    state = VideoState()
    state.steady(*frames[0], alone[0])
    cut = tuple(image[:70, :101] for image in frames[1])
    result = FusionResult(np.ascontiguousarray(alone[1].image[:70, :101]), {}, {})
    assert same(state.steady(*cut, result), result)
    assert same(state.steady(*frames[2], alone[2]), alone[2])
    small = FusionResult(pair[0], {}, {})
    assert state.steady(*pair, small) is small
    assert same(state.steady(*frames[1], alone[1]), alone[1])


def test_the_same_sequence_gives_the_same_bytes_and_an_odd_size_or_sixteen_bits_do_not_matter():
    frames = [(visible[:91, :119], infrared[:91, :119].astype(np.uint16) * 50 + 7000) for visible, infrared in drive(5)]
    eight = [(visible, (infrared >> 6).astype(np.uint8)) for visible, infrared in frames]
    alone = unsteady(eight)
    one, other = (steadied(frames, alone) for _ in range(2))
    assert all(same(a, b) for a, b in zip(one, other, strict=True))
    assert not same(one[-1], alone[-1])


# ---- a text


def test_a_text_changes_nothing_outside_its_mask_and_never_enters_the_state(fuser):
    frames = drive(6)
    strengths = np.zeros((HEIGHT, WIDTH), np.float32)
    strengths[30:60, 40:80] = 1.0
    plain = steadied(frames, [fuser.fuse(*frame) for frame in frames])
    named = [fuser.fuse(*frame, emphasis=Emphasis(strengths), keep_plain=True) for frame in frames]
    shown = steadied(frames, named)
    for with_text, without, alone in zip(shown, plain, named, strict=True):
        assert with_text.mask is not None and with_text.plain is not None
        outside = with_text.mask == 0
        assert outside.any() and (with_text.image != without.image).any()
        np.testing.assert_array_equal(with_text.image[outside], without.image[outside])
        np.testing.assert_array_equal(with_text.plain, without.image)
        assert not np.array_equal(alone.image, alone.plain)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_text_that_is_taken_away_leaves_nothing_and_an_empty_one_never_shows(fuser, strength):
    frames = drive(6)[:3]
    named = Emphasis(np.full((HEIGHT, WIDTH), np.float32(strength)))
    plain = [fuser.fuse(*frame) for frame in frames]
    results = [fuser.fuse(*frame, emphasis=named, keep_plain=True) for frame in frames[:2]]
    expected, shown = steadied(frames, plain), steadied(frames, [*results, plain[2]])
    assert same(shown[2], expected[2])
    assert strength or all(same(one, other) for one, other in zip(shown, expected, strict=True))


# ---- the processor, and recordings


class Service:
    """A processor at work on a drive; with ``strengths`` it emphasizes."""

    def __init__(self, checkpoint: Path, *, video: bool = True, scale: float = 1.0, **given: Any) -> None:
        self.video = video
        self.request = FusionRequest(1, "ddim", 0, scale, keep_plain=video)
        self.config = FuserConfig(model=str(checkpoint), device="cpu", threads=1)
        self.engine = Engine(lambda reason, text: None)
        self.engine.open(self.config, (HEIGHT, WIDTH), go_on=lambda: False)
        self.processor = PairProcessor(self.engine, **given)

    def process(self, frame: tuple[np.ndarray | None, np.ndarray | None], at: int) -> ProcessedPair:
        return self.processor.process(AlignedPair(*frame), self.request, video=self.video, stamp=at / 10)


def test_the_processor_steadies_consecutive_pairs_and_fuses_each_alone_where_video_is_off(tiny_text_checkpoint, fuser):
    frames = drive(7)[:3]
    alone = [fuser.fuse(*frame) for frame in frames]
    expected = steadied(frames, alone)
    on, off = Service(tiny_text_checkpoint), Service(tiny_text_checkpoint, video=False)
    for n, frame in enumerate(frames):
        assert same(on.process(frame, n), expected[n])
        assert same(off.process(frame, n), alone[n])
    assert not same(expected[2], alone[2])


@pytest.mark.parametrize("event", ["reset", "other weights", "visible missing", "infrared missing", "time back"])
def test_the_next_image_is_independent_of_the_previous_ones_after(tiny_text_checkpoint, tiny_checkpoint, fuser, event):
    frames = drive(7)[:2]
    service = Service(tiny_text_checkpoint)
    if event == "other weights":
        service.engine.open(dataclasses.replace(service.config, model=str(tiny_checkpoint)), (48, 64))
    service.process(frames[0], 10)
    match event:
        case "reset":
            service.processor.reset()
        case "other weights":
            service.engine.open(service.config, (HEIGHT, WIDTH))
        case "visible missing":
            service.process((None, frames[1][1]), 11)
        case "infrared missing":
            service.process((frames[1][0], None), 11)
    at = 9 if event == "time back" else 12
    assert same(service.process(frames[1], at), fuser.fuse(*frames[1]))


class NamedObjects:
    """A text source that knows the objects."""

    def __init__(self, strengths: np.ndarray) -> None:
        self.strengths = strengths

    def detect(self, visible: Any, infrared: Any, stamp: float) -> NamedObjects:
        return self

    def emphasis(self) -> Emphasis:
        return Emphasis(self.strengths)

    def metadata(self) -> dict[str, Any]:
        return {}


def test_at_a_smaller_scale_a_text_is_exact_outside_its_mask_too(tiny_text_checkpoint):
    frames = drive(8)[:2]
    strengths = np.zeros((HEIGHT, WIDTH), np.float32)
    strengths[30:60, 40:80] = 1.0
    services = (
        Service(tiny_text_checkpoint, scale=0.75),
        Service(tiny_text_checkpoint, scale=0.75, text=NamedObjects(strengths)),
    )
    for n, frame in enumerate(frames):
        plain, named = (service.process(frame, n) for service in services)
        assert named.mask is not None and (plain.image != named.image).any()
        np.testing.assert_array_equal(plain.image[named.mask == 0], named.image[named.mask == 0])


def test_a_recording_is_steadied_and_one_that_is_resumed_to_the_same_bytes(tiny_text_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "PIECE_PAIRS", 2)
    with BagWriter(tmp_path / "in") as bag:
        for n, frame in enumerate(drive(9)):
            for topic, image in zip(("/visible/image", "/infrared/image"), frame, strict=True):
                stamp = 10**12 + n * 10**8
                bag.write_image(topic, stamp, "camera", image, stamp)

    def job(output: str, **given: Any) -> RecordingJob:
        config = FusionNodeConfig(model=str(tiny_text_checkpoint), steps=1, device="cpu", threads=1, **given)
        return RecordingJob(tmp_path / "in", tmp_path / output, config)

    def images(output: str) -> list[bytes]:
        with BagReader(tmp_path / output) as bag:
            return [message.data for message in bag.messages(["/fusion_node/fused"])]

    list(fuse_recording(job("whole")))
    list(fuse_recording(job("each", video=False)))
    for progress in (running := fuse_recording(job("resumed"))):
        if progress.done == 5:
            running.close()
    list(fuse_recording(job("resumed")))
    assert images("resumed") == images("whole")
    differ = [one != other for one, other in zip(images("whole"), images("each"), strict=True)]
    assert differ == [False, *[True] * (FRAMES - 1)]
