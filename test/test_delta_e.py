"""CIEDE2000 against its published data and an independent implementation, and the chroma error."""

from __future__ import annotations

import numpy as np
import pytest

from textdifuse_ros.errors import ImageError
from textdifuse_ros.metrics.color import ciede2000, delta_e_2000, replace_luma, srgb_to_lab

# Sharma, Wu, Dalal 2005, table 1: two colors in L*a*b* and their CIEDE2000.
SHARMA = np.array(
    [
        (50.0000, 2.6772, -79.7751, 50.0000, 0.0000, -82.7485, 2.0425),
        (50.0000, 3.1571, -77.2803, 50.0000, 0.0000, -82.7485, 2.8615),
        (50.0000, 2.8361, -74.0200, 50.0000, 0.0000, -82.7485, 3.4412),
        (50.0000, -1.3802, -84.2814, 50.0000, 0.0000, -82.7485, 1.0000),
        (50.0000, -1.1848, -84.8006, 50.0000, 0.0000, -82.7485, 1.0000),
        (50.0000, -0.9009, -85.5211, 50.0000, 0.0000, -82.7485, 1.0000),
        (50.0000, 0.0000, 0.0000, 50.0000, -1.0000, 2.0000, 2.3669),
        (50.0000, -1.0000, 2.0000, 50.0000, 0.0000, 0.0000, 2.3669),
        (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0009, 7.1792),
        (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0010, 7.1792),
        (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0011, 7.2195),
        (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0012, 7.2195),
        (50.0000, -0.0010, 2.4900, 50.0000, 0.0009, -2.4900, 4.8045),
        (50.0000, -0.0010, 2.4900, 50.0000, 0.0010, -2.4900, 4.8045),
        (50.0000, -0.0010, 2.4900, 50.0000, 0.0011, -2.4900, 4.7461),
        (50.0000, 2.5000, 0.0000, 50.0000, 0.0000, -2.5000, 4.3065),
        (50.0000, 2.5000, 0.0000, 73.0000, 25.0000, -18.0000, 27.1492),
        (50.0000, 2.5000, 0.0000, 61.0000, -5.0000, 29.0000, 22.8977),
        (50.0000, 2.5000, 0.0000, 56.0000, -27.0000, -3.0000, 31.9030),
        (50.0000, 2.5000, 0.0000, 58.0000, 24.0000, 15.0000, 19.4535),
        (50.0000, 2.5000, 0.0000, 50.0000, 3.1736, 0.5854, 1.0000),
        (50.0000, 2.5000, 0.0000, 50.0000, 3.2972, 0.0000, 1.0000),
        (50.0000, 2.5000, 0.0000, 50.0000, 1.8634, 0.5757, 1.0000),
        (50.0000, 2.5000, 0.0000, 50.0000, 3.2592, 0.3350, 1.0000),
        (60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644),
        (63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630),
        (61.2901, 3.7196, -5.3901, 61.4292, 2.2480, -4.9620, 1.8731),
        (35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645),
        (22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373),
        (36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146),
        (90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441),
        (90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381),
        (6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377),
        (2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082),
    ]
)


def test_ciede2000_agrees_with_the_published_pairs() -> None:
    one, other, published = SHARMA[:, :3], SHARMA[:, 3:6], SHARMA[:, 6]
    np.testing.assert_allclose(ciede2000(one, other), published, atol=5e-5)
    np.testing.assert_allclose(ciede2000(other, one), published, atol=5e-5)
    assert ciede2000(one, one).max() == 0


def test_lab_of_known_colors() -> None:
    colors = np.array([[255, 255, 255], [128, 128, 128], [255, 0, 0], [0, 0, 255], [0, 0, 0]], np.uint8)
    known = [(100, 0, 0), (53.585, 0, 0), (53.241, 80.092, 67.203), (32.297, 79.188, -107.860), (0, 0, 0)]
    np.testing.assert_allclose(srgb_to_lab(colors), known, atol=0.01)
    np.testing.assert_allclose(srgb_to_lab(colors.astype(float)), srgb_to_lab(colors))


def test_lab_and_ciede2000_agree_with_scikit_image() -> None:
    color = pytest.importorskip("skimage.color", reason="scikit-image, the independent implementation, is absent")
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 256, (2, 5000, 3), dtype=np.uint8)
    np.testing.assert_allclose(srgb_to_lab(x), color.rgb2lab(x), atol=0.02)
    np.testing.assert_allclose(
        ciede2000(srgb_to_lab(x), srgb_to_lab(y)),
        color.deltaE_ciede2000(srgb_to_lab(x), srgb_to_lab(y)),
        atol=1e-9,
    )


def test_chroma_error_ignores_brightness_and_measures_color(pair: tuple[np.ndarray, np.ndarray]) -> None:
    reference = pair[0] // 2 + 40
    assert delta_e_2000(reference, reference) == 0
    assert delta_e_2000(reference + 30, reference) < 1e-9
    tinted = np.clip(reference + np.array([12, 0, -12]), 0, 255).astype(np.uint8)
    assert delta_e_2000(tinted, reference) > 3
    assert delta_e_2000(tinted + 20, reference) == pytest.approx(delta_e_2000(tinted, reference))


def test_chroma_error_of_a_color_against_grey() -> None:
    """Grey 128 against (148, 118, 128), luma 128.111, in half of the pixels."""
    reference = np.full((10, 10, 3), 128, np.uint8)
    image = reference.copy()
    image[:5] = (148, 118, 128)
    shifted = np.array([148, 118, 128]) + 128 - (0.299 * 148 + 0.587 * 118 + 0.114 * 128)
    expected = ciede2000(srgb_to_lab(shifted), srgb_to_lab(np.array([128.0, 128, 128]))) / 2
    assert delta_e_2000(image, reference) == pytest.approx(float(expected))


def test_replacing_the_luma_keeps_chroma() -> None:
    rng = np.random.default_rng(3)
    image, reference = rng.integers(90, 160, (2, 30, 3), dtype=np.uint8)
    weights = np.array([0.299, 0.587, 0.114])
    changed = replace_luma(image, reference)
    np.testing.assert_allclose(changed @ weights, reference @ weights)
    np.testing.assert_allclose(changed[:, 2] - changed @ weights, image[:, 2] - image @ weights)  # Cb
    np.testing.assert_allclose(changed[:, 0] - changed @ weights, image[:, 0] - image @ weights)  # Cr


def test_chroma_error_rejects_grey_images_and_other_sizes(pair: tuple[np.ndarray, np.ndarray]) -> None:
    visible, infrared = pair
    with pytest.raises(ImageError, match="the reference"):
        delta_e_2000(visible, infrared)
    with pytest.raises(ImageError, match="the image"):
        delta_e_2000(visible[1:], visible)
