"""Training objectives: the hybrid one by hand, and the parts of an ablation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from conftest import TINY
from torch import Tensor

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.diffusion.denoiser import Denoised, make_denoised
from textdifuse_ros.diffusion.losses import VLB_WEIGHT, vlb_term
from textdifuse_ros.diffusion.prior import GaussianPrior
from textdifuse_ros.diffusion.process import q_sample
from textdifuse_ros.diffusion.schedule import by_name
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.fusion.weights import add_prior
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.train.ablation import (
    RULES,
    VARIANTS,
    AblationStage,
    FixedControl,
    OnePass,
    WithoutNoise,
    variance_rule,
)
from textdifuse_ros.train.objective import AllStepsObjective, FewStepObjective, HybridObjective
from textdifuse_ros.train.stages import make_stage

SCHEDULE = by_name("cosine", 40)


class Spy:
    """A denoiser that knows the truth up to a known error and records its inputs."""

    def __init__(self, truth: Tensor, error: float) -> None:
        self.truth, self.error = truth, error
        self.z: list[Tensor] = []
        self.t: list[Tensor] = []

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        self.z.append(z_t)
        self.t.append(torch.as_tensor(t))
        variance = torch.full_like(z_t, 0.3)
        return make_denoised("x0", self.truth + self.error, z_t, t, SCHEDULE, variance)


def truth(count: int = 64) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1


def never(_: Tensor) -> Tensor:
    raise AssertionError("the error of the estimate is not part of equation (1)")


def test_the_hybrid_objective_is_equation_1_at_random_timesteps() -> None:
    clean = truth()
    spy = Spy(clean, 0.1)
    losses = HybridObjective(SCHEDULE)(spy, clean, never, torch.Generator().manual_seed(5))
    (index,) = spy.t
    assert index.min() < 5 and index.max() > 34 and len(index.unique()) > 20

    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(clean.shape, generator=generator)
    z = q_sample(clean, index, noise, SCHEDULE)
    assert torch.equal(z, spy.z[0])
    # An error of x0 is an error of the noise times a / s.
    abar = torch.tensor(SCHEDULE.abar)[index]
    simple = (0.01 * abar / (1 - abar)).mean()
    vlb = vlb_term(spy(z, index), clean, z, index, SCHEDULE).mean()
    assert losses["simple"].item() == pytest.approx(simple.item(), rel=1e-3)
    assert losses["vlb"].item() == pytest.approx(vlb.item(), rel=1e-4)
    assert losses["loss"].item() == pytest.approx((simple + VLB_WEIGHT * 40 * vlb).item(), rel=1e-3)


def test_the_hybrid_objective_uses_the_given_error_without_variance() -> None:
    clean = truth()
    loss = HybridObjective(SCHEDULE)(
        Spy(clean, 0.1), clean, lambda x0: (x0 - clean).flatten(1).mean(1), torch.Generator(), variance=False
    )
    assert loss["loss"].item() == pytest.approx(0.1, rel=1e-4)


def test_a_rule_offers_its_result_as_two_terms() -> None:
    x, y = (torch.randn(2, 3, 4, 4),), (torch.randn(2, 3, 4, 4),)
    first, second = FixedControl("max").weigh_sources(x, y)
    assert torch.equal(first[0] + second[0], torch.maximum(x[0], y[0]))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("max", torch.maximum), ("add", lambda a, b: a + b), ("mean", lambda a, b: (a + b) / 2)],
)
def test_rules_are_applied_at_every_level(rule: str, expected: Callable[[Tensor, Tensor], Tensor]) -> None:
    levels = [(torch.randn(2, 3, size, size), torch.randn(2, 3, size, size)) for size in (8, 4)]
    fused = FixedControl(rule)(tuple(a for a, _ in levels), tuple(b for _, b in levels))
    assert all(torch.equal(level, expected(a, b)) for level, (a, b) in zip(fused, levels, strict=True))


def test_the_variance_rule_follows_the_source_with_more_variance() -> None:
    flat, busy = torch.full((1, 1, 8, 8), 0.5), torch.randn(1, 1, 8, 8)
    assert torch.allclose(variance_rule(flat, busy), busy, atol=1e-5)
    assert torch.allclose(variance_rule(busy, -busy), torch.zeros(1, 1, 8, 8), atol=1e-6)


def test_without_diffusion_the_decoder_sees_neither_noise_nor_timestep() -> None:
    class Echo(torch.nn.Module):
        def forward(
            self, features: tuple[Tensor, ...], z_t: Tensor, timestep: Tensor, *, variance: bool
        ) -> tuple[Tensor, Tensor | None]:
            return features[0] + z_t + timestep, z_t if variance else None

    plain = WithoutNoise(Echo())
    image = torch.rand(1, 1, 4, 4)
    made, report = plain((image,), torch.randn(1, 1, 4, 4), torch.tensor([999]))
    assert torch.equal(made, image) and report is not None
    assert plain((image,), torch.randn(1, 1, 4, 4), torch.tensor([999]), variance=False)[1] is None
    spy = Spy(image, 0.25)
    loss = OnePass()(spy, image, lambda x0: (x0 - image).flatten(1).mean(1), torch.Generator())
    assert loss["loss"].item() == pytest.approx(0.25) and len(spy.z) == 1


def test_each_variant_lacks_one_part() -> None:
    full = VARIANTS["full"]
    assert not full.rule and full.intensity and full.gradient and full.diffusion
    for name, variant in VARIANTS.items():
        parts = (bool(variant.rule), not variant.intensity, not variant.gradient, not variant.diffusion)
        assert sum(parts) == (name != "full")
    assert {variant.rule for variant in VARIANTS.values()} == {"", *RULES}


def test_an_ablation_starts_with_an_untrained_fusion_control() -> None:
    torch.manual_seed(3)
    networks = DriveNetworks(DriveConfig(**TINY))
    with torch.no_grad():
        for item in networks.luma.control.parameters():
            item.normal_()
    encoder = {name: item.clone() for name, item in networks.luma.encoder.state_dict().items()}
    AblationStage(VARIANTS["full"], TrainConfig(seed=1), networks)
    source = torch.randn(1, 1, 32, 32)
    visible, infrared = networks.luma.encode_pair(source, -source)
    for fused, x, y in zip(networks.luma.control(visible, infrared), visible, infrared, strict=True):
        assert torch.allclose(fused, (x + y) / 2, atol=1e-6)
    assert all(item.equal(encoder[name]) for name, item in networks.luma.encoder.state_dict().items())
    again = DriveNetworks(DriveConfig(**TINY))
    AblationStage(VARIANTS["full"], TrainConfig(seed=1), again)
    pairs = zip(networks.luma.control.parameters(), again.luma.control.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_more_than_half_of_the_later_few_steps_are_trained_on_own_estimates() -> None:
    """And every stage of the diffusion uses the objective that is configured; chroma, a regression, takes none."""
    networks = DriveNetworks(DriveConfig(**TINY))
    assert isinstance(make_stage(TrainConfig(stage="luma"), networks).objective, FewStepObjective)
    hybrid = make_stage(TrainConfig(stage="luma", objective="hybrid"), networks).objective
    assert isinstance(hybrid, HybridObjective)
    with pytest.raises(ConfigError, match="chroma is a regression"):
        make_stage(TrainConfig(stage="chroma", objective="hybrid"), networks)
    with pytest.raises(ConfigError, match="all_steps for luma or joint alone"):
        make_stage(TrainConfig(stage="luma", objective="all_steps"), networks)
    with_prior = make_stage(TrainConfig(stage="luma", objective="all_steps"), add_prior(networks)).objective
    assert isinstance(with_prior, AllStepsObjective)

    inputs: list[torch.Tensor] = []
    truth = torch.full((400, 1, 16, 16), 0.5)

    def spy(z_t: torch.Tensor, t: int | torch.Tensor) -> Denoised:
        inputs.append(z_t)
        return make_denoised("x0", torch.full_like(z_t, -0.5), z_t, t, by_name("cosine", 1000))

    def error(x0: torch.Tensor) -> torch.Tensor:
        return (x0 - truth).abs().flatten(1).mean(1)

    objective = FewStepObjective(by_name("cosine", 1000))
    objective(spy, truth, error, torch.Generator().manual_seed(0), variance=False)
    wrong = (inputs[1].mean((1, 2, 3)) < 0).float().mean()
    assert abs(float(wrong) - 0.6) < 0.06, "made from the wrong estimate, the others from the truth"


class Guess:
    """A denoiser that estimates a constant brightness from noise, and the signal in z_t with a known variance."""

    def __init__(self, level: float, spread: float) -> None:
        self.level = torch.tensor(level, requires_grad=True)
        self.spread = torch.tensor(spread, requires_grad=True)
        self.calls: list[tuple[Tensor, int | Tensor]] = []

    def __call__(self, z_t: Tensor, t: int | Tensor) -> Denoised:
        self.calls.append((z_t, t))
        x0 = self.level.expand_as(z_t)
        return Denoised(x0, x0, x0_variance=self.spread.exp().expand_as(z_t))


def test_all_steps_regresses_brightness_from_noise_and_draws_detail_later() -> None:
    """The lower z_t have the brightness of the estimate from pure noise and the detail of the truth."""
    schedule = by_name("cosine", 1000)
    objective = AllStepsObjective(schedule, GaussianPrior(0.1, schedule))
    detail = 0.2 * torch.sign(torch.randn(256, 1, 32, 32, generator=torch.Generator().manual_seed(1)))
    truth = 0.5 + detail
    guess = Guess(-0.4, 0.0)
    errors: list[Tensor] = []

    def error(x0: Tensor) -> Tensor:
        errors.append(x0)
        return (x0 - truth).abs().flatten(1).mean(1)

    losses = objective(guess, truth, error, torch.Generator().manual_seed(2))
    (noise, last), (z, index) = guess.calls
    assert last == 999 and abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert len(errors) == 1, "the stage's own error counts from noise alone"
    assert isinstance(index, Tensor) and index.min() < 50 and 900 < index.max() < 999
    low = index < 30
    signal = torch.tensor(schedule.abar).sqrt()[index][low, None, None, None]
    noiseless = z[low] / signal
    assert abs(noiseless.mean() - -0.4) < 0.02
    correlated = ((noiseless - noiseless.mean()) * detail[low]).mean() / detail.square().mean()
    assert 0.9 < correlated < 1.1
    losses["loss"].backward()
    assert guess.level.grad is not None and guess.spread.grad is not None


def test_the_variance_of_all_steps_is_that_of_the_error() -> None:
    """At the minimum of the likelihood, it is the mean squared error of x0; x0 itself is not trained by it."""
    schedule = by_name("cosine", 1000)
    objective = AllStepsObjective(schedule, GaussianPrior(0.1, schedule))
    truth = torch.full((4, 1, 32, 32), 0.3)

    def slope(spread: float) -> float:
        guess = Guess(0.1, spread)
        losses = objective(guess, truth, lambda x0: 0 * x0.mean((1, 2, 3)), torch.Generator().manual_seed(0))
        likelihood = torch.autograd.grad(losses["loss"], guess.spread)[0]
        return float(likelihood)

    # From noise the error is 0.2; later z_t is made with the estimate's own brightness, without any detail: error 0.
    assert slope(2 * math.log(0.3)) > 0 > slope(2 * math.log(0.05))
    assert slope(2 * math.log(0.2 / math.sqrt(2))) == pytest.approx(0, abs=1e-4)
