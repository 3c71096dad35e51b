"""The fuser in service: restoring one source, failing devices, reloading, smaller images."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from typing import Any

import numpy as np
import pytest
import torch

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import DeviceError, ImageError, TextDifuseError
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.result import FusionResult
from textdifuse_ros.fusion.weights import save_networks
from textdifuse_ros.image.intake import AlignedPair
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.networks.fusion_control import FusionControl
from textdifuse_ros.runtime.engine import Engine, FusionRequest, is_device_failure
from textdifuse_ros.runtime.processor import PairProcessor

FULL = FusionRequest(4, "ddim", 0)
ONE_STEP, HALF_SIZE = FusionRequest(1, "ddim", 0), FusionRequest(1, "ddim", 0, 0.5)


@pytest.fixture(scope="module")
def fuser(tiny_checkpoint) -> Fuser:
    return Fuser.from_config(FuserConfig(model=str(tiny_checkpoint)))


# ---- one source restored


def test_restoring_one_source_neither_needs_nor_resembles_the_other(fuser, pair):
    visible, infrared = pair
    alone, warm = fuser.restore(visible=visible), fuser.restore(infrared=infrared)
    assert alone.image.shape == warm.image.shape == visible.shape
    assert alone.provenance["sources"] == "visible" and warm.provenance["sources"] == "infrared"
    assert not np.array_equal(alone.image, fuser.fuse(visible, infrared).image)
    assert not np.array_equal(alone.image, warm.image)
    spread = warm.image.max(2).astype(int) - warm.image.min(2)
    assert spread.max() <= 1, "infrared has no color"
    np.testing.assert_array_equal(fuser.restore(visible=visible).image, alone.image)


def test_restoring_brings_back_what_the_fusion_control_would_pass_through(fuser, pair, monkeypatch):
    """With a control that takes the visible features alone, fusing is restoring."""
    visible, infrared = pair
    expected = fuser.restore(visible=visible).image
    monkeypatch.setattr(
        FusionControl, "weigh_sources", lambda self, x, y: (x, tuple(torch.zeros_like(level) for level in x))
    )
    difference = np.abs(fuser.fuse(visible, infrared).image.astype(int) - expected)
    assert difference.max() <= 2, "the same but for sums in another order"


@pytest.mark.parametrize("given", [{}, {"visible": 1, "infrared": 1}])
def test_restore_takes_one_source(fuser, given):
    with pytest.raises(ValueError, match="one of them"):
        fuser.restore(**given)


def test_restore_checks_its_image(fuser, pair):
    with pytest.raises(ImageError):
        fuser.restore(infrared=pair[0])


# ---- a device that fails


class Failing:
    """A fuser on a device that fails as told; ``after`` images went well."""

    device, model_name, weights = "cuda:0", "tiny", "w"

    def __init__(self, error: Exception, after: int = 0) -> None:
        self.error, self.left = error, after

    def close(self) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    def fuse(self, visible: np.ndarray, infrared: np.ndarray, **given: Any) -> Any:
        if self.left:
            self.left -= 1
            return FusionResult(visible, {}, {})
        raise self.error


OUT_OF_MEMORY = DeviceError("the memory of cuda:0", "enough", "too little for 640 x 480 pixels")
VANISHED = RuntimeError("CUDA error: the launch timed out and was terminated")


class Service:
    """An engine whose fusers are made by ``make(config)``, and a clock of its own."""

    def __init__(self, monkeypatch, make: Any, config: FusionNodeConfig) -> None:
        self.now, self.made = 0.0, 0
        self.lines: list[str] = []

        def made(config: FuserConfig) -> Any:
            self.made += 1
            return make(config)

        monkeypatch.setattr(Fuser, "from_config", made)
        self.config = config
        self.engine = Engine(lambda reason, text: self.lines.append(f"{reason}: {text}"), lambda: self.now)
        self.engine.open(config, (48, 64), fall_back_to_cpu=config.on_device_error == "cpu", go_on=lambda: False)

    def fuse(self, pair: Any) -> Any:
        return self.engine.fuse(*pair, FULL)


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, VANISHED], ids=["out of memory", "vanished"])
def test_with_cpu_the_networks_move_at_the_first_failure_and_the_pair_is_not_lost(
    monkeypatch, tiny_checkpoint, pair, error
):
    from_config = Fuser.from_config
    config = FusionNodeConfig(model=str(tiny_checkpoint), device="cuda:0", on_device_error="cpu")
    service = Service(
        monkeypatch, lambda config: from_config(config) if config.device == "cpu" else Failing(error), config
    )
    expected = from_config(FuserConfig(model=str(tiny_checkpoint), device="cpu")).fuse(*pair).image
    np.testing.assert_array_equal(service.fuse(pair).image, expected)
    assert service.engine.status["device"] == "cpu"
    assert any("cuda:0 failed" in line and "falling back to the CPU" in line for line in service.lines)
    service.fuse(pair)
    assert service.made == 2, "it stays there"


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, VANISHED], ids=["out of memory", "vanished"])
def test_with_retry_the_device_is_taken_again_at_growing_intervals_and_serves_when_it_is_back(monkeypatch, pair, error):
    back = []
    service = Service(monkeypatch, lambda config: Failing(error, 100 if back else 0), FusionNodeConfig(device="cuda:0"))
    attempts = []
    for tick in range(600):
        service.now = tick / 10
        before = service.made
        with pytest.raises((DeviceError, RuntimeError)):
            service.fuse(pair)
        if service.made > before:
            attempts.append(service.now)
    gaps = np.diff(attempts)
    assert len(attempts) >= 4 and np.all(gaps[1:] > 1.5 * gaps[:-1]), attempts
    back.append(True)
    service.now += 100
    assert service.fuse(pair).image is pair[0]
    assert service.engine.status["device"] == "cuda:0"
    assert any("was reopened" in line for line in service.lines)


def test_an_image_that_is_no_good_is_not_the_devices_fault(monkeypatch, tiny_checkpoint, pair):
    service = Service(monkeypatch, Fuser.from_config, FusionNodeConfig(model=str(tiny_checkpoint), device="cpu"))
    for _ in range(5):
        with pytest.raises(ImageError):
            service.fuse((pair[0], pair[0]))
    assert service.made == 1
    assert not is_device_failure(ImageError("a", "b", "c")) and is_device_failure(VANISHED)


# ---- reloading, closing, scaling


def test_reloading_takes_new_weights_and_keeps_the_old_ones_where_the_new_are_no_good(tiny_checkpoint, tmp_path, pair):
    path = tmp_path / "weights.safetensors"
    shutil.copy(tiny_checkpoint, path)
    config = FusionNodeConfig(model=str(path), device="cpu")
    engine = Engine(lambda reason, text: None)
    with pytest.raises(TextDifuseError, match="the node must be active, got without weights"):
        engine.reload()
    engine.open(config, (48, 64))
    before = engine.fuse(*pair, FULL)
    path.write_bytes(b"nothing")
    with pytest.raises(TextDifuseError):
        engine.reload()
    np.testing.assert_array_equal(engine.fuse(*pair, FULL).image, before.image)
    from conftest import TINY

    torch.manual_seed(7)
    save_networks(path, DriveNetworks(DriveConfig(**TINY)), {"made by": "the tests"})
    digest = engine.reload()
    after = engine.fuse(*pair, FULL)
    assert digest == after.provenance["weights"] != before.provenance["weights"]
    assert not np.array_equal(after.image, before.image)


def test_a_hanging_fusion_does_not_keep_the_engine_from_closing_and_opening(monkeypatch, pair):
    entered, release, ended = (threading.Event() for _ in range(3))

    class Hanging(Failing):
        def fuse(self, *args: Any, **given: Any) -> Any:
            entered.set()
            release.wait(120)
            ended.set()
            raise self.error

    monkeypatch.setattr("textdifuse_ros.runtime.engine.CLOSE_TIMEOUT", 0.05)
    kinds = [Hanging(VANISHED), Failing(VANISHED, 5)]
    service = Service(monkeypatch, lambda config: kinds.pop(0), FusionNodeConfig())

    def fuse() -> None:
        with pytest.raises(Exception, match="CUDA"):
            service.fuse(pair)

    thread = threading.Thread(target=fuse)
    thread.start()
    assert entered.wait(10)
    service.engine.close()
    service.engine.open(service.config, (48, 64), go_on=lambda: False)
    assert not ended.is_set(), "closing does not wait for it"
    assert service.fuse(pair).image is pair[0]
    release.set()
    thread.join(10)


def test_a_smaller_scale_costs_less_and_gives_the_size_that_came_in(tiny_checkpoint, fuser):
    rng = np.random.default_rng(0)
    visible = rng.integers(0, 256, (96, 130, 3), dtype=np.uint8)
    infrared = rng.integers(0, 256, (96, 130), dtype=np.uint16) * 100
    config = FusionNodeConfig(model=str(tiny_checkpoint), device="cpu")
    engine = Engine(lambda reason, text: None)
    engine.open(config, (48, 64))
    whole = engine.fuse(visible, infrared, ONE_STEP)
    small = engine.fuse(visible, infrared, HALF_SIZE)
    alone = engine.fuse(visible, None, HALF_SIZE)
    assert small.image.shape == alone.image.shape == whole.image.shape == (96, 130, 3)
    assert small.provenance["scale"] == "0.5" and "scale" not in whole.provenance
    assert not np.array_equal(small.image, whole.image)
    assert engine.memory()["resident"] > 10


class NamedObjects:
    """A text source that knows the objects."""

    def __init__(self, emphasis: Emphasis) -> None:
        self.found = emphasis

    def detect(self, visible: Any, infrared: Any, stamp: float) -> NamedObjects:
        return self

    def emphasis(self) -> Emphasis:
        return self.found

    def metadata(self) -> dict[str, Any]:
        return {}


def test_a_smaller_scale_too_changes_nothing_outside_what_is_named(tiny_text_checkpoint):
    rng = np.random.default_rng(1)
    visible = rng.integers(0, 256, (97, 130, 3), dtype=np.uint8)
    infrared = rng.integers(0, 256, (97, 130), dtype=np.uint8)
    strengths = np.zeros((97, 130), np.float32)
    strengths[30:61, 41:70] = 1
    config = FusionNodeConfig(model=str(tiny_text_checkpoint), device="cpu")
    engine = Engine(lambda reason, text: None)
    engine.open(config, (48, 64))
    processor = PairProcessor(engine, NamedObjects(Emphasis(strengths)))
    plain_processor = PairProcessor(engine)
    for video in (False, True):
        request = dataclasses.replace(HALF_SIZE, keep_plain=video)
        pair = AlignedPair(visible, infrared)
        for each in (processor, plain_processor):
            each.reset()
        plain = plain_processor.process(pair, request, video=video)
        named = processor.process(pair, request, video=video)
        changed = (named.image != plain.image).any(2)
        assert changed[strengths > 0].mean() > 0.2
        assert not changed[strengths == 0].any()
        assert not named.mask[strengths == 0].any() and not changed[named.mask == 0].any()
