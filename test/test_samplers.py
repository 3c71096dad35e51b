"""The samplers against closed forms.

The data are normal, N(M, S^2) at every pixel, so the exact denoiser, the marginals, the probability-flow ODE and every
single step have closed forms; or a single point, which every sampler finds in any number of steps.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from textdifuse_ros.diffusion import samplers, schedule
from textdifuse_ros.diffusion.denoiser import Denoised, Denoiser
from textdifuse_ros.diffusion.process import reverse, start_noise
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.samplers import Ancestral, Ddim, DpmSolver, Sampler, SamplerState
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.errors import ConfigError, InputError

M, S = 0.3, 0.5
ALL = ("ancestral", "ddim", "dpm_solver", "posterior_mean")
FULL = schedule.cosine(1000)


def x0_slope(abar: float) -> float:
    """Slope d x0hat / d z of the exact denoiser."""
    return S * S * math.sqrt(abar) / marginal_variance(abar)


def marginal_variance(abar: float) -> float:
    """Variance of z for data N(M, S^2)."""
    return abar * S * S + 1 - abar


def exact_denoised(z: Tensor, abar: float) -> Denoised:
    x0 = M + x0_slope(abar) * (z - math.sqrt(abar) * M)
    return Denoised(x0, (z - math.sqrt(abar) * x0) / math.sqrt(1 - abar))


def exact_denoiser(full: NoiseSchedule, learned: NoiseSchedule | None = None) -> Denoiser:
    """The exact denoiser; with ``learned`` also the exact variance fraction for steps along that schedule."""

    def call(z: Tensor, t: int | Tensor) -> Denoised:
        assert isinstance(t, int)
        denoised = exact_denoised(z, float(full.abar[t]))
        if learned is None:
            return denoised
        index = learned.timesteps.index(t)
        if index == 0:
            return dataclasses.replace(denoised, variance=torch.zeros_like(z))
        low, high = learned.posterior_log_variance[index], learned.log_betas[index]
        v = (math.log(true_reverse_variance(learned, index)) - low) / (high - low)
        assert 0 <= v <= 1
        return dataclasses.replace(denoised, variance=torch.full_like(z, v))

    return call


def true_reverse_variance(run: NoiseSchedule, index: int) -> float:
    """Variance of z_prev given z: that of q(z_prev | z, x0) plus that of x0 given z."""
    abar = float(run.abar[index])
    uncertainty = S * S * (1 - abar) / marginal_variance(abar)
    return float(run.posterior_variance[index] + run.posterior_mean_x0[index] ** 2 * uncertainty)


def ode(z: Tensor, abar_from: float, abar_to: float) -> Tensor:
    """Closed form of the probability-flow ODE: the standardized z is constant."""
    ratio = math.sqrt(marginal_variance(abar_to) / marginal_variance(abar_from))
    return math.sqrt(abar_to) * M + ratio * (z - math.sqrt(abar_from) * M)


def grid() -> Tensor:
    return torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(1, 1, 2, 3)


def final(sampler: Sampler, z: Tensor, run: NoiseSchedule, seed: int = 0, **options: NoiseSchedule) -> Tensor:
    *_, last = reverse(exact_denoiser(FULL, **options), z, run, sampler, torch.Generator().manual_seed(seed))
    return last.z


def spaced(steps: int) -> NoiseSchedule:
    return respace(FULL, space_timesteps(1000, steps))


def one_step(sampler: Sampler, z: Tensor, run: NoiseSchedule, index: int, variance: float | None = None) -> Tensor:
    denoised = exact_denoised(z, float(run.abar[index]))
    if variance is not None:
        denoised = dataclasses.replace(denoised, variance=torch.full_like(z, variance))
    return sampler.step(SamplerState(z, index), denoised, run, torch.Generator().manual_seed(5)).z


def affine(sampler: Sampler, run: NoiseSchedule, index: int, variance: float | None = None) -> tuple[float, ...]:
    """Determine offset, slope and sigma of a step, ``offset + slope z + sigma n``, from two steps with the same n."""
    starts = (torch.full((1, 1, 2, 2), x, dtype=torch.float64) for x in (0, 1))
    zero, one = (one_step(sampler, start, run, index, variance) for start in starts)
    n = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    sigma = ((zero - zero.mean()) * (n - n.mean())).sum() / ((n - n.mean()) ** 2).sum()
    offset = zero - sigma * n
    assert float(offset.std()) < 1e-10, "the noise must come from the generator"
    return float(offset.mean()), float((one - zero).mean()), float(sigma)


@pytest.mark.parametrize("index", [24, 23, 10, 1])
def test_a_ddim_step_is_its_linear_map(index: int) -> None:
    run = spaced(25)
    a, b = float(run.abar[index]), float(run.abar_prev[index])
    k = x0_slope(a)
    slope = math.sqrt(b) * k + math.sqrt(1 - b) * (1 - math.sqrt(a) * k) / math.sqrt(1 - a)
    got = affine(Ddim(), run, index)
    expected = (math.sqrt(b) * M - slope * math.sqrt(a) * M, slope, 0.0)
    assert got == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("index", [24, 23, 10, 1])
@pytest.mark.parametrize("variance", [None, 0.0, 0.3, 1.0])
def test_an_ancestral_step_is_its_linear_map(index: int, variance: float | None) -> None:
    run = spaced(25)
    a, b = float(run.abar[index]), float(run.abar_prev[index])
    alpha, beta = a / b, 1 - a / b
    # Equation 5 with the exact eps, and equation 6.
    k = x0_slope(a)
    eps_slope = (1 - math.sqrt(a) * k) / math.sqrt(1 - a)
    slope = (1 - beta / math.sqrt(1 - a) * eps_slope) / math.sqrt(alpha)
    beta_tilde = (1 - b) / (1 - a) * beta
    sigma = math.exp(0.5 * ((variance or 0.0) * math.log(beta) + (1 - (variance or 0.0)) * math.log(beta_tilde)))
    offset, got_slope, got_sigma = affine(Ancestral(), run, index, variance)
    # At abar = 2e-9 equation 5, by way of eps, has few correct digits; the sampler does not use that form.
    assert got_slope == pytest.approx(slope, abs=1e-11 if a > 1e-6 else 1e-4)
    assert offset + got_slope * math.sqrt(a) * M == pytest.approx(math.sqrt(b) * M, abs=1e-11)
    assert got_sigma == pytest.approx(sigma, rel=1e-9)


def test_ddim_with_eta_1_is_ancestral_with_beta_tilde() -> None:
    for steps in (2, 4, 25):
        got, expected = (final(sampler, grid(), spaced(steps), seed=3) for sampler in (Ddim(eta=1.0), Ancestral()))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def test_eta_scales_the_noise_of_ddim() -> None:
    run = spaced(10)
    for eta in (0.0, 0.4, 1.0):
        assert affine(Ddim(eta), run, 5)[2] == pytest.approx(eta * math.sqrt(run.posterior_variance[5]), abs=1e-12)


@pytest.mark.parametrize("sampler", [Ddim(), DpmSolver()], ids=["ddim", "dpm_solver"])
def test_deterministic_samplers_converge_to_the_closed_form(sampler: Sampler) -> None:
    exact = ode(grid(), float(FULL.abar[-1]), 1.0)
    errors = [float((final(sampler, grid(), spaced(steps)) - exact).abs().max()) for steps in (5, 20, 80, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < (2e-3 if isinstance(sampler, Ddim) else 1e-4)


def test_the_second_order_solver_is_more_accurate_than_ddim_at_equal_steps() -> None:
    exact = ode(grid(), float(FULL.abar[-1]), 1.0)
    for steps in (5, 10, 20, 40):
        first, second = (final(sampler, grid(), spaced(steps)) - exact for sampler in (Ddim(), DpmSolver()))
        assert second.abs().max() < first.abs().max()


@pytest.mark.parametrize("widths", [(1.0, 1.0), (1.0, 2.0)], ids=["even", "alternating"])
@pytest.mark.parametrize(("name", "order"), [("ddim", 1.0), ("dpm_solver", 2.0)])
def test_observed_order_of_convergence(name: str, order: float, widths: tuple[float, float]) -> None:
    """The order in the step size of lambda, from lambda = -2 to 2, without the final step to x0."""
    errors = []
    for steps in (80, 160, 320):
        fraction = np.r_[0.0, np.cumsum(np.tile(widths, steps // 2))]
        lam = 2.0 - 4.0 * fraction / fraction[-1]
        run = NoiseSchedule(1 / (1 + np.exp(-2 * lam)), tuple(range(steps + 1)))
        state = SamplerState.start(grid(), run)
        while state.index > 0:
            denoised = exact_denoised(state.z, float(run.abar[state.index]))
            state = samplers.by_name(name).step(state, denoised, run, None)
        exact = ode(grid(), float(run.abar[-1]), float(run.abar[0]))
        errors.append(float((state.z - exact).abs().max()))
    observed = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert observed[-1] == pytest.approx(order, abs=0.06), errors


def test_ancestral_with_the_exact_variance_has_the_exact_marginal_at_every_step() -> None:
    for steps in (2, 4, 25):
        run = spaced(steps)
        mean, variance = math.sqrt(run.abar[-1]) * M, marginal_variance(float(run.abar[-1]))
        for index in range(steps - 1, 0, -1):
            low, high = run.posterior_log_variance[index], run.log_betas[index]
            v = (math.log(true_reverse_variance(run, index)) - low) / (high - low)
            offset, slope, sigma = affine(Ancestral(), run, index, v)
            mean, variance = offset + slope * mean, slope**2 * variance + sigma**2
            assert mean == pytest.approx(math.sqrt(run.abar_prev[index]) * M, abs=1e-8)
            assert variance == pytest.approx(marginal_variance(float(run.abar_prev[index])), abs=1e-8)


@pytest.mark.parametrize("learned", [False, True], ids=["beta~", "learned"])
def test_many_ancestral_steps_draw_from_the_data(learned: bool) -> None:
    run, count = spaced(250), 20_000
    z = start_noise((1, 1, 100, count // 100), torch.Generator().manual_seed(1)).double()
    drawn = final(Ancestral(), z, run, seed=2, **({"learned": run} if learned else {}))
    error = S / math.sqrt(count)
    assert float(drawn.mean()) == pytest.approx(M, abs=4 * error)
    # beta~ is the smallest variance possible: a little too narrow in finitely many steps.
    assert float(drawn.std()) == pytest.approx(S, abs=4 * error / math.sqrt(2) + (0 if learned else 0.01))


def test_the_ancestral_mean_and_variance_obey_the_recursion() -> None:
    run, count = spaced(4), 40_000
    z = torch.randn(1, 1, 200, count // 200, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    mean, variance = 0.0, 1.0
    for step in reverse(exact_denoiser(FULL), z, run, Ancestral(), torch.Generator().manual_seed(6)):
        if step.index == 0:
            break
        offset, slope, sigma = affine(Ancestral(), run, step.index)
        mean, variance = offset + slope * mean, slope**2 * variance + sigma**2
        assert float(step.z.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / count))
        assert float(step.z.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 25])
def test_a_single_point_is_found_exactly(name: str, steps: int) -> None:
    point = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def denoise(z: Tensor, t: int | Tensor) -> Denoised:
        abar = float(FULL.abar[t])
        return Denoised(point.clone(), (z - math.sqrt(abar) * point) / math.sqrt(1 - abar), torch.full_like(z, 0.5))

    generator = torch.Generator().manual_seed(1)
    *_, last = reverse(denoise, start_noise(point.shape, generator), spaced(steps), samplers.by_name(name), generator)
    assert last.index == 0 and torch.equal(last.z, point)


@pytest.mark.parametrize("name", ["ddim", "dpm_solver"])
def test_for_a_single_point_the_noise_stays_constant(name: str) -> None:
    """With the exact eps, every state of a deterministic sampler is the point plus the initial noise."""
    eps, run = grid(), spaced(6)
    point = torch.full_like(eps, 0.7)
    start = math.sqrt(run.abar[-1]) * point + math.sqrt(1 - run.abar[-1]) * eps

    def denoise(z: Tensor, t: int | Tensor) -> Denoised:
        return Denoised(point.clone(), eps.clone())

    for step in reverse(denoise, start, run, samplers.by_name(name)):
        abar = run.abar_prev[step.index]
        torch.testing.assert_close(step.z, math.sqrt(abar) * point + math.sqrt(1 - abar) * eps)


@pytest.mark.parametrize("name", ALL)
def test_one_step_gives_the_estimate_itself(name: str) -> None:
    got = list(reverse(exact_denoiser(FULL), grid(), spaced(1), samplers.by_name(name)))
    assert len(got) == 1
    torch.testing.assert_close(got[0].z, exact_denoised(grid(), float(FULL.abar[-1])).x0, rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_a_step_does_not_change_its_inputs(name: str) -> None:
    run = spaced(4)
    state = SamplerState(grid(), 2, grid() * 0.5, float(run.half_log_snr[3]))
    denoised = exact_denoised(state.z, float(run.abar[2]))
    copies = [x.clone() for x in (state.z, denoised.x0, denoised.eps)]
    sampler = samplers.by_name(name)
    first = sampler.step(state, denoised, run, torch.Generator().manual_seed(0))
    again = sampler.step(state, denoised, run, torch.Generator().manual_seed(0))
    assert torch.equal(first.z, again.z) and first.index == again.index == 1
    for copy, now in zip(copies, (state.z, denoised.x0, denoised.eps), strict=True):
        assert torch.equal(copy, now)
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.index = 0  # type: ignore[misc]


@pytest.mark.parametrize("sampler", [Ancestral(), Ddim(eta=0.5)], ids=["ancestral", "ddim eta=0.5"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_image(sampler: Sampler) -> None:
    z = grid().float()
    torch.manual_seed(0)
    one = final(sampler, z, spaced(4), seed=1)
    torch.manual_seed(99)
    assert final(sampler, z, spaced(4), seed=1).numpy().tobytes() == one.numpy().tobytes()
    assert not torch.equal(final(sampler, z, spaced(4), seed=2), one)


@pytest.mark.parametrize("name", ["ddim", "dpm_solver"])
def test_deterministic_samplers_draw_no_noise(name: str) -> None:
    generator = torch.Generator().manual_seed(7)
    before = generator.get_state()
    list(reverse(exact_denoiser(FULL), grid(), spaced(4), samplers.by_name(name), generator))
    assert torch.equal(before, generator.get_state())


def test_a_missing_generator_is_rejected() -> None:
    with pytest.raises(InputError, match=r"the generator must be a torch\.Generator"):
        list(reverse(exact_denoiser(FULL), grid(), spaced(2), Ancestral()))


def test_unknown_samplers_and_settings_are_rejected() -> None:
    with pytest.raises(
        ConfigError, match="sampler must be one of ancestral, ddim, dpm_solver, posterior_mean, got 'euler'"
    ):
        samplers.by_name("euler")
    with pytest.raises(ConfigError, match="eta must be"):
        Ddim(eta=1.5)
