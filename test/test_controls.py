"""The controls on hand-computed examples, and their published values on real images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from textdifuse_ros.errors import ImageError
from textdifuse_ros.evaluate.controls import CONTROLS
from textdifuse_ros.image.files import find_pairs, read_infrared, read_visible
from textdifuse_ros.metrics.detail import average_gradient
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.information import entropy, standard_deviation
from textdifuse_ros.metrics.similarity import scd, vif

METRICS = ("EN", "AG", "SD", "SCD", "VIF")
SETS = {
    "RoadScene": ("roadscene/test/vis", "roadscene/test/ir"),
    "MSRS": ("msrs_dev/vis", "msrs_dev/ir"),
    "CT-MRI": ("harvard/ct-mri/test/a", "harvard/ct-mri/test/b"),
    "PET-MRI": ("harvard/pet-mri/test/a", "harvard/pet-mri/test/b"),
    "SPECT-MRI": ("harvard/spect-mri/test/a", "harvard/spect-mri/test/b"),
}
# Measured with another program. The SCD of `visible` is undefined, since the image equals its source.
ROWS = {
    ("RoadScene", "visible"): (6.66, 2.85, 40.95, None, 1.031),
    ("RoadScene", "infrared"): (7.43, 4.74, 50.64, 0.758, 1.047),
    ("RoadScene", "mean"): (6.45, 2.89, 28.52, 1.416, 0.569),
    ("RoadScene", "max"): (7.03, 4.11, 43.97, 1.402, 0.850),
    ("RoadScene", "clahe+max"): (7.16, 4.96, 44.55, 1.420, 0.823),
    ("RoadScene", "sum"): (7.51, 5.47, 54.9, 1.969, 0.673),
    ("RoadScene", "clahe+sum"): (7.50, 6.40, 58.1, 1.844, 0.701),
    ("MSRS", "mean"): (5.74, 1.98, 24.8, 1.230, 0.655),
    ("MSRS", "max"): (6.63, 3.37, 44.9, 1.672, 1.020),
    ("MSRS", "clahe+max"): (7.08, 5.18, 49.3, 1.325, 1.193),
    ("MSRS", "clahe+sum"): (7.17, 5.65, 56.1, 1.499, 1.119),
    ("CT-MRI", "max"): (3.46, 6.79, 87.51, 1.546, 0.605),
    ("PET-MRI", "max"): (4.94, 10.46, 87.45, 1.321, 0.866),
    ("SPECT-MRI", "max"): (4.46, 5.78, 61.55, 1.314, 0.674),
}


@pytest.fixture
def sources() -> tuple[np.ndarray, np.ndarray]:
    """A grey visible and an infrared image with known values in the first row: uint8 [16, 16, 3], [16, 16]."""
    visible, infrared = np.full((16, 16), 100, np.uint8), np.full((16, 16), 100, np.uint8)
    visible[0, :4], infrared[0, :4] = (0, 40, 200, 255), (51, 40, 100, 255)
    return np.repeat(visible[..., None], 3, 2), infrared


def grey_row(name: str, sources: tuple[np.ndarray, np.ndarray]) -> list[int]:
    fused = CONTROLS[name](*sources)
    assert (fused[..., 0] == fused[..., 1]).all()
    return fused[0, :4, 0].tolist()


def test_the_controls_have_fixed_names_and_order() -> None:
    assert list(CONTROLS) == ["visible", "infrared", "mean", "max", "max+noise15", "clahe+max", "sum", "clahe+sum"]


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_gives_an_8_bit_color_image_and_keeps_its_sources(
    name: str, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    visible, infrared = (image.copy() for image in pair)
    fused = CONTROLS[name](visible, infrared)
    assert fused.shape == visible.shape
    assert fused.dtype == np.uint8
    assert (CONTROLS[name](visible, infrared) == fused).all()
    assert (visible == pair[0]).all()
    assert (infrared == pair[1]).all()


def test_sources_mean_and_max_of_grey_images(sources: tuple[np.ndarray, np.ndarray]) -> None:
    assert grey_row("visible", sources) == [0, 40, 200, 255]
    assert grey_row("infrared", sources) == [51, 40, 100, 255]
    assert grey_row("mean", sources) == [26, 40, 150, 255]  # 25.5 rounds to even
    assert grey_row("max", sources) == [51, 40, 200, 255]
    sources[1][0, 0] = 49
    assert grey_row("mean", sources)[0] == 24  # 24.5 as well


def test_sum_moves_the_mean_of_the_sum_to_the_middle_and_clips(sources: tuple[np.ndarray, np.ndarray]) -> None:
    visible, infrared = sources
    mean = (visible[..., 0].astype(float) + infrared).mean()
    expected = [round(max(0, min(255, total - mean + 127.5))) for total in (51, 80, 300, 510)]
    assert grey_row("sum", sources) == expected
    assert expected[0] == 0
    assert expected[3] == 255


def test_equalization_increases_contrast_of_the_visible_image_only(pair: tuple[np.ndarray, np.ndarray]) -> None:
    visible, infrared = pair
    dim = 60 + visible // 16
    dark = np.zeros_like(infrared)

    def detail(name: str) -> float:
        return average_gradient(to_grey(CONTROLS[name](dim, dark)))

    assert detail("clahe+max") > 1.3 * detail("max")
    assert detail("clahe+sum") > 1.2 * detail("sum")
    white = np.full_like(infrared, 255)
    assert (to_grey(CONTROLS["clahe+max"](dim, white)) >= 250).all()


def test_the_equalized_sum_is_a_blend_with_a_fifth_more_contrast(pair: tuple[np.ndarray, np.ndarray]) -> None:
    infrared = pair[1].astype(float)
    grey = to_grey(pair[0])
    equalized = cv2.createCLAHE(1.5, (8, 8)).apply(grey).astype(float)
    total = equalized + infrared
    blend = (total - total.mean() + 127.5 + np.maximum(equalized, infrared)) / 2
    expected = np.clip(blend.mean() + 1.2 * (blend - blend.mean()), 0, 255)
    fused = CONTROLS["clahe+sum"](np.repeat(grey[..., None], 3, 2), pair[1])
    assert np.abs(fused[..., 0] - expected).max() <= 0.5


def test_noise_of_sigma_15_is_different_for_every_pair(pair: tuple[np.ndarray, np.ndarray]) -> None:
    grey = np.full((200, 300, 3), 128, np.uint8)
    infrared = np.full((200, 300), 90, np.uint8)
    noise = CONTROLS["max+noise15"](grey, infrared)[..., 0] - 128.0
    assert noise.std() == pytest.approx(15, rel=0.02)
    assert abs(noise.mean()) < 0.3
    infrared[0, 0] = 91  # the next frame of a still sequence
    other = CONTROLS["max+noise15"](grey, infrared)[..., 0] - 128.0
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("name", ["visible", "mean", "max", "sum"])
def test_controls_keep_the_visible_chroma(name: str) -> None:
    rng = np.random.default_rng(0)
    visible = rng.integers(110, 146, (20, 30, 3), dtype=np.uint8)
    infrared = rng.integers(110, 146, (20, 30), dtype=np.uint8)
    fused = CONTROLS[name](visible, infrared).astype(float)
    for one, other in ((0, 1), (2, 1)):  # equal chroma means equal differences of the channels
        expected = visible[..., one].astype(float) - visible[..., other]
        assert np.abs(fused[..., one] - fused[..., other] - expected).max() <= 3


def test_invalid_sources_are_rejected(pair: tuple[np.ndarray, np.ndarray]) -> None:
    visible, infrared = pair
    for wrong, message in (
        ((visible, infrared[1:]), "as large as"),
        ((infrared, infrared), "the visible image"),
        ((visible, visible), "the infrared image"),
        ((visible, infrared.astype(np.uint16)), "uint8 for a control"),
        ((visible.astype(np.uint16), infrared), "uint8 for a control"),
    ):
        with pytest.raises(ImageError, match=message):
            CONTROLS["max"](*wrong)


def measure(data: Path, name: str, control: str) -> list[float]:
    """Mean of the five metrics of a control over the images of a set, where defined."""
    rows = []
    for pair in find_pairs(*(data / part for part in SETS[name])):
        visible, infrared = read_visible(pair.visible), read_infrared(pair.infrared)
        fused, a = to_grey(CONTROLS[control](visible, infrared)), to_grey(visible)
        both = vif(fused, a) + vif(fused, infrared)
        single = (entropy(fused), average_gradient(fused), standard_deviation(fused))
        rows.append((*single, scd(fused, a, infrared), both))
    return np.nanmean(rows, 0).tolist()


def check(data: Path, name: str, control: str) -> None:
    if not (data / SETS[name][0]).is_dir():
        pytest.skip(f"the set {name} is not among the shared images")
    for metric, actual, expected in zip(METRICS, measure(data, name, control), ROWS[name, control], strict=True):
        assert expected is None or actual == pytest.approx(expected, rel=0.005), f"{metric} of {control} on {name}"


@pytest.mark.parametrize("control", ["mean", "max"])
def test_mean_and_max_have_their_published_values_on_roadscene(data_folder: Path, control: str) -> None:
    check(data_folder, "RoadScene", control)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "control"), [row for row in ROWS if row[1] not in ("mean", "max") or row[0] != "RoadScene"]
)
def test_all_controls_have_their_published_values(data_folder: Path, name: str, control: str) -> None:
    check(data_folder, name, control)
