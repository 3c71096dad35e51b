"""Training: it learns, it resumes to the bit, it refuses what does not belong together, it tells what it does."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import tiny_training
import torch
from tiny_images import street
from tiny_training import CONFIG

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import CropBatches
from textdifuse_ros.data.pack import write_pack
from textdifuse_ros.errors import CheckpointError, ConfigError, FileError, TextDifuseError
from textdifuse_ros.fusion.weights import join_networks, load_networks
from textdifuse_ros.image.gradients import sobel
from textdifuse_ros.train.fusion_losses import fusion_loss
from textdifuse_ros.train.fusion_task import FusionTask, fusion_trainer
from textdifuse_ros.train.log import BOARD, LOG, SHEETS
from textdifuse_ros.train.state import PREVIOUS_WEIGHTS, STATE, WEIGHTS, Identity, lock_folder
from textdifuse_ros.train.trainer import Trainer


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "images.pack"
    write_pack(path, [street(n, 100, 140) for n in range(3)])
    return path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage, shapes in tiny_training.shapes().items():
        monkeypatch.setattr(stage, "shapes", shapes)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_networks(path)[1].tensors


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / STATE, weights_only=True)
    return found


def flat(value: Any) -> list[Any]:
    """All leaves of nested containers, tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return [(value.dtype, value.numpy().tobytes())]
    if isinstance(value, dict):
        return [leaf for name in sorted(value, key=str) for leaf in (str(name), *flat(value[name]))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


def at_step(trainer: Trainer[FusionTask], step: int, act: Callable[[], object]) -> None:
    """Have something happen within the step that begins when so many are done."""
    stage = trainer.task.stage

    class Watched:
        shapes, parameters = stage.shapes, stage.parameters

        def __call__(self, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
            if trainer.step == step:
                act()
            return stage(batch, generator)

    trainer.task.stage = Watched()  # type: ignore[assignment]


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


@pytest.mark.parametrize(("stop", "number"), [(1, signal.SIGINT), (3, signal.SIGTERM)])
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    stop: int, number: signal.Signals, pack: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """All that goes on is the same: weights, optimizer, moving average, and the log's steps."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    config = replace(CONFIG, stage="joint", log_every=1, steps=5)
    assert fusion_trainer(config, whole, pack, tiny_checkpoint).run()
    stopped = fusion_trainer(config, parts, pack, tiny_checkpoint)
    at_step(stopped, stop - 1, lambda: signal.raise_signal(number))
    assert not stopped.run()
    assert signal.getsignal(signal.SIGINT) is before
    resumed = fusion_trainer(config, parts, pack)
    assert resumed.step == stop
    assert resumed.run()
    assert flat(state(whole)) == flat(state(parts))
    assert load_networks(whole / WEIGHTS)[1].sha256 == load_networks(parts / WEIGHTS)[1].sha256
    logs = [[json.loads(line) for line in (folder / LOG).read_text().splitlines()] for folder in (whole, parts)]
    times = ("crops_per_second", "waiting")
    one, other = ([{k: v for k, v in line.items() if k not in times} for line in log] for log in logs)
    assert one == other


def test_a_killed_run_takes_its_last_lines_back(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A kill leaves lines of steps that no state knows, the last one broken off."""
    config = replace(CONFIG, log_every=1)
    stopped = fusion_trainer(config, tmp_path, pack, tiny_checkpoint)
    at_step(stopped, 1, lambda: signal.raise_signal(signal.SIGTERM))
    stopped.run()
    with (tmp_path / LOG).open("a") as log:
        log.write('{"step": 3, "loss": 9}\n{"step": 4, "lo')
    fusion_trainer(config, tmp_path, pack).run()
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["loss"] != 9


def test_a_second_signal_stops_at_once(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint)

    def insist() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(trainer, 2, insist)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert not (tmp_path / STATE).exists()


def test_loading_processes_change_nothing(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    for workers in (0, 1):
        fusion_trainer(replace(CONFIG, workers=workers), tmp_path / str(workers), pack, tiny_checkpoint).run()
    one, other = (tensors(tmp_path / name / WEIGHTS) for name in ("0", "1"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_new_weights_come_from_the_seed_alone(pack: Path, tmp_path: Path) -> None:
    from conftest import TINY

    from textdifuse_ros.networks.drive import DriveConfig

    def first_weights(seed: int, noise: int) -> torch.Tensor:
        torch.manual_seed(noise)
        trainer = fusion_trainer(replace(CONFIG, seed=seed), tmp_path, pack, drive=DriveConfig(**TINY))
        return trainer.networks.luma.encoder.stem.weight.detach().clone()

    assert torch.equal(first_weights(3, 1), first_weights(3, 2))
    assert not torch.equal(first_weights(3, 1), first_weights(4, 1))


def test_a_run_of_something_else_is_refused(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    run, other_pack, other_start = tmp_path / "run", tmp_path / "other.pack", tmp_path / "other"
    fusion_trainer(CONFIG, run, pack, tiny_checkpoint).run()
    write_pack(other_pack, [street(7, 100, 140)])
    fusion_trainer(CONFIG, other_start, pack, tiny_checkpoint).run()

    with pytest.raises(ConfigError, match=r"learning_rate must be 0\.0004, as in the run"):
        fusion_trainer(replace(CONFIG, learning_rate=1e-5), run, pack, tiny_checkpoint)
    with pytest.raises(ConfigError, match="degradations must be 'road'"):
        fusion_trainer(replace(CONFIG, degradations="medical"), run, pack, tiny_checkpoint)
    with pytest.raises(ConfigError, match="the image pack must be sha256"):
        fusion_trainer(CONFIG, run, other_pack, tiny_checkpoint)
    with pytest.raises(ConfigError, match="the start checkpoint must be sha256"):
        fusion_trainer(CONFIG, run, pack, other_start / WEIGHTS)
    identity = fusion_trainer(CONFIG, run, pack, tiny_checkpoint).identity
    with pytest.raises(ConfigError, match="number of training processes must be 1"):
        replace(identity, processes=2).check(state(run)["run"], run)
    with pytest.raises(ConfigError, match="the variant must be ''"):
        fusion_trainer(CONFIG, run, pack, tiny_checkpoint, variant="rule_max")
    with pytest.raises(ConfigError, match="luma_widths"):
        Identity({}, {**identity.networks, "luma_widths": [8, 8, 8]}, "").check(state(run)["run"] | {"config": {}}, run)
    unbound = replace(CONFIG, workers=2, log_every=7, save_every=7, sheet_every=7)
    assert fusion_trainer(unbound, run, pack, tiny_checkpoint).step == 4


def test_a_pack_without_pairs_is_refused_where_pairs_are_due(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_pack(tmp_path / "lone.pack", [replace(street(1, 100, 140), infrared=None)])
    fusion_trainer(replace(CONFIG, stage="chroma"), tmp_path / "chroma", tmp_path / "lone.pack", tiny_checkpoint).run()
    with pytest.raises(FileError, match="a pack with pairs"):
        fusion_trainer(CONFIG, tmp_path / "luma", tmp_path / "lone.pack", tiny_checkpoint).run()


@pytest.mark.parametrize("damage", ["cut", "older"])
def test_a_damaged_or_older_state_is_refused(damage: str, pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint).run()
    if damage == "cut":
        (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:1000])
    else:
        torch.save({"step": 3}, tmp_path / STATE)
    with pytest.raises(CheckpointError, match="training state"):
        fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint)


def test_training_that_diverges_stops_and_says_where(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Real divergence: steps of the size of the weights blow the activations up until they overflow."""
    config = replace(CONFIG, steps=20, learning_rate=1.0, clip=1e6, save_every=1)
    for _ in range(2):  # a function of seed and step: it comes again
        trainer = fusion_trainer(config, tmp_path, pack, tiny_checkpoint)
        with pytest.raises(TextDifuseError, match=r"must be finite, got -?(nan|inf) at step \d+; the state"):
            trainer.run()
        assert 0 < trainer.step < 20
        kept = state(tmp_path)
        assert kept["step"] == trainer.step
        assert all(torch.isfinite(t).all() for t in kept["networks"].values())


def test_the_weights_of_the_save_before_are_kept(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = fusion_trainer(replace(CONFIG, steps=2, save_every=1), tmp_path, pack, tiny_checkpoint)
    trainer.run()
    one = fusion_trainer(replace(CONFIG, steps=2, save_every=1), tmp_path / "again", pack, tiny_checkpoint)
    one.update(one.task.batches(0, 1)[0])
    due = one.ema.module.state_dict()
    before = tensors(tmp_path / PREVIOUS_WEIGHTS)
    assert all(before[name].equal(due[name].half()) for name in before)
    assert any(not before[name].equal(item) for name, item in tensors(tmp_path / WEIGHTS).items())


def test_a_folder_is_left_to_one_run(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(FileError, match="used by one run at a time, got another active run"):
        fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint).run()
    assert fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint).run()


def test_what_is_not_finite_leaves_the_state_saved_last(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=9, save_every=2)
    trainer = fusion_trainer(config, tmp_path, pack, tiny_checkpoint)
    stage = trainer.task.stage

    class Poisoned:
        shapes, parameters = stage.shapes, stage.parameters

        def __call__(self, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
            losses = stage(batch, generator)
            return {**losses, "loss": losses["loss"] * (float("nan") if trainer.step == 5 else 1.0)}

    trainer.task.stage = Poisoned()  # type: ignore[assignment]
    with pytest.raises(TextDifuseError) as caught:
        trainer.run()
    assert "the loss of the training must be finite, got nan at step 6;" in str(caught.value)
    assert f"the state of step 4 in {tmp_path} is kept" in str(caught.value)
    assert state(tmp_path)["step"] == 4
    assert all(torch.isfinite(t.float()).all() for t in tensors(tmp_path / WEIGHTS).values())
    assert fusion_trainer(config, tmp_path, pack, tiny_checkpoint).run()  # without the poison it goes on


def test_a_loss_that_is_not_finite_changes_nothing(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint)
    batch = trainer.task.batches(0, 1)[0]
    before = [p.detach().clone() for p in trainer.task.stage.parameters]
    poisoned = batch._replace(visible_target=batch.visible_target * float("nan"))
    with pytest.raises(TextDifuseError, match="no state was saved yet"):
        trainer.update(poisoned)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.task.stage.parameters, strict=True))
    assert trainer.update(batch)["loss"] > 0


def test_bfloat16_trains_float32_weights(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        trainer = fusion_trainer(replace(CONFIG, precision=precision), tmp_path, pack, tiny_checkpoint)
        losses.append(trainer.update(trainer.task.batches(0, 1)[0])["loss"])
        assert all(p.dtype == torch.float32 for p in trainer.networks.parameters())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_batch_can_be_larger(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = fusion_trainer(replace(CONFIG, batch=3), tmp_path, pack, tiny_checkpoint)
    batch = trainer.task.batches(0, 1)[0]
    assert batch.visible.shape[0] == 9 and batch.infrared.shape[0] == 6


@pytest.mark.parametrize(("stage", "columns", "rows"), [("luma", 3, 5), ("chroma", 3, 3), ("joint", 5, 3)])
def test_sheets_show_what_was_made_of_the_samples(
    stage: str, columns: int, rows: int, pack: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, stage=stage, sheet_every=2, steps=5, learning_rate=1e-2)
    fusion_trainer(config, tmp_path, pack, tiny_checkpoint).run()
    names = sorted(path.name for path in (tmp_path / SHEETS).iterdir())
    assert names == ["00000002.png", "00000004.png", "00000005.png"]
    first, last = (cv2.imread(str(tmp_path / SHEETS / names[n])) for n in (0, 2))
    cell = 2 * (64 if stage == "chroma" else 32)
    assert first.shape[1] == columns * (cell + 4) + 4 and first.shape[0] == rows * (cell + 4) + 26
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


def test_history_tells_every_stage(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    fusion_trainer(CONFIG, tmp_path / "luma", pack, tiny_checkpoint).run()
    control = replace(CONFIG, stage="control", degradations="none")
    fusion_trainer(control, tmp_path / "control", pack, tmp_path / "luma" / WEIGHTS).run()
    _, checkpoint = load_networks(tmp_path / "control" / WEIGHTS)
    stages = [(stage["stage"], stage["degradations"], stage["done"]) for stage in checkpoint.provenance["history"]]
    assert stages == [("luma", "road", 4), ("control", "none", 4)]


def test_join_takes_luma_of_one_and_chroma_of_the_other(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("stop", [None, 5, 9])
def test_batches_are_used_again_in_rounds(
    stop: int | None, pack: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of each shape, then the same ones mirrored, then as at first; also in a run that is taken up in between."""
    config = replace(CONFIG, stage="joint", echo=3, steps=15)
    seen = []

    def update(trainer: Trainer[FusionTask], batch: Any) -> dict[str, float]:
        seen.append(batch)
        trainer.step += 1
        return {"loss": 1.0}

    monkeypatch.setattr(Trainer, "update", update)
    if stop:
        first = fusion_trainer(config, tmp_path, pack, tiny_checkpoint)
        monkeypatch.setattr(first, "config", replace(config, steps=stop))
        first.run()
    fusion_trainer(config, tmp_path, pack, tiny_checkpoint).run()

    prepared = fusion_trainer(config, tmp_path / "other", pack, tiny_checkpoint).batches(0, 6)
    assert len(prepared.shapes) == 2
    numbers = [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 4, 5, 4]
    mirrored = [False, False, True, True, False, False] * 2 + [False, False, True]
    assert len(seen) == 15
    for number, flip, batch in zip(numbers, mirrored, seen, strict=True):
        for part, due in zip(batch, prepared[number], strict=True):
            assert torch.equal(part, due.flip(-1) if flip else due)
