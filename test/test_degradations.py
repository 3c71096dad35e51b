"""The degradations, and the suite of conditions composed of them."""

from __future__ import annotations

import numpy as np
import pytest

from textdifuse_ros.data import degradations as d
from textdifuse_ros.data.conditions import CONDITIONS, SUITE, degrade_pair, saturated_part
from textdifuse_ros.errors import ConfigError, ImageError


@pytest.fixture
def visible() -> np.ndarray:
    """A smooth scene with edges, neither black nor white, float32 [64, 96, 3]."""
    y, x = np.mgrid[:64, :96].astype(np.float32)
    scene = 0.35 + 0.2 * np.sin(x / 9) * np.cos(y / 7) + 0.2 * ((x // 24 + y // 16) % 2)
    return np.stack((scene, 0.9 * scene, 0.8 * scene), 2).astype(np.float32)


@pytest.fixture
def infrared(visible) -> np.ndarray:
    """Another image, float32 [64, 96]."""
    return visible[::-1, ::-1, 0].copy()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


VISIBLE = {
    "low_light": lambda v, g: d.low_light(v, 0.1),
    "low_light field": lambda v, g: d.low_light(v, d.smooth_field(*v.shape[:2], 3, g)),
    "over_exposure": lambda v, g: d.over_exposure(v, 2),
    "color_cast": lambda v, g: d.color_cast(v, (1.3, 1, 0.5)),
    "gaussian_noise": lambda v, g: d.gaussian_noise(v, 0.1, g),
    "poisson_noise": lambda v, g: d.poisson_noise(v, 30, g),
    "gaussian_blur": lambda v, g: d.gaussian_blur(v, 1.5),
    "motion_blur": lambda v, g: d.motion_blur(v, 9, 0.4),
    "haze": lambda v, g: d.haze(v, 1.5, 0.8, g),
    "rain_streaks": lambda v, g: d.rain_streaks(v, 0.01, 15, 1.4, g),
    "smoke": lambda v, g: d.smoke(v, 3, 0.5, g),
    "glare": lambda v, g: d.glare(v, np.array([[30, 20, 1]]), 0.05),
    "quantize": lambda v, g: d.quantize(v),
}
INFRARED = {
    "gaussian_noise": lambda i, g: d.gaussian_noise(i, 0.1, g),
    "gaussian_blur": lambda i, g: d.gaussian_blur(i, 1.5),
    "motion_blur": lambda i, g: d.motion_blur(i, 9, 0.4),
    "stripe_noise": lambda i, g: d.stripe_noise(i, 0.05, g),
    "low_contrast": lambda i, g: d.low_contrast(i, 0.3, 0.5),
    "haze": lambda i, g: d.haze(i, 1.5, 0.8, g),
    "smoke": lambda i, g: d.smoke(i, 3, 0.5, g),
    "glare": lambda i, g: d.glare(i, np.array([[30, 20, 1]]), 0.05),
}


class TestEveryDegradation:
    @pytest.mark.parametrize("name", VISIBLE)
    def test_keeps_shape_type_and_range_of_visible_images_and_does_not_change_its_input(self, name, visible) -> None:
        before = visible.copy()
        after = VISIBLE[name](visible, rng())
        assert after.shape == visible.shape and after.dtype == np.float32
        assert after.min() >= 0 and after.max() <= 1
        assert np.array_equal(visible, before) and not np.array_equal(after, before)

    @pytest.mark.parametrize("name", INFRARED)
    def test_keeps_shape_type_and_range_of_infrared_images_and_does_not_change_its_input(self, name, infrared) -> None:
        before = infrared.copy()
        after = INFRARED[name](infrared, rng())
        assert after.shape == infrared.shape and after.dtype == np.float32
        assert after.min() >= 0 and after.max() <= 1
        assert np.array_equal(infrared, before) and not np.array_equal(after, before)

    @pytest.mark.parametrize(
        "name", ["gaussian_noise", "poisson_noise", "haze", "rain_streaks", "smoke", "low_light field"]
    )
    def test_depends_only_on_the_given_generator(self, name, visible) -> None:
        np.random.seed(1)
        first = VISIBLE[name](visible, rng(5))
        np.random.seed(2)
        assert np.array_equal(first, VISIBLE[name](visible, rng(5)))
        assert not np.array_equal(first, VISIBLE[name](visible, rng(6)))


class TestMeaning:
    def test_low_light_is_a_factor_in_linear_light(self) -> None:
        grey = np.full((4, 4, 3), 0.5, np.float32)
        assert d.low_light(grey, 0.25) == pytest.approx(0.5 * 0.25 ** (1 / 2.2), abs=1e-5)

    def test_over_exposure_doubles_the_light_with_each_stop_and_clips(self) -> None:
        image = np.array([[0.2, 0.9]], np.float32)
        assert d.over_exposure(image, 1)[0] == pytest.approx([0.2 * 2 ** (1 / 2.2), 1], abs=1e-5)

    def test_a_color_cast_is_a_gain_for_each_channel(self) -> None:
        grey = np.full((1, 1, 3), 0.5, np.float32)
        expected = [0.5 * gain ** (1 / 2.2) for gain in (1, 0.5, 0.25)]
        assert d.color_cast(grey, (1, 0.5, 0.25))[0, 0] == pytest.approx(expected, abs=1e-5)

    def test_gaussian_noise_has_the_given_standard_deviation(self) -> None:
        grey = np.full((200, 200), 0.5, np.float32)
        assert np.std(d.gaussian_noise(grey, 0.05, rng())) == pytest.approx(0.05, rel=0.03)

    def test_poisson_noise_has_the_variance_of_its_mean_count(self) -> None:
        for level in (0.3, 0.8):
            light = d.to_linear(np.full((300, 300), level, np.float32))
            noisy = d.to_linear(d.poisson_noise(np.full((300, 300), level, np.float32), 100, rng()))
            assert np.var(noisy) == pytest.approx(float(light[0, 0]) / 100, rel=0.05)

    def test_blurs_spread_a_point_and_preserve_its_light(self) -> None:
        point = np.zeros((41, 41), np.float32)
        point[20, 20] = 0.5
        soft = d.gaussian_blur(point, 2)
        assert soft.sum() == pytest.approx(0.5, rel=1e-3) and soft.max() < 0.25
        line = d.to_linear(d.motion_blur(point, 9, 0))
        assert line.sum() == pytest.approx(float(d.to_linear(point).sum()), rel=1e-2)
        assert (line.sum(1) > 1e-6).sum() <= 3 and (line.sum(0) > 1e-6).sum() >= 9
        slanted = d.to_linear(d.motion_blur(point, 7, 0.4))
        assert slanted.sum() == pytest.approx(float(d.to_linear(point).sum()), rel=2e-2)
        assert slanted.max() < 0.5 * d.to_linear(point).max()

    def test_haze_is_denser_at_the_top(self) -> None:
        haze = d.haze(np.zeros((60, 60, 3), np.float32), 2, 0.8, rng())
        assert haze[:10].mean() > haze[-10:].mean() + 0.1
        assert haze.max() < 0.8 ** (1 / 2.2)

    def test_smoke_is_opaque_in_patches_and_clear_between_them(self) -> None:
        """Of a black scene only the smoke itself is seen, of a white one what it covers."""
        black, white = np.zeros((120, 160, 3), np.float32), np.ones((120, 160, 3), np.float32)
        smoke, covered = d.smoke(black, 3.5, 0.5, rng()), d.smoke(white, 3.5, 0.5, rng())
        contrast = (covered - smoke).mean(2)
        assert (contrast > 0.99).mean() > 0.1 and (contrast < 0.1).mean() > 0.2
        assert smoke.max() <= 0.5 ** (1 / 2.2) + 1e-6

    @pytest.mark.parametrize("share", [0.02, 0.05, 0.10])
    @pytest.mark.parametrize("size", [(64, 96), (240, 320)])
    def test_glare_saturates_the_given_share_around_the_lamps(self, share, size) -> None:
        grey = np.full((*size, 3), 0.3, np.float32)
        lamps = np.array([[size[1] * 0.25, size[0] / 2, 1], [size[1] * 0.75, size[0] / 2, 0.5]])
        bright = d.glare(grey, lamps, share)
        white = bright.min(2) >= 250 / 255
        assert white.mean() == pytest.approx(share, rel=0.1)
        for x, y, _ in lamps:
            assert white[int(y), int(x)]
        left, right = np.hsplit(white, 2)
        assert left.sum() > 2.5 * right.sum() > 0

    def test_glare_has_bloom_and_a_veil(self) -> None:
        grey = np.full((120, 160, 3), 0.3, np.float32)
        bright = d.glare(grey, np.array([[80, 60, 1]]), 0.05)[..., 0]
        row = bright[60, 80:]
        assert (np.diff(row) <= 1e-6).all() and row[0] == 1
        assert ((row > 0.5) & (row < 0.98)).sum() >= 3  # bloom
        assert 0.3 < row[-1] < 0.5  # veil

    def test_glare_of_colored_lamps_saturates_all_channels_and_tints_the_veil(self) -> None:
        grey = np.full((120, 160, 3), 0.3, np.float32)
        bright = d.glare(grey, np.array([[80, 60, 1]]), 0.05, (1, 0.93, 0.8))
        assert (bright.min(2) >= 250 / 255).mean() == pytest.approx(0.05, rel=0.1)
        assert bright[0, 0, 0] > bright[0, 0, 1] > bright[0, 0, 2] > 0.3

    def test_rain_only_brightens(self, visible) -> None:
        wet = d.rain_streaks(visible, 0.01, 15, np.pi / 2, rng())
        assert (wet >= visible - 1e-6).all() and (wet > visible + 0.05).mean() > 0.02

    def test_stripes_are_constant_along_a_column_or_row(self) -> None:
        grey = np.full((50, 400), 0.5, np.float32)
        columns = d.stripe_noise(grey, 0.05, rng())
        assert np.ptp(columns, 0).max() == 0 and np.std(columns[0]) == pytest.approx(0.05, rel=0.15)
        rows = d.stripe_noise(grey, 0.05, rng(), rows=True)
        assert np.ptp(rows, 1).max() == 0 and np.ptp(rows[:, 0]) > 0

    def test_low_contrast_scales_the_deviation_around_a_new_mean(self, infrared) -> None:
        flat = d.low_contrast(infrared, 0.25, 0.4)
        assert flat.mean() == pytest.approx(0.4, abs=1e-3)
        assert flat.std() == pytest.approx(0.25 * infrared.std(), rel=1e-3)


class TestSuite:
    @pytest.fixture
    def clean(self, visible, infrared) -> tuple[np.ndarray, np.ndarray]:
        return np.rint(visible * 255).astype(np.uint8), np.rint(infrared * 255).astype(np.uint8)

    def test_means_are_over_these_thirteen_conditions_and_two_stand_apart(self) -> None:
        assert SUITE == (
            "low_light", "low_light_strong", "over_exposure", "color_cast", "gaussian_noise", "poisson_noise", "blur",
            "haze", "rain", "thermal_stripes", "thermal_low_contrast", "low_light_noise",
            "low_light_cast_noise_stripes",
        )  # fmt: skip
        assert tuple(CONDITIONS) == (*SUITE, "glare", "smoke")
        assert all(condition.meaning.endswith(".") for condition in CONDITIONS.values())

    @pytest.mark.parametrize("name", CONDITIONS)
    def test_a_condition_changes_only_its_own_source(self, name, clean) -> None:
        visible, infrared = degrade_pair(name, *clean, "0001")
        assert visible.dtype == infrared.dtype == np.uint8
        assert visible.shape == clean[0].shape and infrared.shape == clean[1].shape
        changed = not np.array_equal(visible, clean[0]), not np.array_equal(infrared, clean[1])
        both, thermal = name == "low_light_cast_noise_stripes", name.startswith("thermal")
        assert changed == (not thermal, thermal or both)

    @pytest.mark.parametrize("name", CONDITIONS)
    def test_a_condition_is_reproducible(self, name, clean) -> None:
        first, again = degrade_pair(name, *clean, "0001"), degrade_pair(name, *clean, "0001")
        assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])

    @pytest.mark.parametrize("stem", [f"{n:04d}" for n in range(8)])
    def test_glare_saturates_2_to_10_percent(self, clean, stem) -> None:
        visible, _ = degrade_pair("glare", *clean, stem)
        share = saturated_part(visible, clean[0]).mean()
        assert 0.018 <= share <= 0.11

    def test_glare_covers_what_the_infrared_shows(self, clean) -> None:
        """The only warm objects lie on the left; most lamps are in front of them."""
        infrared = np.full_like(clean[1], 40)
        infrared[:, 8:24:6] = 230
        left = []
        for n in range(20):
            part = saturated_part(degrade_pair("glare", clean[0], infrared, str(n))[0], clean[0])
            left.append(part[:, :40].sum() / part.sum())
        assert np.mean(left) > 0.7

    def test_a_part_that_was_white_before_does_not_count_as_saturated(self) -> None:
        clean = np.full((4, 4, 3), 255, np.uint8)
        clean[0] = 100
        assert saturated_part(np.full_like(clean, 252), clean).tolist() == [[True] * 4, *[[False] * 4] * 3]

    def test_noise_differs_between_images_and_between_conditions(self, clean) -> None:
        here, there = (degrade_pair("gaussian_noise", *clean, stem)[0].astype(int) for stem in ("0001", "0002"))
        assert np.abs(here - there).mean() > 5
        stripes = degrade_pair("thermal_stripes", *clean, "0001")[1].astype(int) - clean[1]
        others = degrade_pair("low_light_cast_noise_stripes", *clean, "0001")[1].astype(int) - clean[1]
        assert abs(np.corrcoef(stripes[0], others[0])[0, 1]) < 0.5

    def test_the_stronger_low_light_is_darker(self, clean) -> None:
        dark, darker = (degrade_pair(name, *clean, "a")[0].mean() for name in ("low_light", "low_light_strong"))
        assert darker < 0.6 * dark < 0.6 * clean[0].mean()

    def test_unknown_conditions_and_unsuitable_images_are_rejected(self, clean) -> None:
        with pytest.raises(ConfigError, match=r"one of low_light, .*, got 'fog'"):
            degrade_pair("fog", *clean, "a")
        with pytest.raises(ImageError, match="as large as the visible"):
            degrade_pair("blur", clean[0], clean[1][:-1], "a")
        with pytest.raises(ImageError, match="8 bits"):
            degrade_pair("blur", clean[0], clean[1].astype(np.uint16), "a")
