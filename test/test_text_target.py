"""The text of a running node, without ROS: loading, changing and losing localizers, and fusing with their objects."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from text_objects import square_detections

from textdifuse_ros.config.base import FuserConfig, from_mapping
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import CheckpointError, ConfigError
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.localize.base import Instance, Localization, mask_box
from textdifuse_ros.localize.prompt import Prompt
from textdifuse_ros.runtime import text_target
from textdifuse_ros.runtime.engine import Engine, FusionRequest
from textdifuse_ros.runtime.text_target import Detections, TextTarget

FIXED = FusionNodeConfig(
    localizer="fixed", regions="person 5 5 25 25; car 40 10 60 30", target_text="person", localize_rate=100.0
)
TIMEOUT = 60.0  # of any wait for another thread [s]


class Gate:
    """A localizer that locates one square once its gate is opened."""

    name, vocabulary = "gate", None

    def __init__(self) -> None:
        self.open, self.begun, self.closed = threading.Event(), threading.Event(), threading.Event()

    def locate(self, visible: np.ndarray, infrared: np.ndarray, prompt: Prompt) -> Localization:
        self.begun.set()
        assert self.open.wait(TIMEOUT)
        mask = np.zeros(infrared.shape, bool)
        mask[5:25, 5:25] = True
        return Localization((Instance(mask, mask_box(mask), 0.9, 1),), infrared.shape, prompt.phrases)

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def target(warnings) -> Iterator[TextTarget]:
    target = TextTarget(lambda reason, line: warnings.append(f"{reason}: {line}"))
    yield target
    assert target.close(TIMEOUT)


class Stream:
    """Repeats one pair with stamps a millisecond apart."""

    def __init__(self, target: TextTarget, pair: tuple[np.ndarray, np.ndarray]) -> None:
        self.target, self.pair, self.stamp = target, pair, 100.0

    def next(self) -> Detections:
        self.stamp += 0.001
        detections = self.target.detect(*self.pair, self.stamp)
        assert detections is not None
        return detections

    def until(self, state: str) -> Detections:
        detections = self.next()
        deadline = time.monotonic() + TIMEOUT
        while detections.provenance.state != state:
            assert time.monotonic() < deadline, detections.provenance
            time.sleep(0.005)
            detections = self.next()
        return detections


def test_a_new_text_loads_its_localizer_beside_the_stream_and_an_empty_one_closes_it(target, pair, monkeypatch):
    gate, may_load = Gate(), threading.Event()

    def load_slowly(config: Any) -> Gate:
        assert may_load.wait(TIMEOUT)
        return gate

    monkeypatch.setattr(text_target, "make_localizer", load_slowly)
    target.open(replace(FIXED, target_text=""))
    assert target.detect(*pair, 1.0) is None, "no text, no localizer"
    target.apply(FIXED)
    stream = Stream(target, pair)
    detections = stream.next()
    assert (detections.provenance.state, detections.provenance.text) == ("waiting", "person")
    assert not detections.localization
    target.apply(replace(FIXED, target_text="person:0.5", target_strength=2.0))
    may_load.set(), gate.open.set()
    detections = stream.until("located")
    assert detections.localization.label_map()[10, 10] == 1
    assert detections.provenance.text == "person:0.5", "the current text, not the one at the start of loading"
    assert detections.emphasis().strengths.max() == 1.0, "half of two"
    target.apply(replace(FIXED, target_text=" , "))
    assert target.detect(*pair, 300.0) is None and target.status()["masks"] == "off"
    assert gate.closed.wait(TIMEOUT)


def test_a_key_frame_of_a_previous_text_gives_no_mask(target, pair, monkeypatch):
    gate = Gate()
    monkeypatch.setattr(text_target, "make_localizer", lambda config: gate)
    target.open(FIXED)
    stream = Stream(target, pair)
    stream.next()
    assert gate.begun.wait(TIMEOUT)
    target.apply(replace(FIXED, target_text="car"))
    assert target.status()["masks"] == "waiting" and target.status()["target"] == "car"
    gate.begun.clear()
    gate.open.set()
    states = []
    deadline = time.monotonic() + TIMEOUT
    while not states or states[-1] != "located":
        detections = stream.next()
        states.append(detections.provenance.state)
        assert bool(detections.localization) == (states[-1] == "located"), "a mask of the old text"
        assert [phrase.text for phrase in detections.localization.phrases] == ["car"]
        assert time.monotonic() < deadline, states[-1]
        time.sleep(0.005)
    assert states[0] == "waiting"


def test_a_localizer_that_hangs_blocks_nothing_and_close_reports_it(pair, monkeypatch):
    gate = Gate()
    monkeypatch.setattr(text_target, "make_localizer", lambda config: gate)
    target = TextTarget(lambda reason, line: None)
    target.open(FIXED)
    Stream(target, pair).next()
    assert gate.begun.wait(TIMEOUT)
    target.apply(replace(FIXED, target_text=""))
    assert target.detect(*pair, 200.0) is None
    assert not target.close(0.05), "its thread has not ended"
    gate.open.set()
    assert target.close(TIMEOUT) and gate.closed.is_set()


def test_parameters_that_the_localizer_does_not_use_leave_it_loaded(target, warnings, pair):
    target.open(FIXED)
    stream = Stream(target, pair)
    stream.until("located")
    for changed in ({"nms_iou": 0.9}, {"localizer_threshold": 0.7}, {"detector": "/nowhere"}):
        target.apply(replace(FIXED, **changed))
        assert stream.next().localization, "the masks stay"
    assert warnings == []


def test_a_changed_localizer_replaces_the_old_one_and_one_that_cannot_be_loaded_is_reported(target, warnings, pair):
    target.open(FIXED)
    stream = Stream(target, pair)
    assert stream.until("located").localization.label_map()[10, 10] == 1
    target.apply(replace(FIXED, regions="person 30 30 40 40"))
    assert not stream.next().localization, "masks of the old localizer"
    assert stream.until("located").localization.label_map()[35, 35] == 1
    target.apply(replace(FIXED, regions="/nowhere/regions.txt"))
    detections = stream.until("failed")
    error = detections.provenance.error
    assert not detections.localization and error.startswith("parameter regions: ")
    assert "parameter regions" in target.problem
    target.apply(replace(FIXED, regions="/nowhere/regions.txt", steps=2))
    assert target.status()["masks"] == "failed", "another parameter does not load it again"
    target.apply(FIXED)
    assert stream.until("located").localization
    assert target.problem == ""
    assert target.close(TIMEOUT)
    assert warnings == [f"localizer not loaded: {error}"]


def test_after_a_reset_the_next_image_is_a_key_frame(target, pair):
    target.open(FIXED)
    stream = Stream(target, pair)
    stream.until("located")
    target.reset()
    assert stream.next().provenance.state == "waiting"
    assert stream.until("located").localization


def test_an_image_of_one_sensor_has_empty_masks_of_state_alone(target, pair):
    target.open(FIXED)
    for alone in ((pair[0], None), (None, pair[1])):
        detections = target.detect(*alone, 1.0)
        assert detections is not None
        assert detections.provenance.state == "alone" and not detections.localization.label_map().any()
        assert detections.localization.size == (45, 70)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"localizer": "builtin", "target_text": "person, unicorn"}, "^target_text must be classes that"),
        ({"localizer": "builtin", "localizer_model": "/no/such.safetensors"}, "^parameter localizer_model: "),
        ({"localizer": "fixed", "regions": ""}, "^regions must be given for the fixed localizer"),
        ({"localizer": "fixed", "regions": "/no/such.png"}, "^parameter regions: "),
        ({"localizer": "builtin", "localizer_device": "cuda:99"}, "localizer_device"),
    ],
)
def test_an_invalid_parameter_is_refused_by_name_when_opened(target, changes, message):
    with pytest.raises(ConfigError, match=message):
        target.open(replace(FIXED, **changes))
    assert target.detect(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), 0.0) is None


@pytest.mark.parametrize(
    ("given", "text"), [(42, "42"), (1.5, "1.5"), (["person", "car"], "person, car"), (["person", 2], "person, 2")]
)
def test_numbers_and_lists_are_accepted_as_text(given, text):
    assert from_mapping(FusionNodeConfig, {"target_text": given}).target_text == text


@pytest.mark.parametrize("given", [True, [True, "person"], None])
def test_other_types_are_refused_with_the_parameters_name(given):
    with pytest.raises(ConfigError, match=r"target_text must be text, got .*; put it in quotes"):
        from_mapping(FusionNodeConfig, {"target_text": given})


# ---- fusing with objects


ONE_STEP, HALF_SIZE = FusionRequest(1, "ddim", 0), FusionRequest(1, "ddim", 0, 0.5)


def test_a_model_without_re_modulation_fuses_plainly_and_reports_why(tiny_checkpoint, pair):
    engine = Engine(lambda *report: None)
    config = FusionNodeConfig(model=str(tiny_checkpoint), device="cpu")
    engine.open(config, (48, 64))
    plain = engine.fuse(*pair, ONE_STEP)
    result = engine.fuse(*pair, ONE_STEP, square_detections(pair[1].shape).emphasis())
    np.testing.assert_array_equal(result.image, plain.image)
    assert "re-modulation" in result.provenance["plain_because"] and "text" not in result.provenance
    engine.close()


def test_a_fusion_at_reduced_size_emphasizes_the_same_objects(tiny_text_checkpoint, pair):
    engine = Engine(lambda *report: None)
    config = FusionNodeConfig(model=str(tiny_text_checkpoint), device="cpu")
    engine.open(config, (48, 64))
    visible, infrared = (np.repeat(np.repeat(image, 2, 0), 2, 1) for image in pair)
    detections = square_detections(infrared.shape)
    plain = engine.fuse(visible, infrared, HALF_SIZE)
    result = engine.fuse(visible, infrared, HALF_SIZE, detections.emphasis())
    small = detections.emphasis().resized(35, 23)
    assert small.objects is not None and small.objects.shape == small.strengths.shape == (23, 35)
    assert np.array_equal(small.objects > 0, small.strengths > 0)
    changed = (result.image != plain.image).any(2)
    assert changed[detections.localization.label_map() > 0].mean() > 0.3
    assert result.mask is not None and result.mask.shape == infrared.shape
    assert not changed[result.mask == 0].any() and (result.mask == 0).mean() > 0.5
    assert "plain_because" not in result.provenance
    engine.close()


def test_a_fuser_without_re_modulation_refuses_to_emphasize(tiny_checkpoint):
    """The engine relies on this."""
    with pytest.raises(CheckpointError):
        Fuser.from_config(FuserConfig(model=str(tiny_checkpoint))).require_modulation()
