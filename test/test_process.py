"""The forward process, the Gaussians of a step and the reverse loop."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from textdifuse_ros.diffusion import process, samplers, schedule
from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.errors import InputError

FULL = schedule.cosine(1000)
FOUR = respace(FULL, space_timesteps(1000, 4))


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shrinking(z: Tensor, t: int | Tensor) -> Denoised:
    """An arbitrary denoiser whose x0 depends on z and on the timestep."""
    return make_denoised("x0", torch.tanh(z) * (0.5 + float(t) / 2000), z, t, FULL, torch.full_like(z, 0.5))


def test_the_forward_process_follows_its_formula_for_one_index_and_for_many() -> None:
    x0, noise = randn(3, 1, 4, 5), randn(3, 1, 4, 5, seed=1)
    index = torch.tensor([0, 500, 999])
    got = process.q_sample(x0, index, noise, FULL)
    for i, t in enumerate(index.tolist()):
        expected = math.sqrt(FULL.abar[t]) * x0[i] + math.sqrt(1 - FULL.abar[t]) * noise[i]
        torch.testing.assert_close(got[i], expected)
        torch.testing.assert_close(process.q_sample(x0[i : i + 1], t, noise[i : i + 1], FULL)[0], expected)


def test_the_forward_process_computes_at_least_in_float32() -> None:
    x0 = randn(1, 1, 2, 2, dtype=torch.bfloat16)
    assert process.q_sample(x0, 3, x0, FULL).dtype == torch.float32


def test_noising_step_by_step_gives_the_closed_form_marginal() -> None:
    mean, variance = 1.0, 0.0
    for index in range(len(FOUR)):
        mean, variance = math.sqrt(FOUR.alphas[index]) * mean, FOUR.alphas[index] * variance + FOUR.betas[index]
        x0 = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        assert float(process.q_sample(x0, index, x0 * 0, FOUR)) == pytest.approx(mean, rel=1e-12)
        assert float(process.q_sample(x0 * 0, index, x0, FOUR)) ** 2 == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("run", [FULL, FOUR], ids=["full", "respaced"])
def test_the_posterior_follows_bayes_theorem(run: schedule.NoiseSchedule) -> None:
    """q(y | z, x0) is q(z | y) q(y | x0) / q(z | x0), compared as densities at many points y."""
    x0, z = torch.tensor(0.4, dtype=torch.float64), torch.tensor(-0.8, dtype=torch.float64)
    for index in (1, 2, len(run) - 1):
        q = process.q_posterior(x0.reshape(1, 1, 1, 1), z.reshape(1, 1, 1, 1), index, run)
        posterior = torch.distributions.Normal(q.mean.flatten(), (0.5 * q.log_variance).exp().flatten())
        y = posterior.mean + posterior.stddev * torch.linspace(-3, 3, 13, dtype=torch.float64)
        normal = torch.distributions.Normal
        a, b = run.abar[index], run.abar_prev[index]
        bayes = (
            normal(y * math.sqrt(run.alphas[index]), math.sqrt(run.betas[index])).log_prob(z)
            + normal(x0 * math.sqrt(b), math.sqrt(1 - b)).log_prob(y)
            - normal(x0 * math.sqrt(a), math.sqrt(1 - a)).log_prob(z)
        )
        torch.testing.assert_close(posterior.log_prob(y), bayes, rtol=1e-7, atol=1e-7)


def test_the_last_posterior_mean_is_x0() -> None:
    x0, z = randn(2, 1, 3, 3), randn(2, 1, 3, 3, seed=1)
    assert torch.equal(process.q_posterior(x0, z, 0, FOUR).mean, x0)


def test_the_model_mean_and_variance_follow_equations_5_and_6() -> None:
    z, eps, v = randn(4, 1, 3, 3), randn(4, 1, 3, 3, seed=1), torch.rand(4, 1, 3, 3, dtype=torch.float64)
    index = torch.tensor([1, 100, 500, 990])
    denoised = make_denoised("eps", eps, z, index, FULL, v)
    got = process.p_mean_variance(denoised, z, index, FULL)
    i = index.numpy()
    beta, alpha, abar, abar_prev = (
        torch.tensor(row[i]).reshape(4, 1, 1, 1) for row in (FULL.betas, FULL.alphas, FULL.abar, FULL.abar_prev)
    )
    torch.testing.assert_close(got.mean, (z - beta / (1 - abar).sqrt() * eps) / alpha.sqrt(), rtol=1e-8, atol=1e-8)
    beta_tilde = (1 - abar_prev) / (1 - abar) * beta
    torch.testing.assert_close(got.log_variance, v * beta.log() + (1 - v) * beta_tilde.log())
    fixed = process.p_mean_variance(make_denoised("eps", eps, z, index, FULL), z, index, FULL)
    torch.testing.assert_close(fixed.log_variance, beta_tilde.log())
    assert torch.equal(fixed.mean, got.mean)


def test_the_gaussians_of_a_batch_equal_those_of_its_samples() -> None:
    z, x0 = randn(3, 1, 2, 2), randn(3, 1, 2, 2, seed=1)
    index = torch.tensor([0, 1, 3])
    together = process.q_posterior(x0, z, index, FOUR)
    for i, k in enumerate(index.tolist()):
        alone = process.q_posterior(x0[i : i + 1], z[i : i + 1], k, FOUR)
        torch.testing.assert_close(together.mean[i : i + 1], alone.mean)
        assert float(together.log_variance[i]) == float(alone.log_variance)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm_solver"])
def test_the_loop_yields_every_step_down_to_x0(name: str) -> None:
    called: list[int] = []

    def denoise(z: Tensor, t: int | Tensor) -> Denoised:
        assert isinstance(t, int) and z.dtype == torch.float32
        called.append(t)
        return shrinking(z, t)

    generator = torch.Generator().manual_seed(0)
    start = process.start_noise((2, 1, 4, 5), generator)
    steps = list(process.reverse(denoise, start, FOUR, samplers.by_name(name), generator))
    assert [step.index for step in steps] == [3, 2, 1, 0]
    assert [step.timestep for step in steps] == called == [999, 749, 499, 249]
    assert all(step.z.shape == start.shape and step.z.dtype == step.x0.dtype == torch.float32 for step in steps)
    assert torch.equal(steps[-1].z, steps[-1].x0)
    torch.testing.assert_close(steps[0].x0, shrinking(start, 999).x0)
    assert not torch.equal(steps[0].z, steps[0].x0)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm_solver"])
def test_the_loop_overwrites_neither_the_start_nor_yielded_tensors(name: str) -> None:
    start = randn(1, 1, 3, 3, dtype=torch.float32)
    original, yielded = start.clone(), []
    loop = process.reverse(shrinking, start, FOUR, samplers.by_name(name), torch.Generator().manual_seed(0))
    for step in loop:
        yielded.append((step.z, step.z.clone(), step.x0, step.x0.clone()))
    assert torch.equal(start, original)
    assert all(torch.equal(z, z_copy) and torch.equal(x0, x0_copy) for z, z_copy, x0, x0_copy in yielded)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm_solver"])
def test_interleaved_loops_are_independent(name: str) -> None:
    sampler, starts = samplers.by_name(name), [randn(1, 1, 3, 3, seed=s, dtype=torch.float32) for s in (0, 1)]

    def loop(i: int) -> Iterator[process.ReverseStep]:
        return process.reverse(shrinking, starts[i], FOUR, sampler, torch.Generator().manual_seed(i))

    alone = [list(loop(i))[-1].z for i in (0, 1)]
    together = list(zip(loop(0), loop(1), strict=True))[-1]
    for expected, got in zip(alone, together, strict=True):
        assert torch.equal(expected, got.z)


def test_no_further_step_is_computed_after_a_consumer_stops() -> None:
    called: list[int | Tensor] = []

    def denoise(z: Tensor, t: int | Tensor) -> Denoised:
        called.append(t)
        return shrinking(z, t)

    next(process.reverse(denoise, randn(1, 1, 2, 2), FOUR, samplers.Ddim()))
    assert called == [999]


def test_the_loop_can_start_from_a_noised_image() -> None:
    """With the lower timesteps only, the loop starts from the previous image noised to the highest of them."""
    run = respace(FULL, FOUR.timesteps[:2])
    image, noise = randn(1, 1, 3, 3).tanh(), randn(1, 1, 3, 3, seed=1)
    start = process.q_sample(image, len(run) - 1, noise, run)
    torch.testing.assert_close(start, process.q_sample(image, 499, noise, FULL))

    def denoise(z: Tensor, t: int | Tensor) -> Denoised:
        return make_denoised("eps", noise, z, t, FULL)

    steps = list(process.reverse(denoise, start, run, samplers.Ddim()))
    assert [step.timestep for step in steps] == [499, 249]
    torch.testing.assert_close(steps[-1].z, image)


def test_sixteen_bit_starts_and_estimates_run_in_float32() -> None:
    def denoise(z: Tensor, t: int | Tensor) -> Denoised:
        assert z.dtype == torch.float32
        return make_denoised("x0", z.tanh().bfloat16(), z, t, FULL)

    for name in ("ancestral", "ddim", "dpm_solver"):
        start = randn(1, 1, 2, 2, dtype=torch.bfloat16)
        loop = process.reverse(denoise, start, FOUR, samplers.by_name(name), torch.Generator().manual_seed(0))
        assert all(step.z.dtype == step.x0.dtype == torch.float32 for step in loop)


@pytest.mark.parametrize("name", ["ddim", "dpm_solver"])
def test_float32_agrees_with_float64(name: str) -> None:
    start = randn(1, 1, 8, 8)
    run = respace(FULL, space_timesteps(1000, 25))
    sampler = samplers.by_name(name)
    *_, wide = process.reverse(shrinking, start, run, sampler)
    *_, narrow = process.reverse(shrinking, start.float(), run, sampler)
    assert narrow.z.dtype == torch.float32 and wide.z.dtype == torch.float64
    torch.testing.assert_close(narrow.z.double(), wide.z, rtol=0, atol=2e-5)


def test_gradients_flow_through_the_loop() -> None:
    gain = torch.tensor(0.5, requires_grad=True)

    def denoise(z: Tensor, t: int | Tensor) -> Denoised:
        return make_denoised("x0", gain * z, z, t, FULL)

    *_, last = process.reverse(denoise, torch.ones(1, 1, 1, 1), FOUR, samplers.DpmSolver())
    last.z.sum().backward()
    assert gain.grad is not None and float(gain.grad) != 0.0


def test_start_noise_is_standard_normal_and_reproducible() -> None:
    noise = process.start_noise((1, 1, 100, 200), torch.Generator().manual_seed(3), "cpu")
    again = process.start_noise((1, 1, 100, 200), torch.Generator().manual_seed(3))
    assert noise.dtype == torch.float32 and noise.numpy().tobytes() == again.numpy().tobytes()
    assert abs(float(noise.mean())) < 0.03 and abs(float(noise.std()) - 1) < 0.02


def test_an_estimate_of_another_shape_is_rejected() -> None:
    def denoise(z: Tensor, t: int | Tensor) -> Denoised:
        return Denoised(z[..., :-1], z[..., :-1])

    with pytest.raises(InputError, match=r"z's shape \[1, 1, 2, 4\], got float32 \[1, 1, 2, 3\]"):
        next(process.reverse(denoise, torch.zeros(1, 1, 2, 4), FOUR, samplers.Ddim()))


def test_indices_may_be_numpy_integers() -> None:
    x0 = randn(1, 1, 2, 2)
    assert torch.equal(process.q_sample(x0, np.int64(5), x0, FULL), process.q_sample(x0, 5, x0, FULL))  # type: ignore[arg-type]
