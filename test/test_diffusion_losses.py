"""The hybrid loss of equation 1 and the few-step objective."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from textdifuse_ros.diffusion import schedule
from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.losses import (
    discretized_gaussian_nll,
    few_step_loss,
    hybrid_loss,
    normal_kl,
    vlb_term,
)
from textdifuse_ros.diffusion.process import p_mean_variance, q_posterior, q_sample
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.image.gradients import sobel

FULL = schedule.cosine(1000)
FOUR = respace(FULL, space_timesteps(1000, 4))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(index: Tensor, run: schedule.NoiseSchedule = FULL) -> tuple[Tensor, Tensor, Tensor, Denoised]:
    """Return x0 on 256 levels, its noise, z_t, and an imperfect estimate with variance."""
    n = len(index)
    x0 = (randn(n, 1, 4, 4).tanh() * 127.5 + 127.5).round() / 127.5 - 1
    noise = randn(n, 1, 4, 4, seed=1)
    z = q_sample(x0, index, noise, run)
    t = torch.tensor(run.timesteps)[index]
    fraction = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return x0, noise, z, make_denoised("x0", x0 * 0.9 + 0.02, z, t, FULL, fraction)


def test_kl_agrees_with_torch() -> None:
    mean1, mean2, log1, log2 = (randn(50, seed=s) for s in range(4))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean1, (log1 / 2).exp()), normal(mean2, (log2 / 2).exp()))
    torch.testing.assert_close(normal_kl(mean1, log1, mean2, log2), expected)
    torch.testing.assert_close(normal_kl(mean1, log1, mean1, log1), torch.zeros(50, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 0.3), (0.95, 0.1), (-0.2, 0.003), (1.4, 1.0)])
def test_probabilities_of_all_levels_sum_to_one(mean: float, sigma: float, dtype: torch.dtype) -> None:
    levels = torch.arange(256, dtype=dtype) / 127.5 - 1
    log_variance = torch.tensor(2 * math.log(sigma), dtype=dtype)
    nll = discretized_gaussian_nll(levels, torch.tensor(mean, dtype=dtype), log_variance)
    assert float(torch.exp(-nll).sum()) == pytest.approx(1.0, abs=1e-10 if dtype == torch.float64 else 1e-3)


def test_likelihood_of_a_level_is_the_normal_distribution_over_its_bin() -> None:
    normal = torch.distributions.Normal(torch.tensor(0.1, dtype=torch.float64), 0.2)
    for pixel in (0, 1, 100, 254, 255):
        x = torch.tensor(pixel / 127.5 - 1, dtype=torch.float64)
        low = normal.cdf(x - 1 / 255) if pixel > 0 else torch.tensor(0.0)
        high = normal.cdf(x + 1 / 255) if pixel < 255 else torch.tensor(1.0)
        got = discretized_gaussian_nll(x, torch.tensor(0.1), torch.tensor(2 * math.log(0.2), dtype=torch.float64))
        assert float(got) == pytest.approx(-math.log(float(high - low)), rel=1e-6)


def test_likelihood_and_its_gradient_stay_finite_far_from_the_mean() -> None:
    levels = torch.tensor([0, 1, 128, 254, 255]) / 127.5 - 1
    for mean in (-1.0, 0.0, 1.0):
        log_variance = torch.full((5,), -18.0, requires_grad=True)
        nll = discretized_gaussian_nll(levels, torch.full((5,), mean), log_variance)
        nll.sum().backward()
        assert torch.isfinite(nll).all() and (nll >= 0).all()
        assert log_variance.grad is not None and torch.isfinite(log_variance.grad).all()


def test_the_bound_is_kl_above_step_0_and_likelihood_at_it() -> None:
    index = torch.tensor([0, 1, 500, 999])
    x0, _, z, denoised = case(index)
    got = vlb_term(denoised, x0, z, index, FULL)
    q, p = q_posterior(x0, z, index, FULL), p_mean_variance(denoised, z, index, FULL)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(
        normal(q.mean, (q.log_variance / 2).exp().expand_as(q.mean)), normal(p.mean, (p.log_variance / 2).exp())
    )
    torch.testing.assert_close(got[1:], kl.mean((1, 2, 3))[1:], rtol=1e-6, atol=1e-12)
    nll = discretized_gaussian_nll(x0[:1], p.mean[:1], p.log_variance[:1])
    torch.testing.assert_close(got[0], nll.mean())


def test_the_bound_accepts_one_index_for_all_samples() -> None:
    index = torch.tensor([3, 3])
    x0, _, z, denoised = case(index, FOUR)
    torch.testing.assert_close(vlb_term(denoised, x0, z, 3, FOUR), vlb_term(denoised, x0, z, index, FOUR))


def test_the_bound_vanishes_for_the_posterior_itself() -> None:
    index = torch.tensor([1, 400])
    x0, noise, z, _ = case(index)
    perfect = Denoised(x0, noise, torch.zeros_like(x0))
    assert float(vlb_term(perfect, x0, z, index, FULL).abs().max()) < 1e-12


def test_the_bound_trains_the_variance_and_not_the_mean() -> None:
    index = torch.tensor([0, 5, 700])
    x0, _, z, denoised = case(index)
    estimate, fraction = denoised.x0.clone().requires_grad_(), denoised.variance.clone().requires_grad_()  # type: ignore[union-attr]
    vlb_term(dataclasses.replace(denoised, x0=estimate, variance=fraction), x0, z, index, FULL).sum().backward()
    assert estimate.grad is None
    assert fraction.grad is not None and torch.isfinite(fraction.grad).all()
    assert (fraction.grad.flatten(1).abs().sum(1) > 0).all()


def test_minimizing_the_bound_finds_the_best_variance() -> None:
    """For an estimate that is off by d, the best log variance is that of beta~ + (c d)^2."""
    index, off = 2, 0.4
    x0 = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    z = q_sample(x0, index, torch.ones_like(x0), FOUR)
    best = FOUR.posterior_variance[index] + (FOUR.posterior_mean_x0[index] * off) ** 2
    low, high = FOUR.posterior_log_variance[index], FOUR.log_betas[index]
    exact = (math.log(best) - low) / (high - low)
    assert 0 < exact < 1
    tried = np.linspace(0, 1, 1001)
    values = [float(vlb_term(Denoised(x0 + off, x0, torch.full_like(x0, v)), x0, z, index, FOUR)) for v in tried]
    assert tried[int(np.argmin(values))] == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("simple", ["eps", "x0"])
def test_the_hybrid_loss_is_the_simple_term_plus_the_weighted_bound(simple: str) -> None:
    index = torch.tensor([0, 2, 3])
    x0, noise, z, denoised = case(index, FOUR)
    got = hybrid_loss(denoised, x0, noise, z, index, FOUR, weight=0.01, simple=simple)  # type: ignore[arg-type]
    error = denoised.eps - noise if simple == "eps" else denoised.x0 - x0
    torch.testing.assert_close(got.simple, (error**2).mean((1, 2, 3)))
    torch.testing.assert_close(got.vlb, vlb_term(denoised, x0, z, index, FOUR))
    torch.testing.assert_close(got.total, got.simple + 0.01 * 4 * got.vlb)
    assert got.total.shape == (3,)


def test_without_a_variance_the_hybrid_loss_is_the_simple_one() -> None:
    index = torch.tensor([2])
    x0, noise, z, denoised = case(index, FOUR)
    got = hybrid_loss(dataclasses.replace(denoised, variance=None), x0, noise, z, index, FOUR)
    assert torch.equal(got.total, got.simple) and float(got.vlb.sum()) == 0.0


def test_an_unknown_simple_term_is_rejected() -> None:
    index = torch.tensor([2])
    x0, noise, z, denoised = case(index, FOUR)
    with pytest.raises(ConfigError, match="simple must be eps or x0"):
        hybrid_loss(denoised, x0, noise, z, index, FOUR, simple="v")  # type: ignore[arg-type]


def test_the_hybrid_loss_is_finite_at_every_step_in_float32() -> None:
    for run in (FULL, FOUR, respace(FULL, (999,))):
        index = torch.arange(len(run))
        x0, noise, z, denoised = case(index, run)
        narrow = Denoised(denoised.x0.float(), denoised.eps.float(), denoised.variance.float())  # type: ignore[union-attr]
        got = hybrid_loss(narrow, x0.float(), noise.float(), z.float(), index, run)
        assert got.total.dtype == torch.float32 and torch.isfinite(got.total).all()


def test_the_few_step_loss_sums_values_and_gradients() -> None:
    x0 = randn(2, 1, 5, 6)

    def difference(x: Tensor) -> Tensor:
        return x.diff(dim=-1).abs()

    assert torch.equal(few_step_loss(x0, x0, difference), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(few_step_loss(x0 + 0.25, x0, difference), torch.full((2,), 0.25, dtype=torch.float64))
    doubled = few_step_loss(2 * x0, x0, difference, gradient_weight=0.5)
    expected = x0.abs().mean((1, 2, 3)) + 0.5 * difference(x0).mean((1, 2, 3))
    torch.testing.assert_close(doubled, expected)


def test_the_few_step_loss_accepts_sobel_gradients() -> None:
    ramp = torch.linspace(-1, 1, 9).expand(1, 1, 9, 9)
    flat = torch.zeros_like(ramp)
    got = few_step_loss(ramp, flat, sobel, gradient_weight=1.0)
    torch.testing.assert_close(got, (ramp.abs().mean() + sobel(ramp).mean()).reshape(1))
