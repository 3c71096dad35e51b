"""The target of the joint stage for road scenes."""

from __future__ import annotations

import torch
from torch import Tensor

from textdifuse_ros.train.fusion_losses import LOOKS, structure_error, vivid_target
from textdifuse_ros.train.natural_target import hidden_structure, need_of_infrared

ROAD = LOOKS["road"]
SIZE = 96


def textured(level: float, seed: int, contrast: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randn(1, 1, SIZE // 8, SIZE // 8, generator=generator)
    return (level + contrast * blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)).clamp(0, 1)


def correlation(x: Tensor, y: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((x.flatten(), y.flatten())))[0, 1])


def target(visible: Tensor, infrared: Tensor, hidden: Tensor | None = None) -> Tensor:
    hidden = torch.zeros_like(visible) if hidden is None else hidden
    return vivid_target(visible, infrared, ROAD, need_of_infrared(visible, hidden))


def test_a_well_exposed_image_looks_like_the_visible_one() -> None:
    """A warm car that is dark to the eye stays dark, and a lane line that is cold to the thermal camera stays white."""
    visible, infrared = textured(0.5, 1, 0.03), textured(0.4, 2, 0.03)
    car, lane = (..., slice(40, 72), slice(20, 60)), (..., slice(80, 84), slice(0, SIZE))
    visible[car], infrared[car] = 0.2, 0.9
    visible[lane], infrared[lane] = 0.8, 0.2
    fused = target(visible, infrared)
    road = float(fused[..., :32, :].mean())
    assert float(fused[car].mean()) < road - 0.15
    assert float(fused[lane].mean()) > road + 0.15
    where = torch.ones_like(visible)
    mixed = 0.5 * (visible + infrared)
    assert float(structure_error(fused, visible, where)) < 0.5 * float(structure_error(mixed, visible, where))


def test_darkness_saturation_and_what_is_hidden_show_the_infrared() -> None:
    infrared = textured(0.5, 3)
    for visible, hidden in (
        (torch.full_like(infrared, 0.03), None),
        (torch.full_like(infrared, 0.99), None),
        (textured(0.5, 4), torch.ones_like(infrared)),
    ):
        fused = target(visible, infrared, hidden)
        assert correlation(fused, infrared) > 0.7


def test_structure_is_hidden_by_glare_and_noise_and_not_by_darkness() -> None:
    clean = textured(0.5, 5)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(6))
    degraded = {
        "dark": 0.2 * clean,
        "mild noise": clean + 0.02 * noise,
        "glare": torch.full_like(clean, 1.0),
        "strong noise": clean + 0.6 * noise,
    }
    shares = {name: float(hidden_structure(image, clean).mean()) for name, image in degraded.items()}
    assert shares["dark"] < 0.1 and shares["mild noise"] < 0.1
    assert shares["glare"] > 0.8 and shares["strong noise"] > 0.8


def test_a_flat_image_hides_nothing() -> None:
    flat = torch.full((1, 1, SIZE, SIZE), 0.6)
    assert float(hidden_structure(torch.ones_like(flat), flat).max()) < 0.05
