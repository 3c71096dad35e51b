"""``textdifuse evaluate --panel steps``: restoring one source by several samplers and numbers of steps."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from evaluation_rig import scene

from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.data.conditions import degrade_pair
from textdifuse_ros.evaluate.steps import draw_metrics
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.metrics.draws import gradient_energy, rank_correlation
from textdifuse_ros.metrics.images import to_grey
from textdifuse_ros.metrics.similarity import psnr

pytest_plugins = ["evaluation_rig"]

CROP = (slice(14, 46), slice(24, 56))
"""The middle 32 pixels of 60 x 80."""


@pytest.fixture
def model(tiny_checkpoint) -> list:
    return ["--panel", "steps", "--model", tiny_checkpoint, "--threads", 1, "--precision", "float32"]


@pytest.fixture
def small(model) -> list:
    return [*model, "--seeds", 3, "--crop", 32, "--limit", 2]


class TestFigures:
    def test_every_sampler_count_and_condition_has_a_row(self, evaluate, small, tmp_path) -> None:
        flags = ["--step-counts", "1,3", "--condition", "blur", "--condition", "haze", "--csv", tmp_path / "t.csv"]
        content = evaluate(*small, *flags)
        names = [f"{sampler} {count}" for sampler in ("ddim", "dpm_solver", "ancestral") for count in (1, 3)]
        assert list(content["rows"]) == ["untouched", *names]
        assert list(content["conditions"]) == ["blur", "haze"]
        with (tmp_path / "t.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 2 * 2 * 7
        for name in ("PSNR_draw", "SSIM_draw", "gradient_energy"):
            figures = [content["conditions"][key]["rows"]["ddim 3"][name]["mean"] for key in ("blur", "haze")]
            assert content["rows"]["ddim 3"][name]["mean"] == pytest.approx(np.mean(figures))

    def test_draws_are_those_of_the_fuser_by_consecutive_seeds(self, evaluate, small, tiny_checkpoint) -> None:
        flags = ["--step-counts", "2", "--samplers", "ancestral", "--condition", "gaussian_noise", "--seed", 5]
        rows = evaluate(*small[:-1], 1, *flags)["rows"]
        fuser = Fuser.from_config(FuserConfig(model=str(tiny_checkpoint), precision="float32", threads=1))
        clean, infrared = scene(0)
        degraded = np.ascontiguousarray(degrade_pair("gaussian_noise", clean, infrared, "0")[0][CROP])
        true = to_grey(np.ascontiguousarray(clean[CROP]))
        greys = [
            to_grey(fuser.restore(visible=degraded, steps=2, sampler="ancestral", seed=seed).image)
            for seed in (5, 6, 7)
        ]
        figures = rows["ancestral 2"]
        assert figures["PSNR_draw"]["mean"] == pytest.approx(np.mean([psnr(grey, true) for grey in greys]), rel=1e-6)
        assert figures["PSNR_mean"]["mean"] == pytest.approx(psnr(np.mean(greys, 0), true), rel=1e-6)
        assert figures["spread"]["mean"] == pytest.approx(np.std(greys, 0, ddof=1).mean(), rel=1e-6)
        assert rows["untouched"]["PSNR_draw"]["mean"] == pytest.approx(psnr(to_grey(degraded), true), rel=1e-6)
        assert "spread" not in rows["untouched"]

    def test_a_thermal_condition_restores_the_infrared_image(self, evaluate, small) -> None:
        flags = ["--step-counts", "1", "--samplers", "ddim", "--condition", "thermal_stripes"]
        content = evaluate(*small[:-1], 1, *flags)
        clean, infrared = scene(0)
        striped = degrade_pair("thermal_stripes", clean, infrared, "0")[1]
        expected = psnr(np.ascontiguousarray(striped[CROP]), np.ascontiguousarray(infrared[CROP]))
        assert content["rows"]["untouched"]["PSNR_mean"]["mean"] == pytest.approx(expected)

    def test_differences_are_to_the_untouched_image_and_to_the_fewest_steps(self, evaluate, small) -> None:
        content = evaluate(*small, "--step-counts", "3,1", "--samplers", "ddim,ancestral", "--condition", "blur")
        rows, against = content["rows"], content["against"]
        assert list(against["fewest_steps"]) == ["ddim 3", "ancestral 3"]
        for row in ("ddim 3", "ancestral 3"):
            fewest = row.split()[0] + " 1"
            for other, name in (("untouched", "untouched"), ("fewest_steps", fewest)):
                expected = rows[row]["PSNR_mean"]["mean"] - rows[name]["PSNR_mean"]["mean"]
                assert against[other][row]["PSNR_mean"]["mean"] == pytest.approx(expected, abs=1e-9)
        assert "change_lit" in rows["ddim 3"] and "change_lit" not in rows["ddim 1"]

    def test_clean_images_can_be_restored_too_and_stand_apart(self, evaluate, small) -> None:
        flags = ["--step-counts", "1", "--samplers", "ddim", "--condition", "clean", "--condition", "blur"]
        content = evaluate(*small, *flags)
        assert content["conditions"]["clean"]["rows"]["untouched"]["PSNR_draw"]["mean"] == 100
        assert content["averaged"] == ["blur"]
        assert content["rows"] == content["conditions"]["blur"]["rows"]

    def test_the_report_shows_draws_and_tables_by_condition(self, evaluate, small, tmp_path, capfd) -> None:
        flags = ["--step-counts", "1,2", "--samplers", "ddim", "--condition", "blur", "--condition", "clean"]
        evaluate(*small, *flags, "--report", tmp_path / "report")
        page = (tmp_path / "report" / "index.html").read_text()
        assert "minus fewest_steps" in page and 'alt="ddim 2, detail"' in page and 'alt="untouched"' in page
        assert "The images as they are." in page and "proves nothing" not in page
        assert "proves nothing" not in capfd.readouterr().out


class TestMetricsOfDraws:
    CLEAN = scene(0)[1]

    def test_the_mean_of_noisy_draws_is_better_than_a_draw(self) -> None:
        """Independent noise of standard deviation 10: the mean of 16 has a sixteenth of the squared error."""
        noise = np.random.default_rng(0).normal(0, 10, (16, *self.CLEAN.shape))
        draws = np.clip(np.rint(120 + noise), 0, 255).astype(np.uint8)
        values = draw_metrics(draws, np.full(self.CLEAN.shape, 120, np.uint8))
        assert values["PSNR_mean"] - values["PSNR_draw"] == pytest.approx(10 * np.log10(16), abs=0.1)
        assert values["spread"] == pytest.approx(10, rel=0.05)
        assert values["brightness"] == pytest.approx(0, abs=0.1)

    def test_a_spread_that_is_larger_where_the_error_is_correlates_with_it(self) -> None:
        rng = np.random.default_rng(0)
        scale = np.linspace(0.5, 30, self.CLEAN.shape[1])
        error = rng.normal(0, scale, self.CLEAN.shape)
        draws = np.clip(120 + error + rng.normal(0, scale, (16, *self.CLEAN.shape)), 0, 255).astype(np.uint8)
        clean = np.full(self.CLEAN.shape, 120, np.uint8)
        assert draw_metrics(draws, clean)["spread_error_corr"] > 0.5
        assert draw_metrics(draws[..., ::-1], clean)["spread_error_corr"] > 0.5
        swapped = np.clip(120 + error[:, ::-1] + rng.normal(0, scale, draws.shape), 0, 255).astype(np.uint8)
        assert draw_metrics(swapped, clean)["spread_error_corr"] < 0.1

    def test_the_spread_of_well_exposed_regions_leaves_out_the_dark(self) -> None:
        clean = np.full((40, 80), 5, np.uint8)
        clean[:, 40:] = 120
        draws = np.repeat(clean[None], 4, 0)
        draws[::2, :, :20] += 40
        values = draw_metrics(draws, clean)
        assert values["spread"] > 5 and values["spread_lit"] == 0

    def test_blur_lowers_and_noise_raises_the_gradient_energy(self) -> None:
        soft = cv2.GaussianBlur(self.CLEAN, (0, 0), 2)
        noisy = np.clip(self.CLEAN + np.random.default_rng(0).normal(0, 20, soft.shape), 0, 255).astype(np.uint8)
        values = [draw_metrics(image[None], self.CLEAN)["gradient_energy"] for image in (soft, self.CLEAN, noisy)]
        assert values[0] < 0.9 and values[1] == 1 and values[2] > 1.5

    def test_gradient_energy_of_a_ramp(self) -> None:
        ramp = np.tile(np.arange(0, 40, 2, dtype=np.uint8), (5, 1))
        assert gradient_energy(ramp) == 4

    def test_rank_correlation_agrees_with_scipy(self) -> None:
        stats = pytest.importorskip("scipy.stats", reason="scipy, the independent implementation, is absent")
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 9, (2, 20, 30)).astype(float)
        y += x / 2
        assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x.ravel(), y.ravel()).statistic)
        assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
        assert np.isnan(rank_correlation(x, np.ones_like(x)))


class TestRejected:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--step-counts", "1,x"], "--step-counts must be integers separated by commas, got '1,x'"),
            (["--step-counts", "0"], "--step-counts must be"),
            (["--step-counts", "1,101"], "--step-counts must be"),
            (["--step-counts", "1,1"], "--step-counts must be different values"),
            (["--samplers", "ddim,euler"], "--samplers must be of ancestral, ddim, dpm_solver, posterior_mean"),
            (["--seeds", "1"], "--seeds must be"),
            (["--crop", "8"], "--crop must be"),
            (["--steps", "4"], "--steps must be given with another panel than steps"),
            (["--sampler", "ddim"], "--sampler must be given with another panel than steps"),
            (["--method", "Peer=."], "--method must be given with another panel"),
            (["--save-fused", "out"], "--save-fused must be given with another panel"),
            (["--pre", "max"], "--pre must be given with --panel clean or degraded"),
            (["--condition", "fog"], "--condition must be one of low_light"),
        ],
    )
    def test_unsuitable_options(self, refused, model, flags, message) -> None:
        assert message in refused(*model, *flags)

    @pytest.mark.parametrize("option", ["--step-counts", "--samplers", "--seeds", "--crop"])
    def test_its_options_with_another_panel(self, refused, option) -> None:
        assert f"{option} must be given with --panel steps" in refused(option, "2")

    def test_no_model(self, refused) -> None:
        assert "--panel steps must be given with --model" in refused("--panel", "steps")

    def test_clean_as_a_condition_of_the_degraded_panel(self, refused) -> None:
        assert "--condition must be one of" in refused("--panel", "degraded", "--condition", "clean")
