"""Thermal gain over a stream of images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdifuse_ros.config.sensors import GAINS, SensorConfig
from textdifuse_ros.errors import ImageError
from textdifuse_ros.image.gain import ThermalGain, estimate_noise, plateau_curve
from textdifuse_ros.image.thermal import to_uint8

FRAME_NS = 33_333_333
SMOOTHED = ("percentiles", "plateau", "minmax")


def scene(seed: int = 0, level: float = 29500.0, span: float = 600.0) -> np.ndarray:
    """Noise-free counts of a street, float64 [60, 80]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :80]
    image = level + span * (0.3 * y / 60 + 0.2 * np.sin(x / 9.0))
    for _ in range(6):
        top, left = rng.integers(0, 50), rng.integers(0, 70)
        image[top : top + 9, left : left + 7] += rng.uniform(0.2, 0.5) * span
    return image


def noisy(image: np.ndarray, index: int, sigma: float = 5.0) -> np.ndarray:
    rng = np.random.default_rng(1000 + index)
    return np.rint(image + rng.normal(0, sigma, image.shape)).astype(np.uint16)


def flicker(config: SensorConfig, frames: int = 60) -> float:
    """Standard deviation over time of the mean grey level of a static scene with a blinking hot object."""
    gain, still = ThermalGain(config), scene()
    means = []
    for index in range(frames):
        image = still.copy()
        if index % 3 == 0:
            image[:6, :10] += 500
        means.append(gain.apply(noisy(image, index), index * FRAME_NS)[10:].mean())
    return float(np.std(np.diff(means[15:])))


@pytest.mark.parametrize("kind", SMOOTHED)
def test_smoothing_reduces_flicker_of_a_static_noisy_scene(kind):
    alone = flicker(SensorConfig(gain=kind, gain_time_constant=0.0))
    smoothed = flicker(SensorConfig(gain=kind))
    assert alone > 0.2, "the scene must make the unsmoothed gain flicker for this test to be meaningful"
    assert smoothed < alone / 5


@pytest.mark.parametrize("kind", SMOOTHED)
def test_a_small_step_is_followed_within_three_time_constants(kind):
    config = SensorConfig(gain=kind)
    gain, before, after = ThermalGain(config), noisy(scene(), 0), noisy(scene(level=29580.0), 1)
    target = ThermalGain(config).apply(after, 0).astype(int)
    for index in range(30):
        gain.apply(before, index * FRAME_NS)
    first = np.abs(gain.apply(after, 30 * FRAME_NS) - target).mean()
    frames = round(3 * config.gain_time_constant * 1e9 / FRAME_NS)
    for index in range(31, 31 + frames):
        last = gain.apply(after, index * FRAME_NS)
    assert first > 5 and np.abs(last - target).mean() < 0.08 * first + 0.5


@pytest.mark.parametrize("kind", SMOOTHED)
def test_a_cut_and_a_jump_back_in_time_reset_the_mapping_at_once(kind):
    config = SensorConfig(gain=kind)
    night, day = noisy(scene(), 0), noisy(scene(3, level=30500.0), 1)
    gain = ThermalGain(config)
    gain.apply(night, 10 * FRAME_NS)
    assert np.array_equal(gain.apply(day, 11 * FRAME_NS), ThermalGain(config).apply(day, 0))
    near = noisy(scene(3, level=30530.0), 2)
    assert not np.array_equal(gain.apply(near, 12 * FRAME_NS), ThermalGain(config).apply(near, 0))
    assert np.array_equal(gain.apply(near, 5 * FRAME_NS), ThermalGain(config).apply(near, 0))
    gain.reset()
    assert np.array_equal(gain.apply(night, 6 * FRAME_NS), ThermalGain(config).apply(night, 0))


@pytest.mark.parametrize("kind", ("percentiles", "plateau"))
@pytest.mark.parametrize("closed_for", (1, 15, 45))
@pytest.mark.parametrize("offset", (0.0, 400.0))
def test_a_closed_shutter_looks_uniform_and_does_not_change_the_mapping(kind, closed_for, offset):
    gain, still = ThermalGain(SensorConfig(gain=kind)), scene()
    for index in range(30):
        before = gain.apply(noisy(still, index), index * FRAME_NS)
    for index in range(30, 30 + closed_for):
        closed = gain.apply(noisy(np.full_like(still, np.median(still) + offset), index), index * FRAME_NS)
    after = gain.apply(noisy(still, 29), (30 + closed_for) * FRAME_NS)
    assert closed.std() < 0.25 * before.std()
    assert np.abs(after.astype(int) - before).max() <= 12


@pytest.mark.parametrize("kind", ("percentiles", "plateau"))
def test_a_uniform_scene_that_persists_is_not_taken_for_a_shutter(kind):
    gain, still = ThermalGain(SensorConfig(gain=kind)), scene()
    gain.apply(noisy(still, 0), 0)
    even = 29900.0 + 0.05 * (still - still.mean())
    for index in range(1, 150):
        shown = gain.apply(noisy(even, index, sigma=0.5), index * FRAME_NS)
    assert abs(float(shown.mean()) - 128) < 40 and shown.std() > 8


def test_the_shutter_timer_restarts_when_time_goes_back():
    gain, still, second = ThermalGain(SensorConfig()), scene(), 10**9
    even = np.full_like(still, 30400.0)
    gain.apply(noisy(still, 0), 10 * second)
    gain.apply(noisy(even, 1), 10 * second + FRAME_NS)
    gain.apply(noisy(still, 2), second)
    for index in range(3, 150):
        shown = gain.apply(noisy(even, index), second + (index - 2) * FRAME_NS)
    assert abs(float(shown.mean()) - 128) < 20


@pytest.mark.parametrize("kind", SMOOTHED)
@pytest.mark.parametrize("level", (29500.0, 31000.0))
def test_a_low_contrast_scene_is_not_taken_for_a_shutter(kind, level):
    """From a street to a wall with a tenth of the span, but visible structure."""
    gain = ThermalGain(SensorConfig(gain=kind))
    for index in range(30):
        gain.apply(noisy(scene(span=2500.0), index), index * FRAME_NS)
    wall = scene(level=level, span=250.0)
    shown = [gain.apply(noisy(wall, index), index * FRAME_NS) for index in range(30, 75)]
    assert shown[-1].std() > 25 and (level == 29500.0 or shown[0].std() > 25)


@pytest.mark.parametrize("kind", SMOOTHED)
def test_a_small_span_without_noise_fills_the_range(kind):
    fog = np.rint(scene(level=120.0, span=20.0)).astype(np.uint16)
    shown = ThermalGain(SensorConfig(gain=kind)).apply(fog, 0)
    assert int(shown.max()) - int(shown.min()) > 150


def test_the_noise_of_a_scene_is_estimated():
    for sigma in (2.0, 8.0, 30.0):
        assert abs(estimate_noise(noisy(scene(span=600.0), 0, sigma)) - sigma) < 0.25 * sigma


@pytest.mark.parametrize("kind", ("percentiles", "minmax"))
def test_a_jump_of_the_median_alone_is_not_a_cut(kind):
    """Half of the image is cold and half is warm: a shift by one row moves the median, but no limit."""
    gain, changes = ThermalGain(SensorConfig(gain=kind)), []
    shown = None
    for index in range(60):
        halves = np.full((60, 80), 29000.0)
        halves[29 + index % 3 :] = 29600.0
        before, shown = shown, gain.apply(noisy(halves, index), index * FRAME_NS)
        if index > 30:
            changes.append(abs(float(shown[40:].mean()) - float(before[40:].mean())))
    assert max(changes) < 0.3


@pytest.mark.parametrize("kind", SMOOTHED)
def test_a_jump_in_temperature_resets_like_a_jump_in_counts(kind):
    config = SensorConfig(gain=kind)
    gain = ThermalGain(config)
    before, after = ((noisy(scene(level=level), 0) * 0.01).astype(np.float32) for level in (29500.0, 29900.0))
    gain.apply(before, 0)
    assert np.array_equal(gain.apply(after, FRAME_NS), ThermalGain(config).apply(after, 0))


@pytest.mark.parametrize("kind", SMOOTHED)
def test_the_noise_of_a_uniform_scene_is_not_amplified(kind):
    even = noisy(np.full((60, 80), 29500.0), 0, sigma=4.0)
    quiet = ThermalGain(SensorConfig(gain=kind)).apply(even, 0)
    assert quiet.std() < 12 and abs(float(quiet.mean()) - 128) < 20


def test_the_first_image_is_mapped_like_a_single_file():
    image = noisy(scene(), 0)
    assert np.array_equal(ThermalGain(SensorConfig()).apply(image, 5), to_uint8(image))


def test_a_fixed_range_gives_the_same_result_for_counts_kelvin_and_celsius():
    config = SensorConfig(gain="fixed", gain_fixed_low=280.0, gain_fixed_high=305.5, kelvin_per_count=0.04,
                          kelvin_offset=100.0)  # fmt: skip
    kelvin = np.linspace(270, 315, 60 * 80).reshape(60, 80)
    counts = np.rint((kelvin - 100.0) / 0.04).astype(np.uint16)
    celsius = dataclasses.replace(config, thermal_unit="celsius")
    results = [
        ThermalGain(config).apply(counts, 0),
        ThermalGain(config).apply(kelvin.astype(np.float32), 0),
        ThermalGain(celsius).apply((kelvin - 273.15).astype(np.float32), 0),
    ]
    expected = np.clip((kelvin - 280.0) * 10, 0, 255)
    for result in results:
        assert np.abs(result - expected).max() <= 1.0


def test_plateau_equalization_shows_detail_that_a_linear_stretch_compresses():
    """A street within 60 counts and a much hotter furnace: a linear stretch leaves the street uniformly grey."""
    rng = np.random.default_rng(0)
    image = rng.integers(29000, 29060, (60, 80)).astype(np.uint16)
    image[:10, :10] = rng.integers(36000, 36020, (10, 10))
    street = np.s_[20:]
    flat = ThermalGain(SensorConfig()).apply(image, 0)
    spread = ThermalGain(SensorConfig(gain="plateau", gain_plateau=20.0)).apply(image, 0)
    assert flat[street].std() < 2 and spread[street].std() > 4 * max(flat[street].std(), 0.5)
    assert spread[0, 0] > spread[street].max()


@settings(max_examples=40, deadline=None)
@given(
    low=st.integers(0, 60000),
    span=st.integers(0, 5000),
    plateau=st.floats(1, 50),
    min_span=st.floats(0, 500),
    seed=st.integers(0, 99),
)
def test_a_plateau_curve_is_monotonic_and_limits_contrast(low, span, plateau, min_span, seed):
    image = np.random.default_rng(seed).integers(low, low + span + 1, (20, 30)).astype(np.uint16)
    curve = plateau_curve(image, low, low + span, plateau, min_span)
    steps = np.diff(curve)
    assert curve.min() >= 0 and curve.max() <= 1 and steps.min() >= -1e-6
    if min_span > 1:
        assert steps.max() <= 1 / min_span + 1e-5


@pytest.mark.parametrize("kind", GAINS)
def test_the_same_stream_gives_the_same_bytes(kind):
    def play() -> list[bytes]:
        gain = ThermalGain(SensorConfig(gain=kind))
        return [gain.apply(noisy(scene(), i), i * FRAME_NS).tobytes() for i in range(5)]

    assert play() == play()


def test_eight_bit_images_pass_unchanged_and_invalid_images_are_rejected():
    gain = ThermalGain(SensorConfig())
    eight = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert gain.apply(eight, 0) is eight
    hot = np.ones((8, 8), np.float32)
    hot[2, 2] = np.nan
    with pytest.raises(ImageError, match="1 of 64 pixels NaN"):
        gain.apply(hot, 0)
    dead = np.linspace(280, 300, 30 * 40, dtype=np.float32).reshape(30, 40)
    dead[5, 5], dead[9, 9] = np.nan, np.inf
    shown = gain.apply(dead, 0, valid=np.isfinite(dead))
    assert abs(int(shown[5, 5]) - int(shown[5, 6])) < 9 and abs(int(shown[9, 9]) - int(shown[9, 8])) < 9
    with pytest.raises(ImageError, match="uint8, uint16 or float"):
        gain.apply(np.zeros((8, 8, 3), np.uint16), 0)


def test_a_change_of_the_gain_method_resets_the_mapping():
    gain = ThermalGain(SensorConfig())
    gain.apply(noisy(scene(), 0), 0)
    gain.config = SensorConfig(gain="plateau")
    image = noisy(scene(level=29530.0), 1)
    assert np.array_equal(gain.apply(image, FRAME_NS), ThermalGain(gain.config).apply(image, 0))
