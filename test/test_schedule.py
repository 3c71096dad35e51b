"""Noise schedules, respacing and the conversions between predictions, against their formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from textdifuse_ros.diffusion import prediction, schedule
from textdifuse_ros.diffusion.denoiser import make_denoised
from textdifuse_ros.diffusion.prediction import PredictionType
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.errors import ConfigError, InputError

KINDS: tuple[PredictionType, ...] = ("eps", "x0", "v")


def test_cosine_follows_its_formula_until_the_cap() -> None:
    full = schedule.cosine(1000)
    t = np.arange(1, 1001) / 1000
    formula = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(full.abar[:-1], formula[:-1], rtol=1e-9)
    assert full.betas[-1] == pytest.approx(0.999, abs=1e-12)
    assert full.abar[-1] > 0


def test_linear_is_ddpm_at_1000_and_scales_with_the_timesteps() -> None:
    np.testing.assert_allclose(schedule.linear(1000).betas, np.linspace(1e-4, 0.02, 1000), atol=1e-14)
    np.testing.assert_allclose(schedule.linear(500).betas, np.linspace(2e-4, 0.04, 500), atol=1e-14)
    assert schedule.linear(4).betas.max() <= 0.999 + 1e-12


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_derived_coefficients_follow_from_the_betas(name: str) -> None:
    full = schedule.by_name(name, 200)
    assert full.abar.dtype == np.float64 and len(full) == 200 and full.timesteps == tuple(range(200))
    np.testing.assert_allclose(np.cumprod(full.alphas), full.abar, rtol=1e-12)
    np.testing.assert_allclose(full.alphas + full.betas, 1.0, atol=1e-15)
    assert full.abar_prev[0] == 1.0
    ddpm = full.betas * (1 - full.abar_prev) / (1 - full.abar)
    np.testing.assert_allclose(full.posterior_variance, ddpm)
    np.testing.assert_allclose(full.posterior_log_variance[1:], np.log(ddpm[1:]))
    assert full.posterior_log_variance[0] == full.posterior_log_variance[1]
    assert full.posterior_mean_x0[0] == 1.0 and full.posterior_mean_z[0] == 0.0
    np.testing.assert_allclose(np.exp(2 * full.half_log_snr), full.abar / (1 - full.abar))
    np.testing.assert_allclose(np.exp(full.log_betas), full.betas)


def test_a_schedule_is_read_only() -> None:
    full = schedule.cosine(10)
    for row in (full.abar, full.betas, full.posterior_log_variance):
        with pytest.raises(ValueError, match="read-only"):
            row[0] = 0.5


def test_from_betas_accepts_any_betas() -> None:
    full = NoiseSchedule.from_betas(np.array([0.1, 0.2, 0.5]))
    np.testing.assert_allclose(full.abar, [0.9, 0.72, 0.36])


def test_invalid_schedules_are_rejected_by_name() -> None:
    with pytest.raises(ConfigError, match="schedule must be one of cosine, linear, got 'sine'"):
        schedule.by_name("sine", 10)
    with pytest.raises(ConfigError, match="timesteps must be"):
        schedule.cosine(0)
    with pytest.raises(InputError, match="abar"):
        NoiseSchedule(np.array([0.5, 0.7]), (0, 1))
    with pytest.raises(InputError, match="timesteps"):
        NoiseSchedule(np.array([0.7, 0.5]), (3, 3))


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 25, 250, 1000])
def test_a_respaced_schedule_agrees_with_the_full_one(name: str, steps: int) -> None:
    full = schedule.by_name(name, 1000)
    short = respace(full, space_timesteps(1000, steps))
    at = list(short.timesteps)
    assert len(short) == steps
    assert np.abs(short.abar - full.abar[at]).max() == 0.0
    assert np.abs(np.cumprod(1.0 - short.betas) - full.abar[at]).max() < 1e-12
    np.testing.assert_allclose(np.cumprod(short.alphas), full.abar[at], rtol=1e-12)
    assert np.isfinite(short.posterior_log_variance).all()


def test_respacing_to_every_timestep_changes_nothing() -> None:
    full = schedule.cosine(50)
    same = respace(full, range(50))
    np.testing.assert_array_equal(same.betas, full.betas)
    np.testing.assert_array_equal(same.posterior_log_variance, full.posterior_log_variance)


def test_respacing_twice_is_respacing_once() -> None:
    full = schedule.cosine(1000)
    twice = respace(respace(full, space_timesteps(1000, 4)), (999, 499))
    assert twice.timesteps == (499, 999)
    np.testing.assert_array_equal(twice.abar, respace(full, (499, 999)).abar)


def test_few_step_sets_are_nested() -> None:
    assert space_timesteps(1000, 1) == (999,)
    assert space_timesteps(1000, 2) == (499, 999)
    assert space_timesteps(1000, 4) == (249, 499, 749, 999)


@pytest.mark.parametrize("T", [10, 97, 1000])
def test_spaced_timesteps_end_at_pure_noise_and_are_nested_for_multiples(T: int) -> None:
    for steps in range(1, T + 1, 1 if T < 100 else 37):
        spaced = space_timesteps(T, steps)
        assert len(spaced) == steps and spaced[-1] == T - 1 and spaced[0] >= 0
        assert all(low < high for low, high in itertools.pairwise(spaced))
        if steps * 3 <= T:
            assert set(spaced) <= set(space_timesteps(T, steps * 3))


def test_invalid_steps_and_timesteps_are_rejected() -> None:
    full = schedule.cosine(10)
    for steps in (0, 11, 2.5):
        with pytest.raises(ConfigError, match="steps must be"):
            space_timesteps(10, steps)  # type: ignore[arg-type]
    for timesteps in ((), (3, 3), (3, 10)):
        with pytest.raises(InputError, match="timesteps to respace to"):
            respace(full, timesteps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("abar", [0.9999, 0.5, 0.01])
def test_every_prediction_recovers_x0_and_eps(kind: PredictionType, abar: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 1, 4, 5, generator=generator, dtype=torch.float64)
    z = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps
    output = prediction.target(kind, x0, eps, abar)
    got = prediction.to_x0_eps(kind, output, z, abar)
    torch.testing.assert_close(got, (x0, eps), rtol=0, atol=1e-10)


def test_conversions_invert_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    z, x0 = torch.randn(2, 2, 1, 3, 3, generator=generator, dtype=torch.float64)
    abar = torch.tensor([0.9, 0.2], dtype=torch.float64).reshape(2, 1, 1, 1)
    eps = prediction.eps_from_x0(x0, z, abar)
    v = prediction.v_from_x0(x0, z, abar)
    torch.testing.assert_close(v, abar.sqrt() * eps - (1 - abar).sqrt() * x0)
    torch.testing.assert_close(v, prediction.v_from_eps(eps, z, abar))
    torch.testing.assert_close(prediction.x0_from_eps(eps, z, abar), x0)
    torch.testing.assert_close(prediction.x0_from_v(v, z, abar), x0)
    torch.testing.assert_close(prediction.eps_from_v(v, z, abar), eps)


def test_coefficients_are_looked_up_in_float64() -> None:
    full = schedule.cosine(1000)
    abar = prediction.per_sample(full.abar, torch.tensor([0, 999]))
    assert isinstance(abar, torch.Tensor) and abar.dtype == torch.float64 and abar.shape == (2, 1, 1, 1)
    z = torch.ones(2, 1, 1, 1)
    eps = prediction.eps_from_x0(torch.zeros_like(z), z, abar)
    assert eps.dtype == torch.float32
    exact = torch.tensor(1 / np.sqrt(1 - full.abar[[0, 999]]), dtype=torch.float32)
    torch.testing.assert_close(eps.flatten(), exact, rtol=1e-6, atol=0)


def test_sixteen_bit_outputs_are_converted_to_float32() -> None:
    for kind in KINDS:
        x0, eps = prediction.to_x0_eps(kind, torch.ones(1, 1, 2, 2, dtype=torch.bfloat16), torch.ones(1, 1, 2, 2), 0.5)
        assert x0.dtype == eps.dtype == torch.float32


def test_x0_and_v_predictions_are_stable_at_pure_noise_and_eps_is_not() -> None:
    abar = float(schedule.cosine(1000).abar[-1])
    z, error = torch.ones(1, 1, 1, 1), 1e-3
    for kind, bound in (("x0", 1e-6), ("v", 1.1e-3)):
        right, _ = prediction.to_x0_eps(kind, z * 0.5, z, abar)  # type: ignore[arg-type]
        wrong, _ = prediction.to_x0_eps(kind, z * 0.5 + (error if kind == "v" else 0), z, abar)  # type: ignore[arg-type]
        assert (wrong - right).abs().max() <= bound
    right, _ = prediction.to_x0_eps("eps", z, z, abar)
    wrong, _ = prediction.to_x0_eps("eps", z + error, z, abar)
    assert (wrong - right).abs().max() > 10


def test_unknown_predictions_are_rejected() -> None:
    z = torch.ones(1, 1, 1, 1)
    with pytest.raises(ConfigError, match="prediction must be one of eps, x0, v, got 'score'"):
        prediction.to_x0_eps("score", z, z, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="prediction"):
        prediction.target("score", z, z, 0.5)  # type: ignore[arg-type]


def test_a_clipped_denoised_stays_in_range_and_consistent_with_z() -> None:
    full = schedule.cosine(1000)
    z = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(2, 1, 2, 2)
    t = torch.tensor([300, 700])
    fraction = torch.full_like(z, 0.25)
    for kind in KINDS:
        denoised = make_denoised(kind, z * 2, z, t, full, fraction, clip=True)
        assert denoised.x0.abs().max() <= 1.0
        abar = torch.tensor(full.abar[[300, 700]]).reshape(2, 1, 1, 1)
        torch.testing.assert_close(abar.sqrt() * denoised.x0 + (1 - abar).sqrt() * denoised.eps, z)
        assert denoised.variance is not None and torch.equal(denoised.variance, fraction)
    free = make_denoised("x0", z * 2, z, 300, full)
    assert torch.equal(free.x0, z * 2) and free.variance is None
