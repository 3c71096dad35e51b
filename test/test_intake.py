"""Conversion of camera messages to aligned pairs, and the reasons for failures."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from calibrations import DISTORTIONS, camera_info

from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.config.sensors import SensorConfig
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.image import intake as reasons
from textdifuse_ros.image.intake import IntakeError, SensorIntake
from textdifuse_ros.image.thermal import to_uint8

CHANNELS = {"mono8": 1, "mono16": 2, "rgb8": 3, "32FC1": 4, "rgb16": 6}


def header(stamp_ns: int = 1_000_000_000) -> Any:
    return SimpleNamespace(stamp=SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id="camera")


def raw(image: np.ndarray, encoding: str, stamp_ns: int = 1_000_000_000) -> Any:
    return SimpleNamespace(
        header=header(stamp_ns), height=image.shape[0], width=image.shape[1], encoding=encoding, is_bigendian=0,
        step=image.shape[1] * CHANNELS[encoding], data=np.frombuffer(image.tobytes(), np.uint8),
    )  # fmt: skip


def compressed(image: np.ndarray, form: str, ending: str, stamp_ns: int = 1_000_000_000) -> Any:
    if image.ndim == 3:
        image = image[:, :, ::-1]
    return SimpleNamespace(header=header(stamp_ns), format=form, data=cv2.imencode(ending, image)[1].reshape(-1))


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    visible = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 2)
    counts = cv2.GaussianBlur(rng.integers(28000, 31000, (120, 160)).astype(np.float32), (0, 0), 2)
    return visible, counts.astype(np.uint16)


def test_raw_and_compressed_messages_give_the_same_pair(images):
    visible, counts = images
    for visible_message in (raw(visible, "rgb8"), compressed(visible, "rgb8; png compressed bgr8", ".png")):
        for infrared_message in (raw(counts, "mono16"), compressed(counts, "mono16; png compressed ", ".png")):
            pair = SensorIntake(SensorConfig()).align(visible_message, infrared_message)
            assert np.array_equal(pair.visible, visible) and np.array_equal(pair.infrared, to_uint8(counts))


def test_a_grey_visible_camera_and_a_float_infrared_camera_are_supported(images):
    visible, counts = images
    grey = visible[..., 0].copy()
    kelvin = (counts * 0.01).astype(np.float32)
    intake = SensorIntake(SensorConfig(gain="fixed", gain_fixed_low=280.0, gain_fixed_high=310.0))
    pair = intake.align(raw(grey, "mono8"), raw(kelvin, "32FC1"))
    assert all(np.array_equal(pair.visible[..., c], grey) for c in range(3))
    assert np.abs(pair.infrared - np.clip((kelvin - 280) / 30 * 255, 0, 255)).max() <= 1


@pytest.mark.parametrize(
    ("corrupt", "reason"),
    [
        (lambda v, i: setattr(v, "encoding", "rgb565"), reasons.BAD_VISIBLE),
        (lambda v, i: setattr(v, "data", v.data[:50]), reasons.BAD_VISIBLE),
        (lambda v, i: setattr(i, "step", 3), reasons.BAD_INFRARED),
        (lambda v, i: setattr(i, "height", 60), reasons.SIZE_MISMATCH),
        (lambda v, i: setattr(i, "height", 4), reasons.BAD_INFRARED),
    ],
)
def test_an_invalid_message_is_reported_with_its_reason(images, corrupt, reason):
    visible, infrared = raw(images[0], "rgb8"), raw(images[1], "mono16")
    corrupt(visible, infrared)
    with pytest.raises(IntakeError) as caught:
        SensorIntake(SensorConfig()).align(visible, infrared)
    assert caught.value.reason == reason and "must be" in str(caught.value)


def test_an_invalid_calibration_is_reported_until_a_valid_one_arrives(images):
    intake = SensorIntake(SensorConfig(rectify=True))
    messages = raw(images[0], "rgb8"), raw(images[1], "mono16")
    assert intake.required_calibrations == ("visible", "infrared")
    intake.set_calibration("visible", camera_info(d=DISTORTIONS["plumb_bob"]))
    intake.set_calibration("infrared", camera_info(d=(0.1, 0.2)))
    for fit in (False, True):
        if fit:
            intake.set_calibration("infrared", camera_info(d=DISTORTIONS["equidistant"], model="equidistant"))
            pair = intake.align(*messages)
            assert not np.array_equal(pair.visible, images[0]) and pair.infrared.shape == (120, 160)
        else:
            with pytest.raises(IntakeError) as caught:
                intake.align(*messages)
            assert caught.value.reason == reasons.NO_CALIBRATION and "4 or 5 coefficients" in str(caught.value)
    intake.set_calibration("visible", camera_info(size=(320, 240)))
    with pytest.raises(IntakeError, match="calibrate at the size"):
        intake.align(*messages)


def test_pairs_with_an_invalid_calibration_are_not_kept_in_memory(images):
    intake, references = SensorIntake(SensorConfig(rectify=True)), []
    intake.set_calibration("visible", camera_info())
    intake.set_calibration("infrared", camera_info(k=(0.0,) * 9))
    for _ in range(5):
        visible = raw(images[0], "rgb8")
        visible.data = visible.data.copy()
        references.append(weakref.ref(visible.data))
        with pytest.raises(IntakeError, match="calibrate the camera"):
            intake.align(visible, raw(images[1], "mono16"))
    del visible
    gc.collect()
    assert sum(data() is not None for data in references) <= 1


def test_the_visible_image_alone_needs_no_infrared_calibration(images):
    intake = SensorIntake(SensorConfig(rectify=True))
    intake.set_calibration("visible", camera_info())
    intake.set_calibration("infrared", camera_info(k=(0.0,) * 9))
    assert np.array_equal(intake.align(raw(images[0], "rgb8"), None).visible, images[0])


def test_sixteen_bit_color_infrared_is_scaled_and_not_stretched(images):
    grey = np.repeat(images[1][..., None] // 8, 3, 2)
    alone = SensorIntake(SensorConfig()).align(None, raw(grey, "rgb16")).infrared
    assert np.abs(alone.astype(int) - images[1] // 8 // 257).max() <= 1


@pytest.mark.parametrize("encoding", ["mono16", "rgb16"])
def test_a_12_bit_camera_fills_the_range(images, encoding):
    full = np.repeat(images[0][..., :1].astype(np.uint16) * 16, 1 if encoding == "mono16" else 3, 2).squeeze()
    shown = SensorIntake(SensorConfig(visible_bits=12)).align(raw(full, encoding), None).visible
    assert shown.dtype == np.uint16
    assert np.abs(to_uint8(shown)[..., 0].astype(int) - images[0][..., 0]).max() <= 1


def test_a_black_hot_camera_is_inverted(images):
    _, counts = images
    hot = SensorIntake(SensorConfig()).align(None, raw(counts, "mono16")).infrared
    turned = SensorIntake(SensorConfig(infrared_polarity="black_hot")).align(None, raw(counts, "mono16")).infrared
    assert np.array_equal(turned, 255 - hot)


def test_a_single_camera_gives_its_image(images):
    intake = SensorIntake(SensorConfig(registration="homography", infrared_homography=(1, 0, 9, 0, 1, 0, 0, 0, 1)))
    alone = intake.align(None, raw(images[1], "mono16"))
    assert alone.visible is None and np.array_equal(alone.infrared, to_uint8(images[1]))
    alone = intake.align(raw(images[0], "rgb8"), None)
    assert alone.infrared is None and np.array_equal(alone.visible, images[0])


def test_the_gain_is_smoothed_between_pairs_and_cleared_by_reset(images):
    visible, counts = images
    intake = SensorIntake(SensorConfig())
    later = (counts + 60).astype(np.uint16)
    intake.align(raw(visible, "rgb8"), raw(counts, "mono16", 1_000_000_000))
    references = intake.align(raw(visible, "rgb8"), raw(later, "mono16", 1_033_000_000)).infrared
    assert references.mean() > to_uint8(later).mean() + 2
    intake.reset()
    after = intake.align(raw(visible, "rgb8"), raw(later, "mono16", 1_066_000_000)).infrared
    assert np.array_equal(after, to_uint8(later))


def test_a_node_configuration_is_accepted_and_contradictions_are_rejected():
    assert isinstance(FusionNodeConfig(), SensorConfig)
    intake = SensorIntake(FusionNodeConfig(gain="minmax"))
    assert intake.config == SensorConfig(gain="minmax")
    intake.update_config(FusionNodeConfig(gain="plateau"))
    assert intake.config.gain == "plateau"
    with pytest.raises(ConfigError, match="infrared_translation"):
        SensorIntake(SensorConfig(infrared_translation=(0.0,)))
