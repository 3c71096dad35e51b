"""The text in service, without ROS: loading, changing and losing localizers, and fusing with what they found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from textdifuse_ros.config.base import FuserConfig, from_mapping
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import CheckpointError, ConfigError
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.localize.base import Instance, Localization, mask_box
from textdifuse_ros.localize.prompt import Prompt, parse_prompt
from textdifuse_ros.runtime import text_target
from textdifuse_ros.runtime.engine import Engine, FusionRequest
from textdifuse_ros.runtime.key_frames import MaskProvenance
from textdifuse_ros.runtime.text_target import Detections, TextTarget

FIXED = FusionNodeConfig(
    localizer="fixed", regions="person 5 5 25 25; car 40 10 60 30", target_text="person", localize_rate=100.0
)


class Gate:
    """A localizer that finds one square, and looks until it is let go."""

    name, vocabulary = "gate", None

    def __init__(self) -> None:
        self.open, self.begun, self.closed = threading.Event(), threading.Event(), threading.Event()

    def locate(self, visible: np.ndarray, infrared: np.ndarray, prompt: Prompt) -> Localization:
        self.begun.set()
        assert self.open.wait(30)
        mask = np.zeros(infrared.shape, bool)
        mask[5:25, 5:25] = True
        return Localization((Instance(mask, mask_box(mask), 0.9, 1),), infrared.shape, prompt.phrases)

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def target(said) -> Iterator[TextTarget]:
    target = TextTarget(lambda reason, line: said.append(f"{reason}: {line}"))
    yield target
    assert target.close(10.0)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Stream:
    """Looks at one image again and again, a tenth of a second apart."""

    def __init__(self, target: TextTarget, pair: tuple[np.ndarray, np.ndarray]) -> None:
        self.target, self.pair, self.stamp = target, pair, 100.0

    def next(self) -> Detections:
        self.stamp += 0.001
        found = self.target.detect(*self.pair, self.stamp)
        assert found is not None
        return found

    def until(self, state: str) -> Detections:
        found = self.next()
        deadline = time.monotonic() + 20
        while found.provenance.state != state:
            assert time.monotonic() < deadline, found.provenance
            time.sleep(0.005)
            found = self.next()
        return found


def test_a_text_that_comes_while_it_runs_is_loaded_for_beside_the_stream_and_an_empty_one_lets_go(
    target, pair, monkeypatch
):
    gate, asked = Gate(), threading.Event()

    def slow(config: Any) -> Gate:
        assert asked.wait(30)
        return gate

    monkeypatch.setattr(text_target, "make_localizer", slow)
    target.open(replace(FIXED, target_text=""))
    assert target.detect(*pair, 1.0) is None, "no text, no localizer"
    target.apply(FIXED)
    stream = Stream(target, pair)
    found = stream.next()
    assert (found.provenance.state, found.provenance.text) == ("waiting", "person") and not found.localization
    target.apply(replace(FIXED, target_text="person:0.5", target_strength=2.0))
    asked.set(), gate.open.set()
    found = stream.until("located")
    assert found.localization.label_map()[10, 10] == 1
    assert found.provenance.text == "person:0.5", "the text of now, not that of when it was loaded"
    assert found.emphasis().strengths.max() == 1.0, "half of two"
    target.apply(replace(FIXED, target_text=" , "))
    assert target.detect(*pair, 300.0) is None and target.status()["masks"] == "off"
    assert gate.closed.wait(10)


def test_a_look_that_was_begun_for_another_text_gives_no_mask(target, pair, monkeypatch):
    gate = Gate()
    monkeypatch.setattr(text_target, "make_localizer", lambda config: gate)
    target.open(FIXED)
    stream = Stream(target, pair)
    stream.next()
    assert gate.begun.wait(10)
    target.apply(replace(FIXED, target_text="car"))
    assert target.status()["masks"] == "waiting" and target.status()["target"] == "car"
    gate.begun.clear()
    gate.open.set()
    states = []
    while not states or states[-1] != "located":
        found = stream.next()
        states.append(found.provenance.state)
        assert bool(found.localization) == (states[-1] == "located"), "no mask of the old text on the way"
        assert [phrase.text for phrase in found.localization.phrases] == ["car"]
        time.sleep(0.005)
    assert states[0] == "waiting"


def test_a_localizer_that_hangs_holds_nothing_up_and_is_told_of_at_the_end(pair, monkeypatch):
    gate = Gate()
    monkeypatch.setattr(text_target, "make_localizer", lambda config: gate)
    target = TextTarget(lambda reason, line: None)
    target.open(FIXED)
    Stream(target, pair).next()
    assert gate.begun.wait(10)
    target.apply(replace(FIXED, target_text=""))
    assert target.detect(*pair, 200.0) is None
    assert not target.close(0.05), "its thread has not ended"
    gate.open.set()
    assert target.close(10.0) and gate.closed.is_set()


def test_what_the_localizer_does_not_look_at_may_change_beside_it(target, said, pair):
    target.open(FIXED)
    stream = Stream(target, pair)
    stream.until("located")
    for changed in ({"nms_iou": 0.9}, {"localizer_threshold": 0.7}, {"detector": "/nowhere"}):
        target.apply(replace(FIXED, **changed))
        assert stream.next().localization, "the masks stay"
    assert said == []


def test_a_changed_localizer_replaces_the_old_one_and_one_that_cannot_be_had_is_named(target, said, pair):
    target.open(FIXED)
    stream = Stream(target, pair)
    assert stream.until("located").localization.label_map()[10, 10] == 1
    target.apply(replace(FIXED, regions="person 30 30 40 40"))
    assert not stream.next().localization, "never the old one's masks"
    assert stream.until("located").localization.label_map()[35, 35] == 1
    target.apply(replace(FIXED, regions="/nowhere/regions.txt"))
    found = stream.until("failed")
    assert not found.localization and found.provenance.error.startswith("parameter regions: ")
    assert said == [f"localizer not loaded: {found.provenance.error}"] and "parameter regions" in target.problem
    target.apply(replace(FIXED, regions="/nowhere/regions.txt", steps=2))
    assert len(said) == 1, "another parameter is no reason to try again"
    target.apply(FIXED)
    assert stream.until("located").localization
    assert target.problem == ""


def test_forgetting_everything_makes_the_next_image_a_key_frame(target, pair):
    target.open(FIXED)
    stream = Stream(target, pair)
    stream.until("located")
    target.reset()
    assert stream.next().provenance.state == "waiting"
    assert stream.until("located").localization


def test_an_image_that_was_restored_alone_has_empty_masks_and_says_so(target, pair):
    target.open(FIXED)
    for alone in ((pair[0], None), (None, pair[1])):
        found = target.detect(*alone, 1.0)
        assert found.provenance.state == "alone" and not found.localization.label_map().any()
        assert found.localization.size == (45, 70)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"localizer": "builtin", "target_text": "person, unicorn"}, "target_text must be classes that"),
        ({"localizer": "builtin", "localizer_model": "/no/such.safetensors"}, "parameter localizer_model: "),
        ({"localizer": "fixed", "regions": ""}, "regions must be given for the fixed localizer"),
        ({"localizer": "fixed", "regions": "/no/such.png"}, "parameter regions: "),
        ({"localizer": "builtin", "localizer_device": "cuda:99"}, "localizer_device"),
    ],
)
def test_what_is_wrong_at_the_start_is_refused_by_the_parameters_name(target, changes, said):
    with pytest.raises(ConfigError, match="^" + said.replace("(", r"\(") if said[0] != "l" else said):
        target.open(replace(FIXED, **changes))
    assert target.detect(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), 0.0) is None


@pytest.mark.parametrize(
    ("given", "text"), [(42, "42"), (1.5, "1.5"), (["person", "car"], "person, car"), (["person", 2], "person, 2")]
)
def test_numbers_and_lists_are_taken_as_text(given, text):
    assert from_mapping(FusionNodeConfig, {"target_text": given}).target_text == text


@pytest.mark.parametrize("given", [True, [True, "person"], None])
def test_what_is_no_text_is_refused_with_the_parameters_name(given):
    with pytest.raises(ConfigError, match=r"target_text must be text, got .*; put it in quotes"):
        from_mapping(FusionNodeConfig, {"target_text": given})


# ---- a fusion with objects


ONE_STEP, HALF_SIZE = FusionRequest(1, "ddim", 0), FusionRequest(1, "ddim", 0, 0.5)


def found_square(shape: tuple[int, int], strength: float = 1.0) -> Detections:
    mask = np.zeros(shape, bool)
    mask[8:30, 10:40] = True
    phrases = parse_prompt("person, car").phrases
    objects = Localization((Instance(mask, mask_box(mask), 0.75, 2, track=7, stamp=12.5),), shape, phrases)
    return Detections(objects, MaskProvenance("person, car", "located", 12.5, "gate", 0.1), strength)


def test_a_model_without_re_modulation_fuses_plainly_and_says_why(tiny_checkpoint, pair):
    engine = Engine(lambda *report: None)
    config = FusionNodeConfig(model=str(tiny_checkpoint), device="cpu")
    engine.open(config, (48, 64))
    plain = engine.fuse(*pair, ONE_STEP)
    result = engine.fuse(*pair, ONE_STEP, found_square(pair[1].shape).emphasis())
    np.testing.assert_array_equal(result.image, plain.image)
    assert "re-modulation" in result.provenance["plain_because"] and "text" not in result.provenance
    engine.close()


def test_a_smaller_fusion_emphasises_the_same_objects(tiny_text_checkpoint, pair):
    engine = Engine(lambda *report: None)
    config = FusionNodeConfig(model=str(tiny_text_checkpoint), device="cpu")
    engine.open(config, (48, 64))
    visible, infrared = (np.repeat(np.repeat(image, 2, 0), 2, 1) for image in pair)
    found = found_square(infrared.shape)
    plain = engine.fuse(visible, infrared, HALF_SIZE)
    result = engine.fuse(visible, infrared, HALF_SIZE, found.emphasis())
    small = found.emphasis().resized(35, 23)
    assert small.objects is not None and small.objects.shape == small.strengths.shape == (23, 35)
    assert np.array_equal(small.objects > 0, small.strengths > 0)
    changed = (result.image != plain.image).any(2)
    assert changed[found.localization.label_map() > 0].mean() > 0.3
    assert result.mask is not None and result.mask.shape == infrared.shape
    assert not changed[result.mask == 0].any() and (result.mask == 0).mean() > 0.5
    assert "plain_because" not in result.provenance
    engine.close()


def test_a_fuser_of_its_own_refuses_what_the_engine_leaves_out(tiny_checkpoint, pair):
    """What the engine relies on."""
    with pytest.raises(CheckpointError):
        Fuser.from_config(FuserConfig(model=str(tiny_checkpoint))).require_modulation()
