"""Training: it learns, it resumes to the bit, it refuses what does not belong together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_data import street

from textdifuse_ros.cli.main import main
from textdifuse_ros.config_train import TrainConfig
from textdifuse_ros.data.crops import CropBatches
from textdifuse_ros.data.pack import write_pack
from textdifuse_ros.errors import CheckpointError, ConfigError, TextDifuseError
from textdifuse_ros.fusion.losses import fusion_loss
from textdifuse_ros.fusion.weights import join_networks, load_networks
from textdifuse_ros.image.gradients import sobel
from textdifuse_ros.train.loop import LOG, STATE, WEIGHTS, Training

CONFIG = TrainConfig(steps=4, warm_up=1, workers=0, log_every=2, save_every=100, precision="float32")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "pictures.pack"
    write_pack(path, [street(n, 100, 140) for n in range(3)])
    return path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from textdifuse_ros.data.crops import Shape
    from textdifuse_ros.train import stages

    monkeypatch.setattr(stages.LumaStage, "shapes", (Shape(32, 3, 2),))
    monkeypatch.setattr(stages.ChromaStage, "shapes", (Shape(64, 3, 0),))
    monkeypatch.setattr(stages.ControlStage, "shapes", (Shape(32, 3, 3, pairs=True),))


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_networks(path)[1].tensors


@pytest.mark.parametrize("stage", ["luma", "chroma", "control", "joint"])
def test_a_stage_changes_its_own_part_and_lowers_its_loss(
    stage: str, pack: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, stage=stage, steps=40, learning_rate=3e-3)
    training = Training(config, tmp_path, pack, tiny_checkpoint)
    batch = CropBatches(str(pack), training.stage.shapes, seed=99, first=0, count=1)[0]

    def loss() -> float:
        with torch.no_grad():
            return training.stage(batch, torch.Generator().manual_seed(0))["loss"].item()

    first = loss()
    training.run()
    assert loss() < 0.99 * first
    before, after = tensors(tiny_checkpoint), tensors(tmp_path / WEIGHTS)
    mine = {
        "luma": ("luma.encoder", "luma.decoder"),
        "chroma": ("chroma",),
        "control": ("luma.control",),
        "joint": ("luma.control", "luma.decoder"),
    }[stage]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(mine) for name in changed)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, 41, 2))


def test_an_interrupted_run_ends_with_the_same_bits(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Training(CONFIG, whole, pack, tiny_checkpoint).run()

    class Interrupt(Exception):
        pass

    training = Training(CONFIG, parts, pack, tiny_checkpoint)
    update = training._update

    def stop_after_two(batch: object) -> dict[str, float]:
        if training.step == 2:
            raise Interrupt
        return update(batch)  # type: ignore[arg-type]

    training._update = stop_after_two  # type: ignore[method-assign, assignment]
    with pytest.raises(Interrupt):
        training.run()
    resumed = Training(CONFIG, parts, pack)
    assert resumed.step == 2
    resumed.run()
    one, other = tensors(whole / WEIGHTS), tensors(parts / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_another_configuration_is_refused(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    Training(CONFIG, tmp_path, pack, tiny_checkpoint).run()
    with pytest.raises(ConfigError, match="learning_rate"):
        Training(replace(CONFIG, learning_rate=1e-5), tmp_path, pack, tiny_checkpoint)


def test_a_damaged_state_is_refused(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    Training(CONFIG, tmp_path, pack, tiny_checkpoint).run()
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="training state"):
        Training(CONFIG, tmp_path, pack, tiny_checkpoint)


def test_a_gradient_that_is_not_finite_stops_with_the_last_good_state(
    pack: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(CONFIG, tmp_path, pack, tiny_checkpoint)
    stage = training.stage

    def poisoned(batch: object, generator: torch.Generator) -> dict[str, torch.Tensor]:
        losses = stage(batch, generator)  # type: ignore[arg-type]
        return {**losses, "loss": losses["loss"] * (float("nan") if training.step == 2 else 1.0)}

    poisoned.shapes, poisoned.parameters = stage.shapes, stage.parameters  # type: ignore[attr-defined]
    training.stage = poisoned  # type: ignore[assignment]
    with pytest.raises(TextDifuseError, match="finite"):
        training.run()
    assert all(torch.isfinite(t.float()).all() for t in tensors(tmp_path / WEIGHTS).values())
    assert Training(CONFIG, tmp_path, pack, tiny_checkpoint).step == 2


def test_history_tells_every_stage(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    Training(CONFIG, tmp_path / "luma", pack, tiny_checkpoint).run()
    control = replace(CONFIG, stage="control")
    Training(control, tmp_path / "control", pack, tmp_path / "luma" / WEIGHTS).run()
    _, checkpoint = load_networks(tmp_path / "control" / WEIGHTS)
    assert [stage["stage"] for stage in checkpoint.provenance["history"]] == ["luma", "control"]


def test_join_takes_luma_of_one_and_chroma_of_the_other(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    Training(replace(CONFIG, stage="chroma"), tmp_path, pack, tiny_checkpoint).run()
    join_networks(tiny_checkpoint, tmp_path / WEIGHTS, tmp_path / "joined.safetensors")
    luma, chroma, joined = (tensors(p) for p in (tiny_checkpoint, tmp_path / WEIGHTS, tmp_path / "joined.safetensors"))
    for name, tensor in joined.items():
        assert torch.equal(tensor, (chroma if name.startswith("chroma") else luma)[name])


def test_join_refuses_other_sizes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from textdifuse_ros.fusion.weights import save_networks
    from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks

    save_networks(tmp_path / "large.safetensors", DriveNetworks(DriveConfig()), {})
    with pytest.raises(CheckpointError, match="same configuration"):
        join_networks(tiny_checkpoint, tmp_path / "large.safetensors", tmp_path / "joined.safetensors")


def test_command_line_trains(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    words = ["train", "control", "--pack", pack, "--run", tmp_path, "--start", tiny_checkpoint, "--steps", 2]
    assert main([str(word) for word in [*words, "--workers", 0, "--device", "cpu"]]) == 0
    assert (tmp_path / WEIGHTS).is_file()


def test_fusion_loss_is_zero_only_at_the_stronger_source() -> None:
    """Equations (9) to (11) by hand: the maximum of two flat sources costs nothing, the other its distance."""
    dark, bright = torch.full((1, 1, 8, 8), -0.5), torch.full((1, 1, 8, 8), 0.5)
    assert fusion_loss(bright, dark, bright).item() == pytest.approx(0)
    assert fusion_loss(dark, dark, bright).item() == pytest.approx(0.5)
    step = torch.cat((dark[..., :4], bright[..., 4:]), -1)
    # A Sobel edge of height 0.5 in [0, 1] is 4 * 0.5 on the two columns beside it: 2 of 8 columns, times 0.2.
    flat = torch.full((1, 1, 8, 8), 0.5)
    assert fusion_loss(flat, step, bright).item() == pytest.approx(0.2 * 2.0 * 2 / 8)


def test_gradients_keep_their_digits_under_autocast() -> None:
    texture = 0.9 + 0.002 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        brief = sobel(texture)
    assert brief.dtype == torch.float32
    assert torch.equal(brief, sobel(texture))
