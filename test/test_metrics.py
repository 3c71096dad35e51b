"""The metrics against values computed by hand and independent implementations."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from textdifuse_ros.errors import ImageError
from textdifuse_ros.metrics.color import delta_e_2000
from textdifuse_ros.metrics.detail import average_gradient, qabf
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.information import entropy, standard_deviation
from textdifuse_ros.metrics.similarity import correlation_inside, psnr, scd, ssim, ssim_day, vif, vif_moments
from textdifuse_ros.metrics.table import CLEAN_METRICS, clean_metrics
from textdifuse_ros.metrics.transfer import (
    feature_mutual_information,
    mutual_information,
    nonlinear_correlation,
    perceived_difference,
)

CONSTANT = np.full((48, 52), 37, np.uint8)
WHITE = np.full((48, 52), 255, np.uint8)


@pytest.fixture
def grey() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sources with structure and noise, and a fused image: uint8 [61, 74] each."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:61, :74]
    a = 120 + 60 * np.sin(x / 5) + 20 * np.cos(y / 9) + rng.normal(0, 6, x.shape)
    b = np.where((x - 40) ** 2 + (y - 30) ** 2 < 200, 210, 50) + rng.normal(0, 4, x.shape)
    fused = 0.6 * a + 0.5 * b - 20
    return tuple(np.clip(np.rint(image), 0, 255).astype(np.uint8) for image in (fused, a, b))


# EN, SD, AG


def test_entropy_of_equally_frequent_levels_is_the_logarithm_of_their_number() -> None:
    assert entropy(np.array([[0, 80], [160, 255]], np.uint8)) == 2
    assert entropy(np.array([[0, 0, 0, 255]], np.uint8)) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    assert entropy(np.arange(256, dtype=np.uint8).reshape(16, 16)) == 8


def test_entropy_of_a_constant_image_is_zero() -> None:
    assert math.copysign(1, entropy(CONSTANT)) == 1
    assert entropy(CONSTANT) == 0


def test_entropy_rounds_float_images_to_grey_levels() -> None:
    assert entropy(np.array([[10.4, 9.6], [99.5001, 100.2]])) == 1


def test_standard_deviation_is_that_of_the_population() -> None:
    assert standard_deviation(np.array([[1, 3], [5, 7]], np.uint8)) == pytest.approx(math.sqrt(5))
    assert standard_deviation(CONSTANT) == 0


def test_average_gradient_of_a_ramp() -> None:
    ramp = np.tile(np.array([0, 2, 4, 6], np.uint8), (3, 1))
    # 12 pixels of sqrt(2^2 / 2), over (3 - 1)(4 - 1)
    assert average_gradient(ramp) == pytest.approx(12 * math.sqrt(2) / 6)
    # A step: differences 0, 4, 4, 0 along x (central), in uint8 without wrapping downwards
    step = np.tile(np.array([8, 8, 0, 0], np.uint8), (2, 1))
    assert average_gradient(step) == pytest.approx(4 * 4 / math.sqrt(2) / 3)
    assert average_gradient(CONSTANT) == 0


# SCD


def test_scd_of_a_hand_computed_example() -> None:
    a = np.array([[1.0, 1.0], [-1.0, -1.0]]) + 100
    b = np.array([[1.0, -1.0], [1.0, -1.0]]) + 50
    # F - B = A - B / 2 and A: 4 / (2 sqrt 5); F - A and B: 1
    assert scd(a + b / 2, a, b) == pytest.approx(2 / math.sqrt(5) + 1)
    assert scd(a + b - 30, a, b) == pytest.approx(2)


def test_scd_of_constant_images_is_nan(grey: tuple[np.ndarray, ...]) -> None:
    _, a, b = grey
    assert math.isnan(scd(a, a, b))
    assert math.isnan(scd(b.astype(float) + 3, a, b))
    assert math.isnan(scd(a, a, np.full_like(b, 9)))


# VIF


def naive_vif(fused: np.ndarray, source: np.ndarray) -> float:
    """VIFp computed window by window, by definition."""
    fused, source = fused.astype(float), source.astype(float)
    preserved = total = 0.0
    for scale in (1, 2, 3, 4):
        size = 2 ** (5 - scale) + 1
        at = np.arange(size) - size // 2
        window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * (size / 5) ** 2))
        window /= window.sum()

        def windows(image: np.ndarray, size: int = size) -> np.ndarray:
            return np.lib.stride_tricks.sliding_window_view(image, (size, size))

        if scale > 1:
            fused, source = (np.sum(windows(each) * window, (2, 3))[::2, ::2] for each in (fused, source))
        f, s = windows(fused), windows(source)
        f = f - np.sum(f * window, (2, 3), keepdims=True)
        s = s - np.sum(s * window, (2, 3), keepdims=True)
        var_f, var_s, covariance = (np.sum(each * window, (2, 3)) for each in (f * f, s * s, f * s))
        gain = np.maximum(covariance / var_s, 0)
        preserved += np.log2(1 + gain**2 * var_s / (np.maximum(var_f - gain * covariance, 0) + 2)).sum()
        total += np.log2(1 + var_s / 2).sum()
    return preserved / total


def test_vif_agrees_with_its_definition_window_by_window(grey: tuple[np.ndarray, ...]) -> None:
    fused, a, b = grey
    assert vif(fused, a) == pytest.approx(naive_vif(fused, a), rel=1e-8)
    assert vif(fused, b) == pytest.approx(naive_vif(fused, b), rel=1e-8)
    # The minimum of 41 pixels leaves one window at the last scale
    assert vif(fused[:41, :41], a[:41, :41]) == pytest.approx(naive_vif(fused[:41, :41], a[:41, :41]), rel=1e-8)


def test_vif_of_a_copy_is_one_and_increases_with_contrast(grey: tuple[np.ndarray, ...]) -> None:
    _, a, b = grey
    assert vif(a, a) == pytest.approx(1)
    assert vif(a * 1.3 - 20.0, a) > 1.02
    assert vif(255.0 - a, a) < 0.1  # the negative preserves nothing
    assert vif(a.astype(float) + 17, b) == pytest.approx(vif(a, b))  # the mean does not matter


def test_vif_of_a_constant_source_is_nan_and_of_a_constant_fused_image_zero(
    grey: tuple[np.ndarray, ...],
) -> None:
    _, a, _ = grey
    for level in (0.0, 37.0, 100.3, 255.0):
        constant = np.full(a.shape, level)
        assert math.isnan(vif(a, constant))
        assert vif(constant, a) == 0


@pytest.mark.parametrize("level", [254.0, 252.44147157190636])
def test_rounding_errors_give_no_variance_to_a_bright_constant_image(level: float) -> None:
    assert all(moments.variance.max() < 1e-20 for moments in vif_moments(np.full((61, 74), level)))


# Qabf

ALL_STRENGTH = 0.9994 / (1 + math.exp(-15 * 0.5))
ALL_ANGLE = 0.9879 / (1 + math.exp(-22 * 0.2))


def test_qabf_of_a_perfect_copy_is_its_upper_bound(grey: tuple[np.ndarray, ...]) -> None:
    _, a, _ = grey
    assert qabf(a, a, a) == pytest.approx(ALL_STRENGTH * ALL_ANGLE)
    assert qabf(a, a, np.full_like(a, 90)) == pytest.approx(ALL_STRENGTH * ALL_ANGLE)


def test_qabf_of_a_lower_step_and_of_another_direction() -> None:
    step = np.zeros((20, 20), np.uint8)
    step[:, 10:] = 100
    flat = np.full_like(step, 100)
    half_strength = 0.9994 / 2
    assert qabf(step // 2, step, flat) == pytest.approx(half_strength * ALL_ANGLE)
    assert qabf(step * 2, step, flat) == pytest.approx(half_strength * ALL_ANGLE)
    # A vertical edge against a horizontal one: G = 1 in 2 of 20 rows, else G = 0; A = 0 in all.
    crossed = (0.1 * ALL_STRENGTH + 0.9 * 0.9994 / (1 + math.exp(15 * 0.5))) * 0.9879 / (1 + math.exp(22 * 0.8))
    assert qabf(step.T, step, flat) == pytest.approx(crossed, rel=1e-9)


def naive_qabf(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Qabf computed pixel by pixel, by definition."""
    preserved = total = 0.0

    def edge(image: np.ndarray, y: int, x: int) -> tuple[float, float]:
        p = np.pad(image.astype(float), 1, mode="edge")[y : y + 3, x : x + 3]
        sx = (p[0, 2] + 2 * p[1, 2] + p[2, 2]) - (p[0, 0] + 2 * p[1, 0] + p[2, 0])
        sy = (p[2, 0] + 2 * p[2, 1] + p[2, 2]) - (p[0, 0] + 2 * p[0, 1] + p[0, 2])
        return math.hypot(sx, sy), math.pi / 2 if sx == 0 else math.atan(sy / sx)

    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            strength, angle = edge(fused, y, x)
            for source in (a, b):
                source_strength, source_angle = edge(source, y, x)
                if source_strength == 0:
                    continue
                ratio = min(strength / source_strength, source_strength / strength if strength else 0)
                alike = 1 - abs(source_angle - angle) / (math.pi / 2)
                quality = 0.9994 / (1 + math.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + math.exp(-22 * (alike - 0.8)))
                preserved += quality * source_strength
                total += source_strength
    return preserved / total


def test_qabf_agrees_with_its_definition_pixel_by_pixel(grey: tuple[np.ndarray, ...]) -> None:
    fused, a, b = (image[:20, :23] for image in grey)
    assert qabf(fused, a, b) == pytest.approx(naive_qabf(fused, a, b))


def test_qabf_does_not_depend_on_the_order_of_sources_or_on_brightness(grey: tuple[np.ndarray, ...]) -> None:
    fused, a, b = grey
    assert qabf(fused, b, a) == pytest.approx(qabf(fused, a, b))
    assert qabf(fused + 20.0, a, b) == pytest.approx(qabf(fused, a, b))


def test_qabf_of_two_constant_sources_is_nan(grey: tuple[np.ndarray, ...]) -> None:
    fused = grey[0]
    assert math.isnan(qabf(fused, np.full_like(fused, 37), np.full_like(fused, 255)))


# SSIM, PSNR


def test_ssim_of_two_constant_images_is_its_luminance_term() -> None:
    c1 = (0.01 * 255) ** 2
    x, y = np.full((11, 11), 100, np.uint8), np.full((11, 11), 110, np.uint8)
    assert ssim(x, y) == pytest.approx((2 * 100 * 110 + c1) / (100**2 + 110**2 + c1))


def test_ssim_agrees_with_scikit_image(grey: tuple[np.ndarray, ...]) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image, the independent implementation, is absent")
    fused, a, b = grey
    for source in (a, b, fused):
        expected = metrics.structural_similarity(
            fused, source, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert ssim(fused, source) == pytest.approx(expected, abs=1e-9)


def test_correlation_inside_a_mask_ignores_the_rest() -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (20, 30)).astype(np.uint8)
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5:20] = True
    fused = np.where(mask, 255 - source // 2, 7).astype(np.uint8)
    assert correlation_inside(fused, source, mask) == pytest.approx(-1, abs=1e-4)
    noisy = source[::-1].copy()
    assert correlation_inside(noisy, source, mask) == pytest.approx(np.corrcoef(noisy[mask], source[mask])[0, 1])
    assert math.isnan(correlation_inside(fused, source, np.zeros_like(mask)))
    assert math.isnan(correlation_inside(fused, source, ~mask))


def test_ssim_by_day_ignores_what_is_too_dark_or_too_bright() -> None:
    """Changes far from the well exposed part change nothing; changes inside do."""
    visible = np.full((60, 120), 20, np.uint8)
    visible[:, 40:80] = 100 + 40 * (np.indices((60, 40)).sum(0) % 2)
    visible[:, 80:] = 240
    outside, inside = visible.copy(), visible.copy()
    outside[:, :20] += 60
    outside[:, 100:] -= 60
    inside[20:40, 55:65] = 60
    assert ssim_day(visible, visible) == pytest.approx(1)
    assert ssim_day(outside, visible) == pytest.approx(1)
    assert ssim(outside, visible) < 0.95
    assert ssim_day(inside, visible) < 0.95


def test_ssim_by_day_is_the_ssim_of_a_well_exposed_image(grey: tuple[np.ndarray, ...]) -> None:
    fused, visible, _ = grey
    visible = (60 + visible.astype(int) // 3).astype(np.uint8)
    assert ssim_day(fused, visible) == pytest.approx(ssim(fused, visible))


def test_psnr_of_a_difference_of_one_level() -> None:
    assert psnr(CONSTANT, CONSTANT + 1) == pytest.approx(20 * math.log10(255))
    assert psnr(CONSTANT + 1, CONSTANT) == pytest.approx(48.1308, abs=1e-4)
    assert psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)) == 0


def test_psnr_of_equal_images_is_infinite() -> None:
    assert psnr(CONSTANT, CONSTANT) == math.inf


def test_entropy_and_psnr_agree_with_scikit_image(grey: tuple[np.ndarray, ...]) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image, the independent implementation, is absent")
    measure = pytest.importorskip("skimage.measure", reason="scikit-image, the independent implementation, is absent")
    fused, a, _ = grey
    assert psnr(fused, a) == pytest.approx(metrics.peak_signal_noise_ratio(a, fused))
    assert entropy(fused) == pytest.approx(measure.shannon_entropy(fused))


# All at once


def test_the_table_agrees_with_the_single_metrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    visible, infrared = pair
    fused = cv2.addWeighted(visible, 0.6, np.repeat(infrared[..., None], 3, 2), 0.4, 5)
    f, a = cv2.cvtColor(fused, cv2.COLOR_RGB2GRAY), cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)
    expected = {
        "EN": entropy(f),
        "AG": average_gradient(f),
        "SD": standard_deviation(f),
        "SCD": scd(f, a, infrared),
        "VIF": vif(f, a) + vif(f, infrared),
        "VIF_visible": vif(f, a),
        "VIF_infrared": vif(f, infrared),
        "VIF_min": min(vif(f, a), vif(f, infrared)),
        "Qabf": qabf(f, a, infrared),
        "SSIM": (ssim(f, a) + ssim(f, infrared)) / 2,
        "SSIM_day": ssim_day(f, a),
        "MI": mutual_information(f, a, infrared),
        "FMI": feature_mutual_information(f, a, infrared),
        "Qncie": nonlinear_correlation(f, a, infrared),
        "Qcv": perceived_difference(f, a, infrared),
        "dE00": delta_e_2000(fused, visible),
    }
    values = clean_metrics(fused, visible, infrared)
    assert tuple(values) == CLEAN_METRICS
    assert values == pytest.approx(expected)
    assert all(type(value) is float for value in values.values())


@pytest.mark.filterwarnings("error")
def test_undefined_metrics_of_constant_images_are_nan_without_warnings() -> None:
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (48, 52, 3), dtype=np.uint8)
    dark = np.zeros((48, 52, 3), np.uint8)

    def undefined(fused: np.ndarray, visible: np.ndarray, infrared: np.ndarray) -> set[str]:
        return {name for name, value in clean_metrics(fused, visible, infrared).items() if math.isnan(value)}

    assert undefined(image, dark, to_grey(image)) == {"SCD", "VIF", "VIF_visible", "VIF_min", "SSIM_day"}
    assert undefined(image, image[::-1], CONSTANT) == {"SCD", "VIF", "VIF_infrared", "VIF_min"}
    nothing = {"SCD", "VIF", "VIF_visible", "VIF_infrared", "VIF_min", "Qabf", "SSIM_day", "FMI", "Qcv"}
    assert undefined(dark, dark, WHITE) == nothing
    assert undefined(dark, image, to_grey(image[::-1])) == set()


def test_grey_is_computed_by_opencv(pair: tuple[np.ndarray, np.ndarray]) -> None:
    visible, infrared = pair
    assert to_grey(infrared) is infrared
    expected = np.rint(visible @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(to_grey(visible) - expected).max() <= 1
    assert to_grey(np.array([[[0, 255, 0]]], np.uint8))[0, 0] == 150


# What is refused


@pytest.mark.parametrize("metric", [entropy, standard_deviation, average_gradient])
@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint16), np.zeros((8, 8), np.float32)]
)
def test_an_image_that_is_not_grey_is_rejected(metric: Callable[[np.ndarray], float], image: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"uint8 or float64 \[H, W\]"):
        metric(image)


@pytest.mark.parametrize("metric", [vif, ssim, psnr, lambda x, y: scd(x, x, y), lambda x, y: qabf(x, x, y)])
def test_images_of_different_sizes_are_rejected(metric: Callable[[np.ndarray, np.ndarray], float]) -> None:
    with pytest.raises(ImageError, match="48 x 52"):
        metric(CONSTANT, CONSTANT[:, 1:])


@pytest.mark.parametrize(("metric", "least"), [(vif, 41), (ssim, 11), (lambda x, _: average_gradient(x), 2)])
def test_images_too_small_for_a_metric_are_rejected(
    metric: Callable[[np.ndarray, np.ndarray], float], least: int
) -> None:
    rng = np.random.default_rng(5)
    enough = rng.integers(0, 256, (least, least), dtype=np.uint8)
    assert math.isfinite(metric(enough, enough))
    with pytest.raises(ImageError, match=f"at least {least} x {least}"):
        metric(enough[1:], enough[1:])


def test_the_table_rejects_wrong_sizes_and_channels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    visible, infrared = pair
    with pytest.raises(ImageError, match="the infrared image"):
        clean_metrics(visible, visible, visible)
    with pytest.raises(ImageError, match="the infrared image"):
        clean_metrics(visible, visible, infrared[1:])
    with pytest.raises(ImageError, match="the fused image"):
        clean_metrics(infrared, visible, infrared)
    with pytest.raises(ImageError, match="the fused image"):
        clean_metrics(visible[1:], visible, infrared)
