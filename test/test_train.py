"""Training: every stage learns its part, batches and precision, sheets and logs, history and join."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import tiny_training
import torch
from tiny_images import street
from tiny_training import CONFIG, tensors

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import CropBatches
from textdifuse_ros.data.pack import write_pack
from textdifuse_ros.errors import CheckpointError, FileError
from textdifuse_ros.fusion.weights import join_networks, load_networks
from textdifuse_ros.image.gradients import sobel
from textdifuse_ros.train.fusion_losses import fusion_loss
from textdifuse_ros.train.fusion_task import fusion_trainer
from textdifuse_ros.train.log import BOARD, LOG, SHEETS
from textdifuse_ros.train.state import WEIGHTS


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "images.pack"
    write_pack(path, [street(n, 100, 140) for n in range(3)])
    return path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage, shapes in tiny_training.shapes().items():
        monkeypatch.setattr(stage, "shapes", shapes)


FEW = [(stage, "few_step") for stage in ("luma", "chroma", "control", "joint")]


@pytest.mark.parametrize(("stage", "objective"), [*FEW, ("luma", "hybrid"), ("control", "hybrid")])
def test_a_stage_changes_its_own_part_and_lowers_its_loss(
    stage: str, objective: str, pack: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, stage=stage, objective=objective, steps=24, learning_rate=5e-3)
    trainer = fusion_trainer(config, tmp_path, pack, tiny_checkpoint)
    batch = CropBatches(str(pack), trainer.task.stage.shapes, seed=99, first=0, count=1)[0]

    def loss() -> float:
        with torch.no_grad():
            return trainer.task.stage(batch, torch.Generator().manual_seed(0))["loss"].item()

    first = loss()
    assert trainer.run()
    assert loss() < 0.99 * first
    before, after = tensors(tiny_checkpoint), tensors(tmp_path / WEIGHTS)
    mine = {
        "luma": ("luma.encoder", "luma.decoder"),
        "chroma": ("chroma",),
        "control": ("luma.control",),
        "joint": ("luma.",),
    }[stage]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(mine) for name in changed)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, 25, 2))


def test_loading_processes_do_not_change_the_weights(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    for workers in (0, 1):
        fusion_trainer(replace(CONFIG, workers=workers), tmp_path / str(workers), pack, tiny_checkpoint).run()
    one, other = (tensors(tmp_path / name / WEIGHTS) for name in ("0", "1"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_new_weights_depend_on_the_seed_alone(pack: Path, tmp_path: Path) -> None:
    from conftest import TINY

    from textdifuse_ros.networks.drive import DriveConfig

    def first_weights(seed: int, noise: int) -> torch.Tensor:
        torch.manual_seed(noise)
        trainer = fusion_trainer(replace(CONFIG, seed=seed), tmp_path, pack, drive=DriveConfig(**TINY))
        return trainer.networks.luma.encoder.stem.weight.detach().clone()

    assert torch.equal(first_weights(3, 1), first_weights(3, 2))
    assert not torch.equal(first_weights(3, 1), first_weights(4, 1))


def test_a_pack_without_pairs_is_refused_where_pairs_are_needed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_pack(tmp_path / "lone.pack", [replace(street(1, 100, 140), infrared=None)])
    fusion_trainer(replace(CONFIG, stage="chroma"), tmp_path / "chroma", tmp_path / "lone.pack", tiny_checkpoint).run()
    with pytest.raises(FileError, match="a pack with pairs"):
        fusion_trainer(CONFIG, tmp_path / "luma", tmp_path / "lone.pack", tiny_checkpoint).run()


def test_bfloat16_trains_float32_weights(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        trainer = fusion_trainer(replace(CONFIG, precision=precision), tmp_path, pack, tiny_checkpoint)
        losses.append(trainer.update(trainer.task.batches(0, 1)[0])["loss"])
        assert all(p.dtype == torch.float32 for p in trainer.networks.parameters())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_batch_size_can_be_multiplied(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = fusion_trainer(replace(CONFIG, batch=3), tmp_path, pack, tiny_checkpoint)
    batch = trainer.task.batches(0, 1)[0]
    assert batch.visible.shape[0] == 9 and batch.infrared.shape[0] == 6


@pytest.mark.parametrize(("stage", "columns", "rows"), [("luma", 3, 5), ("chroma", 3, 3), ("joint", 5, 3)])
def test_sheets_show_the_outputs_for_fixed_samples(
    stage: str, columns: int, rows: int, pack: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, stage=stage, sheet_every=2, steps=5, learning_rate=1e-2)
    fusion_trainer(config, tmp_path, pack, tiny_checkpoint).run()
    names = sorted(path.name for path in (tmp_path / SHEETS).iterdir())
    assert names == ["00000002.png", "00000004.png", "00000005.png"]
    first, last = (cv2.imread(str(tmp_path / SHEETS / names[n])) for n in (0, 2))
    cell = 2 * (64 if stage == "chroma" else 32)
    header = first.shape[0] - rows * (cell + 4)
    assert first.shape[1] == columns * (cell + 4) + 4 and 0 < header < cell
    changed = (first != last).any(axis=(0, 2)).nonzero()[0] // (cell + 4)
    assert set(changed) == {2 if stage == "joint" else 1}  # the inputs and the targets stay the same


def test_tensorboard_reads_the_logs(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    fusion_trainer(replace(CONFIG, sheet_every=4), tmp_path, pack, tiny_checkpoint).run()
    events = accumulator.EventAccumulator(str(tmp_path / BOARD))
    events.Reload()
    losses = events.Scalars("loss")
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [(event.step, pytest.approx(event.value)) for event in losses] == [(x["step"], x["loss"]) for x in lines]
    assert [event.step for event in events.Images("sheet")] == [4]


def test_the_history_lists_every_stage(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    fusion_trainer(CONFIG, tmp_path / "luma", pack, tiny_checkpoint).run()
    control = replace(CONFIG, stage="control", degradations="none")
    fusion_trainer(control, tmp_path / "control", pack, tmp_path / "luma" / WEIGHTS).run()
    _, checkpoint = load_networks(tmp_path / "control" / WEIGHTS)
    stages = [(stage["stage"], stage["degradations"], stage["done"]) for stage in checkpoint.provenance["history"]]
    assert stages == [("luma", "road", 4), ("control", "none", 4)]


def test_join_takes_luma_from_one_checkpoint_and_chroma_from_the_other(
    pack: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    fusion_trainer(replace(CONFIG, stage="chroma"), tmp_path, pack, tiny_checkpoint).run()
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


def test_the_default_of_a_run_is_the_few_step_objective() -> None:
    assert TrainConfig().objective == "few_step"


def test_fusion_loss_is_zero_only_at_the_stronger_source() -> None:
    """Equations (9) to (11) by hand: the maximum of two flat sources costs nothing, the other one its distance."""
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
