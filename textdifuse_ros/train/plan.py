"""Plan of a run, from a few real steps of it: sizes, memory, time, and the files it will write."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import cv2
import torch

from textdifuse_ros.data.crops import BatchShape
from textdifuse_ros.data.pack import ImagePack
from textdifuse_ros.train.fusion_task import FusionTask
from textdifuse_ros.train.log import BOARD, LOG, SHEETS, tensorboard_installed
from textdifuse_ros.train.state import STATE, WEIGHTS
from textdifuse_ros.train.trainer import Trainer


@dataclass(frozen=True)
class Trial:
    """Measurements of a few real steps of one process.

    :ivar done: steps done before the trial
    :ivar step_seconds: mean duration of a step, without loading [s]
    :ivar crops: mean crops of a batch
    :ivar prepared: crops that one loading process prepares per second
    :ivar memory: peak use [MB], of the device or, on a CPU, of the whole process
    """

    done: int
    step_seconds: float
    crops: float
    prepared: float
    memory: float


def try_steps(trainer: Trainer[FusionTask]) -> Trial:
    """Take one step on each batch shape, after one step to warm up.

    :param trainer: must not be used for training afterwards
    """
    cv2.setNumThreads(1)
    done, count = trainer.step, trainer.task.shape_count + 1
    source = trainer.task.batches(done, count, trainer.ranks.rank)
    started = time.perf_counter()
    batches = [source[index] for index in range(count)]
    loading = time.perf_counter() - started
    trainer.update(batches[0])
    _wait(trainer.device)
    started = time.perf_counter()
    for batch in batches[1:]:
        trainer.update(batch)
    _wait(trainer.device)
    seconds = time.perf_counter() - started
    crops = [trainer.task.crops(batch) for batch in batches]
    return Trial(
        done,
        seconds / (count - 1),
        sum(crops[1:]) / (count - 1),
        sum(crops) / loading,
        _memory(trainer.device),
    )


def describe_trial(trainer: Trainer[FusionTask], trial: Trial) -> str:
    """Format the plan of a run as lines of text.

    :param trainer: of the run
    :param trial: of :func:`try_steps`
    """
    task, folder = trainer.task, trainer.folder
    config = task.config
    entries = ImagePack(task.pack).entries
    pairs = sum(entry.infrared >= 0 for entry in entries)
    numbers = [p.numel() for p in trainer.networks.parameters()]
    trained = sum(p.numel() for p in task.parameters)
    left = config.steps - trial.done
    speed = trial.crops / trial.step_seconds
    loaded = trial.prepared * max(1, config.workers)
    # The training process waits for a batch that it prepares itself; for one prepared in parallel only when it is late.
    extra = trial.crops / trial.prepared if config.workers == 0 else 0.0
    seconds = left * max(trial.step_seconds + extra, trial.crops / loaded)
    state = 4 * (sum(numbers) * 2 + 3 * trained) / 1e6
    where = "the device" if trainer.device.type == "cuda" else "this process"
    board = f", {BOARD}/" if tensorboard_installed() else " (TensorBoard is not installed: no logs for it)"
    sheets = f", {SHEETS}/ every {task.sheet_every} steps" if task.sheet_every else ""
    already = f", {trial.done} of them done" if trial.done else ""
    start = f"weights sha256 {trainer.identity.start[:12]}" if trainer.identity.start else "new weights"
    size = trainer.ranks.size
    processes = f"{size} processes, each " if size > 1 else ""
    lines = (
        ("stage", f"{config.stage}, objective {config.objective}, from {start}"),
        ("images", f"{len(entries)} in {task.pack}, {pairs} of them pairs; degradations: {config.degradations}"),
        ("batches", f"{processes}in turn {', '.join(map(_shape, task.shapes))}"),
        ("learning", f"{trained:,} of {sum(numbers):,} parameters, learning rate {config.learning_rate:g}"),
        ("steps", f"{config.steps}{already}"),
        ("device", f"{trainer.device}, {config.precision}, loading processes: {config.workers}"),
        ("memory", f"{trial.memory:,.0f} MB at most of {where} in the trial; weights and optimizer {state:,.0f} MB"),
        ("training", f"{speed * size:,.0f} crops/s"),
        ("loading", f"{loaded * size:,.0f} crops/s, {_verdict(loaded, speed, config.workers)}"),
        ("time", f"about {_duration(seconds)} for {left} steps, from a trial of {task.shape_count}"),
        ("output", f"{folder}: {STATE} and {WEIGHTS} every {config.save_every} steps, {LOG}{board}{sheets}"),
    )
    return "\n".join(f"{name:9} {text}" for name, text in lines)


def _verdict(loaded: float, trained: float, workers: int) -> str:
    if workers == 0:
        return "in the training process, which waits for it"
    return "enough" if loaded >= trained else "too slow: training will wait; raise workers"


def _shape(shape: BatchShape) -> str:
    kinds = [f"{count} {name}" for count, name in ((shape.visible, "visible"), (shape.infrared, "infrared")) if count]
    return f"{' + '.join(kinds)}{' (pairs)' if shape.pairs else ''} of {shape.size} px"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
