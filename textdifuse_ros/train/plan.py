"""What a run would do, from a few real steps of it: sizes, memory, time, and what it would write where."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import cv2
import torch

from textdifuse_ros.data.crops import Sample, Shape
from textdifuse_ros.data.pack import ImagePack
from textdifuse_ros.train.log import BOARD, LOG, SHEETS, board_is_here
from textdifuse_ros.train.loop import Training
from textdifuse_ros.train.state import STATE, WEIGHTS


@dataclass(frozen=True)
class Trial:
    """Figures of a few real steps, one process's.

    :ivar done: steps that the run had done before the trial
    :ivar step_seconds: mean of a step, batches at hand
    :ivar crops: mean of a step's batch
    :ivar prepared: crops that one loading process prepares a second
    :ivar memory: highest use so far [MB], of the device or, on a CPU, of the whole process
    """

    done: int
    step_seconds: float
    crops: float
    prepared: float
    memory: float


def try_steps(training: Training) -> Trial:
    """Do one step of each shape of batch, after one that warms up; the training object is of no use afterwards."""
    cv2.setNumThreads(1)
    done, count = training.step, len(training.shapes) + 1
    source = training.batches(done, count)
    began = time.perf_counter()
    batches = [source[index] for index in range(count)]
    loading = time.perf_counter() - began
    training.update(batches[0])
    _wait(training.device)
    began = time.perf_counter()
    for batch in batches[1:]:
        training.update(batch)
    _wait(training.device)
    seconds = time.perf_counter() - began
    crops = sum(map(_crops, batches[1:]))
    return Trial(
        done,
        seconds / (count - 1),
        crops / (count - 1),
        sum(map(_crops, batches)) / loading,
        _memory(training.device),
    )


def describe(training: Training, trial: Trial) -> str:
    """The plan in lines, for people."""
    config, folder = training.config, training.folder
    entries = ImagePack(training.pack).entries
    pairs = sum(entry.infrared >= 0 for entry in entries)
    numbers = [p.numel() for p in training.networks.parameters()]
    learning = sum(p.numel() for p in training.stage.parameters)
    left = config.steps - trial.done
    trained = trial.crops / trial.step_seconds
    loaded = trial.prepared * max(1, config.workers)
    # A batch prepared in the training process itself is waited for; one prepared beside it only when it is late.
    extra = trial.crops / trial.prepared if config.workers == 0 else 0.0
    seconds = left * max(trial.step_seconds + extra, trial.crops / loaded)
    state = 4 * (sum(numbers) + 4 * learning) / 1e6
    where = "the device" if training.device.type == "cuda" else "this process"
    board = f", {BOARD}/" if board_is_here() else " (TensorBoard is not installed: no logs for it)"
    drawn = config.sheet_every and config.stage != "modulation"
    sheets = f", {SHEETS}/ every {config.sheet_every} steps" if drawn else ""
    already = f", {trial.done} of them done" if trial.done else ""
    start = f"weights sha256 {training.identity.start[:12]}" if training.identity.start else "new weights"
    processes = f"{training.ranks.size} processes, each " if training.ranks.size > 1 else ""
    lines = (
        ("stage", f"{config.stage}, objective {config.objective}, from {start}"),
        ("images", f"{len(entries)} in {training.pack}, {pairs} of them pairs; degradations: {config.degradations}"),
        ("batches", f"{processes}in turn {', '.join(map(_shape, training.shapes))}"),
        ("learning", f"{learning:,} of {sum(numbers):,} parameters, learning rate {config.learning_rate:g}"),
        ("steps", f"{config.steps}{already}"),
        ("device", f"{training.device}, {config.precision}, loading processes: {config.workers}"),
        ("memory", f"{trial.memory:,.0f} MB at most of {where} in the trial; weights and optimizer {state:,.0f} MB"),
        ("training", f"{trained * training.ranks.size:,.0f} crops/s"),
        ("loading", f"{loaded * training.ranks.size:,.0f} crops/s, {_verdict(loaded, trained, config.workers)}"),
        ("time", f"about {_duration(seconds)} for {left} steps, from a trial of {len(training.shapes)}"),
        ("output", f"{folder}: {STATE} and {WEIGHTS} every {config.save_every} steps, {LOG}{board}{sheets}"),
    )
    return "\n".join(f"{name:9} {text}" for name, text in lines)


def _verdict(loaded: float, trained: float, workers: int) -> str:
    if workers == 0:
        return "in the training process, which waits for it"
    return "enough" if loaded >= trained else "too few: training will wait; raise workers"


def _shape(shape: Shape) -> str:
    kinds = [f"{count} {name}" for count, name in ((shape.visible, "visible"), (shape.infrared, "infrared")) if count]
    return f"{' + '.join(kinds)}{' (pairs)' if shape.pairs else ''} of {shape.size} px"


def _crops(batch: Sample) -> int:
    return len(batch.visible) + len(batch.infrared)


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
