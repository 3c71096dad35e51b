"""Training runs: stopped and resumed to the same bits, refused where they differ, kept where they diverge."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from tiny_images import street
from tiny_training import CONFIG, at_step, flat, state, tensors

from textdifuse_ros.data.pack import write_pack
from textdifuse_ros.errors import CheckpointError, ConfigError, FileError, TextDifuseError
from textdifuse_ros.fusion.weights import load_networks
from textdifuse_ros.train.fusion_task import FusionTask, fusion_trainer
from textdifuse_ros.train.log import LOG
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


@pytest.mark.parametrize(("stop", "number"), [(1, signal.SIGINT), (3, signal.SIGTERM)])
def test_a_stopped_and_resumed_run_gives_the_same_bits(
    stop: int, number: signal.Signals, pack: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The same weights, optimizer state, moving average and log."""
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


def test_a_resumed_run_removes_log_lines_after_its_state(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A kill leaves lines of steps after the last state, the last line incomplete."""
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


def test_a_second_signal_interrupts_at_once(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint)

    def signal_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(trainer, 2, signal_twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert not (tmp_path / STATE).exists()


def test_the_state_of_another_run_is_refused(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("damage", ["cut", "older"])
def test_a_damaged_or_older_state_is_refused(damage: str, pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint).run()
    if damage == "cut":
        (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:1000])
    else:
        torch.save({"step": 3}, tmp_path / STATE)
    with pytest.raises(CheckpointError, match="training state"):
        fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint)


def test_diverging_training_stops_and_reports_the_step(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Real divergence: with steps as large as the weights the activations overflow."""
    config = replace(CONFIG, steps=20, learning_rate=1.0, clip=1e6, save_every=1)
    for _ in range(2):  # a function of seed and step: it happens again
        trainer = fusion_trainer(config, tmp_path, pack, tiny_checkpoint)
        with pytest.raises(TextDifuseError, match=r"must be finite, got -?(nan|inf) at step \d+; the state"):
            trainer.run()
        assert 0 < trainer.step < 20
        kept = state(tmp_path)
        assert kept["step"] == trainer.step
        assert all(torch.isfinite(t).all() for t in kept["networks"].values())


def test_the_previous_weights_are_kept(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = fusion_trainer(replace(CONFIG, steps=2, save_every=1), tmp_path, pack, tiny_checkpoint)
    trainer.run()
    one = fusion_trainer(replace(CONFIG, steps=2, save_every=1), tmp_path / "again", pack, tiny_checkpoint)
    one.update(one.task.batches(0, 1)[0])
    due = one.ema.module.state_dict()
    before = tensors(tmp_path / PREVIOUS_WEIGHTS)
    assert all(before[name].equal(due[name].half()) for name in before)
    assert any(not before[name].equal(item) for name, item in tensors(tmp_path / WEIGHTS).items())


def test_a_run_folder_is_used_by_one_run_at_a_time(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(FileError, match="used by one run at a time, got another active run"):
        fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint).run()
    assert fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint).run()


def test_a_loss_that_is_not_finite_keeps_the_last_state(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
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
    assert fusion_trainer(config, tmp_path, pack, tiny_checkpoint).run()  # without the NaN it resumes


def test_a_loss_that_is_not_finite_changes_no_weights(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = fusion_trainer(CONFIG, tmp_path, pack, tiny_checkpoint)
    batch = trainer.task.batches(0, 1)[0]
    before = [p.detach().clone() for p in trainer.task.stage.parameters]
    poisoned = batch._replace(visible_target=batch.visible_target * float("nan"))
    with pytest.raises(TextDifuseError, match="no state was saved yet"):
        trainer.update(poisoned)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.task.stage.parameters, strict=True))
    assert trainer.update(batch)["loss"] > 0


@pytest.mark.parametrize("stop", [None, 5, 9])
def test_batches_are_reused_in_rounds(
    stop: int | None, pack: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch of each shape, then the same ones mirrored, then as at first; also in a run resumed in between."""
    config = replace(CONFIG, stage="joint", echo=3, steps=15)
    batches = []

    update = Trainer.update

    def watched_update(trainer: Trainer[FusionTask], batch: Any) -> dict[str, float]:
        batches.append(batch)
        return update(trainer, batch)

    monkeypatch.setattr(Trainer, "update", watched_update)
    if stop:
        first = fusion_trainer(config, tmp_path, pack, tiny_checkpoint)
        at_step(first, stop - 1, lambda: signal.raise_signal(signal.SIGTERM))
        first.run()
    fusion_trainer(config, tmp_path, pack, tiny_checkpoint).run()

    prepared = fusion_trainer(config, tmp_path / "other", pack, tiny_checkpoint).task.batches(0, 6)
    assert len(prepared.shapes) == 2
    numbers = [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 4, 5, 4]
    mirrored = [False, False, True, True, False, False] * 2 + [False, False, True]
    assert len(batches) == 15
    for number, flip, batch in zip(numbers, mirrored, batches, strict=True):
        for part, due in zip(batch, prepared[number], strict=True):
            assert torch.equal(part, due.flip(-1) if flip else due)


def test_a_state_of_format_2_is_resumed(pack: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """It holds the moving average of the trained parameters alone, and no first learning rate."""
    whole, old = tmp_path / "whole", tmp_path / "old"
    config = replace(CONFIG, stage="control")
    fusion_trainer(config, whole, pack, tiny_checkpoint).run()
    stopped = fusion_trainer(config, old, pack, tiny_checkpoint)
    at_step(stopped, 1, lambda: signal.raise_signal(signal.SIGTERM))
    stopped.run()
    content = state(old)
    trained = {f"module.{name}" for name, p in stopped.networks.named_parameters() if p.requires_grad}
    average = {name.removeprefix("module."): content["ema"][name] for name in trained}
    for group in content["optimizer"]["param_groups"]:
        del group["initial_lr"]
    content |= {"format": 2, "ema": {"average": average, "updates": 2}}
    torch.save(content, old / STATE)
    assert fusion_trainer(config, old, pack).run()
    assert flat(state(old)) == flat(state(whole))
