"""The Gaussian prior of the luma decoder, and the variance that follows from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import TINY

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.posterior import p_mean_variance
from textdifuse_ros.diffusion.prior import GaussianPrior
from textdifuse_ros.diffusion.process import q_sample
from textdifuse_ros.diffusion.respacing import respace, space_timesteps
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.fusion.denoise import FeatureDenoiser, luma_prior
from textdifuse_ros.fusion.weights import add_prior
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks

SCHEDULE = by_name("cosine", 1000)
STD = 0.1


@pytest.mark.parametrize("t", [5, 60, 300, 700])
def test_the_estimate_is_the_mean_of_the_posterior_and_its_variance_is_right(t: int) -> None:
    """For signals drawn from the prior no other estimate has a smaller error, and the error is the variance given."""
    generator = torch.Generator().manual_seed(t)
    prior_mean = 0.3
    x0 = prior_mean + STD * torch.randn(1, 1, 400, 400, generator=generator)
    z = q_sample(x0, t, torch.randn(x0.shape, generator=generator), SCHEDULE)
    prior = GaussianPrior(STD, SCHEDULE)
    estimate, variances = prior.posterior(torch.full_like(x0, prior_mean), torch.zeros_like(x0), z, t)
    variance = float(variances.mean())
    error = float((estimate - x0).square().mean())
    assert error == pytest.approx(variance, rel=0.02)
    assert float(prior.typical_variance(t, x0)) == pytest.approx(variance)
    # Another spread than the typical one is predicted by the network.
    wide = prior_mean + 3 * (x0 - prior_mean)
    z = q_sample(wide, t, torch.randn(x0.shape, generator=generator), SCHEDULE)
    spread = torch.full_like(x0, 2 * math.log(3))
    estimate_wide, variance_wide = prior.posterior(torch.full_like(x0, prior_mean), spread, z, t)
    assert float((estimate_wide - wide).square().mean()) == pytest.approx(float(variance_wide.mean()), rel=0.02)
    assert float(((estimate - x0) * (estimate - prior_mean)).mean()) == pytest.approx(0, abs=0.02 * STD**2)


def test_at_pure_noise_the_network_decides_and_at_the_lowest_noise_z_t_does() -> None:
    prior = GaussianPrior(STD, SCHEDULE)
    output, z = torch.tensor([[[[0.5]]]]), torch.tensor([[[[-2.0]]]])
    sure, unsure = torch.full_like(output, -7.0), torch.zeros_like(output)

    def estimate(log_ratio: torch.Tensor, t: int | torch.Tensor) -> torch.Tensor:
        return prior.posterior(output, log_ratio, z, t)[0]

    assert float(estimate(unsure, 999)) == pytest.approx(0.5, abs=1e-5)
    at_zero = z / math.sqrt(SCHEDULE.abar[0])
    assert abs(float(estimate(unsure, 0) - at_zero)) < 0.03
    assert abs(float(estimate(sure, 100)) - 0.5) < 0.05 < abs(float(estimate(unsure, 100)) - 0.5)
    both = [float(estimate(unsure, t)) for t in (999, 0)]
    each, _ = prior.posterior(
        output.expand(2, 1, 1, 1), unsure.expand(2, 1, 1, 1), z.expand(2, 1, 1, 1), torch.tensor([999, 0])
    )
    assert [float(item) for item in each.flatten()] == pytest.approx(both)


@pytest.mark.parametrize("steps", [4, 25, 1000])
def test_the_variance_of_a_step_follows_from_that_of_x0_at_any_respacing(steps: int) -> None:
    """The law of total variance, against draws: z of the step before, given z_t, over what x0 may have been."""
    schedule = respace(SCHEDULE, space_timesteps(1000, steps))
    generator = torch.Generator().manual_seed(0)
    prior = GaussianPrior(STD, SCHEDULE)
    for index in {1, len(schedule) // 2, len(schedule) - 1}:
        t, before = schedule.timesteps[index], schedule.timesteps[index - 1]
        x0 = STD * torch.randn(1, 1, 500, 500, generator=generator)
        previous = q_sample(x0, before, torch.randn(x0.shape, generator=generator), SCHEDULE)
        step = SCHEDULE.abar[t] / SCHEDULE.abar[before]
        z = math.sqrt(step) * previous + math.sqrt(1 - step) * torch.randn(x0.shape, generator=generator)
        estimate, variance = prior.posterior(torch.zeros_like(z), torch.zeros_like(z), z, t)
        denoised = Denoised(estimate, estimate, x0_variance=variance)
        p = p_mean_variance(denoised, z, index, schedule)
        empirical = float((previous - p.mean).square().mean())
        assert float(p.log_variance.exp().mean()) == pytest.approx(empirical, rel=0.03)


def test_a_checkpoint_without_a_prior_gets_one_and_computes_the_same_from_noise() -> None:
    torch.manual_seed(0)
    old = DriveNetworks(DriveConfig(**TINY)).eval()
    for parameter in old.luma.decoder.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    new = add_prior(old)
    assert old.config.luma_prior == 0 and new.config.luma_prior > 0 and add_prior(new) is new
    assert luma_prior(old.config, SCHEDULE) is None
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    noise = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        first, second = (
            FeatureDenoiser(
                networks.luma.decoder,
                networks.luma.fuse_features(image, -image),
                SCHEDULE,
                prior=luma_prior(networks.config, SCHEDULE),
            )(noise, 999)
            for networks in (old, new)
        )
    assert torch.allclose(first.x0, second.x0, atol=1e-5)
    assert first.variance is not None and first.x0_variance is None
    assert second.variance is None and second.x0_variance is not None
    expected = GaussianPrior(new.config.luma_prior, SCHEDULE).typical_variance(999, image)
    assert np.allclose(second.x0_variance.numpy(), float(expected))
