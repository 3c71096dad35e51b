"""Net2net widening: the larger networks compute the same, and their new channels can be trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from tiny_images import street
from tiny_training import CONFIG

from textdifuse_ros.data.pack import write_pack
from textdifuse_ros.errors import ConfigError
from textdifuse_ros.fusion.weights import load_networks
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.networks.widening import can_widen, widen
from textdifuse_ros.train.fusion_task import fusion_trainer

SMALL = DriveConfig(**{**TINY, "luma_fine": 1, "light_width": 8, "modulation_width": 8})
LARGE = replace(
    SMALL,
    luma_widths=(24, 24, 40),
    luma_blocks=(2, 1, 3),
    luma_decoder_blocks=(1, 2, 1),
    chroma_widths=(16, 24, 24),
    chroma_blocks=(1, 2, 1),
)


def perturbed(config: DriveConfig) -> DriveNetworks:
    """Create networks without zero weights, as after training."""
    networks = DriveNetworks(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return networks


def outputs(networks: DriveNetworks) -> list[torch.Tensor]:
    """Compute the outputs of all parts for the same images."""
    draw = torch.Generator().manual_seed(2)
    visible, infrared, z = (torch.rand(2, 1, 32, 48, generator=draw) * 2 - 1 for _ in range(3))
    amounts = torch.rand(2, 3, 32, 48, generator=draw)
    color = torch.rand(2, 3, 32, 48, generator=draw) * 2 - 1
    t = torch.tensor([10.0, 700.0])
    luma, chroma, modulation = networks.luma, networks.chroma, networks.modulation
    assert modulation is not None
    sources = luma.control.weigh_sources(*luma.encode_pair(visible, infrared))
    fused = tuple(x + y for x, y in zip(*sources, strict=True))
    context = modulation.context(*sources, amounts, z)
    modulated = modulation(*sources, amounts, context)
    balanced = chroma.white_balance(color)
    return [
        *luma.decoder(fused, z, t),
        *luma.decoder(modulated, z, t),
        *chroma.decoder(chroma.encoder(balanced), color[:, 1:], t),
    ]


def test_a_widened_network_computes_the_same_and_its_new_channels_are_trained() -> None:
    small = perturbed(SMALL)
    large = widen(small, LARGE)
    assert sum(p.numel() for p in large.parameters()) > 1.5 * sum(p.numel() for p in small.parameters())
    for before, after in zip(outputs(small), outputs(large), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)

    optimizer = torch.optim.SGD(large.parameters(), lr=1e-2)
    for _ in range(2):  # first the weights that read the new channels are trained, then the channels
        optimizer.zero_grad()
        torch.stack([(part - 1).square().mean() for part in outputs(large)]).sum().backward()
        optimizer.step()
    for part, old in ((large.luma, 16), (large.chroma, 8)):
        gradient = part.encoder.stem.weight.grad
        assert gradient is not None
        assert (gradient[old:].abs().amax((1, 2, 3)) > 0).float().mean() > 0.5


@pytest.mark.parametrize(
    "change",
    [{"luma_widths": (24, 24, 8)}, {"chroma_widths": (8, 8, 8)}, {"control_width": 16}, {"timesteps": 500}],
)
def test_smaller_or_different_networks_are_rejected(change: dict[str, object]) -> None:
    small = replace(SMALL, chroma_widths=(8, 16, 8))
    assert can_widen(small, small)
    assert can_widen(small, LARGE)
    assert not can_widen(LARGE, small)
    assert not can_widen(small, replace(LARGE, **change))


def test_a_run_starts_wider_than_its_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pack = tmp_path / "images.pack"
    write_pack(pack, [street(n, 64, 64) for n in range(2)])
    start, _ = load_networks(tiny_checkpoint)
    requested = DriveConfig(**{**TINY, "luma_widths": (24, 24, 40)})
    trainer = fusion_trainer(CONFIG, tmp_path / "run", pack, tiny_checkpoint, drive=requested)
    assert trainer.networks.config.luma_widths == (24, 24, 40)
    old = start.luma.encoder.stem.weight
    assert torch.equal(trainer.networks.luma.encoder.stem.weight[:16], old)
    smaller = DriveConfig(**{**TINY, "luma_widths": (8, 16, 16)})
    with pytest.raises(ConfigError, match="the networks must be as large as those of"):
        fusion_trainer(CONFIG, tmp_path / "other", pack, tiny_checkpoint, drive=smaller)
