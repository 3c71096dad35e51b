"""MI, FMI, Qncie and Qcv against cases worked by hand and against scikit-image and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from textdifuse_ros.errors import ImageError
from textdifuse_ros.metrics.information import entropy
from textdifuse_ros.metrics.transfer import (
    feature_mutual_information,
    mutual_information,
    nonlinear_correlation,
    perceived_difference,
)

METRICS = (mutual_information, feature_mutual_information, nonlinear_correlation, perceived_difference)


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(48) * 3, np.arange(64) * 1.5)
    return [np.clip(smooth * k + rng.normal(0, 9, (48, 64)), 0, 255).astype(np.uint8) for k in (0.8, 0.4, 1.0)]


def test_mutual_information_by_hand() -> None:
    a = np.array([[0, 0], [255, 255]], np.uint8)
    b = np.array([[0, 255], [0, 255]], np.uint8)
    assert mutual_information(a, a, b) == pytest.approx(1), "one bit of A, none of the independent B"
    assert mutual_information(a, 255 - a, a) == pytest.approx(2), "an inverse tells as much"
    assert mutual_information(np.zeros_like(a), a, b) == 0


def test_mutual_information_is_that_of_scikit_image(images: list[np.ndarray]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    fused, a, b = images  # the ends of the range are appended, so that bins are grey levels

    def shared(source: np.ndarray) -> float:
        # NMI = (H(X) + H(Y)) / H(X, Y), over 256 bins.
        one, other = (np.append(image.reshape(-1), np.array([0, 255], np.uint8)) for image in (source, fused))
        total = entropy(one[None]) + entropy(other[None])
        return total - total / metrics.normalized_mutual_information(one, other, bins=256)

    with_ends = [np.append(image.reshape(-1), (0, 255))[None].astype(np.uint8) for image in images]
    assert mutual_information(*with_ends) == pytest.approx(shared(a) + shared(b))


def test_feature_mutual_information_has_its_bounds_at_copies_and_flat_images(images: list[np.ndarray]) -> None:
    fused, a, _ = images
    assert feature_mutual_information(a, a, a) == pytest.approx(1)
    flat = np.full_like(a, 90)
    assert feature_mutual_information(a, a, flat) == pytest.approx(0.5), "nothing of B's, of which there is nothing"
    assert math.isnan(feature_mutual_information(flat, flat, a))
    assert feature_mutual_information(fused, a, a) < feature_mutual_information(a, a, a)


def test_nonlinear_correlation_by_hand(images: list[np.ndarray]) -> None:
    a = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert nonlinear_correlation(a, a, a) == pytest.approx(1), "eigenvalues 3, 0, 0"
    flat = np.zeros_like(a)
    expected = 1 - math.log(3) / math.log(256)
    assert nonlinear_correlation(flat, flat, flat) == pytest.approx(expected), "eigenvalues 1, 1, 1"
    # F equal to A, B independent of both: eigenvalues 2, 1, 0.
    expected = 1 + (2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(256)
    assert nonlinear_correlation(a, a, flat) == pytest.approx(expected)


def test_perceived_difference_of_a_grating_is_its_power_times_the_sensitivity() -> None:
    """A cosine of 8 periods over 64 pixels has r = 2 * 8 / 8 = 2, in both sources and anywhere."""
    x = np.arange(64)
    grating = np.tile(20 * np.cos(2 * np.pi * 8 * x / 64), (64, 1))
    source = np.tile(100.0 + 40 * np.sin(2 * np.pi * 4 * x / 64), (64, 1))
    sensitivity = 2.6 * (0.0192 + 0.114 * 2) * math.exp(-((0.114 * 2) ** 1.1))
    assert perceived_difference(source + grating, source, source) == pytest.approx(sensitivity**2 * 20**2 / 2)
    assert perceived_difference(source, source, source) == 0


def test_perceived_difference_counts_where_a_source_has_edges() -> None:
    rng = np.random.default_rng(1)
    a, b = np.full((64, 64), 100.0), np.full((64, 64), 100.0)
    a[:, :32] += rng.normal(0, 30, (64, 32)).clip(-90, 90)
    b[:, 32:] += rng.normal(0, 30, (64, 32)).clip(-90, 90)
    best = np.where(np.arange(64) < 32, a, b)
    assert perceived_difference(best, a, b) < 0.5 * perceived_difference((a + b) / 2, a, b)
    assert math.isnan(perceived_difference(best, np.full((64, 64), 9.0), np.full((64, 64), 9.0)))


@pytest.mark.parametrize("metric", METRICS)
def test_the_sources_are_equal_and_bad_input_is_refused(metric, images: list[np.ndarray]) -> None:
    fused, a, b = images
    assert metric(fused, a, b) == pytest.approx(metric(fused, b, a))
    with pytest.raises(ImageError, match="same shape"):
        metric(fused, a, b[1:])
    with pytest.raises(ImageError, match="must be uint8"):
        metric(fused.astype(np.uint16), a, b)


def test_an_image_smaller_than_a_region_is_refused() -> None:
    small = np.zeros((15, 40), np.uint8)
    with pytest.raises(ImageError, match="16 x 16"):
        perceived_difference(small, small, small)
