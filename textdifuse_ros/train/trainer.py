"""The training loop of every task: batches in order, one optimizer, a moving average, a state to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from textdifuse_ros import __version__
from textdifuse_ros.config.base import to_mapping
from textdifuse_ros.data.crops import start_worker
from textdifuse_ros.errors import TextDifuseError
from textdifuse_ros.train.ema import ema_model
from textdifuse_ros.train.log import RunLog
from textdifuse_ros.train.ranks import ALONE, Ranks
from textdifuse_ros.train.signals import DeferredSignals, ignore_signals
from textdifuse_ros.train.state import (
    PREVIOUS_WEIGHTS,
    WEIGHTS,
    Identity,
    back_up_weights,
    load_state,
    lock_folder,
    save_state,
)
from textdifuse_ros.train.task import Batch, Task

AnyTask = TypeVar("AnyTask", bound=Task)


class Trainer(Generic[AnyTask]):
    """Trains a task in a run folder, from its first step or from a saved state. Only :meth:`run` writes files.

    :param task: networks, batches and losses
    :param folder: run folder, for state, log, sheets and weights
    :param identity: of this run; a state of another run is refused
    :param state: of :func:`.load_state`; None for a new run
    :param history: earlier stages of the weights that a new run starts from
    :param ranks: the processes that train together, each on batches of its own
    :ivar step: steps done
    :ivar ema: moving average of the networks
    :raises ConfigError: the state belongs to another run
    """

    def __init__(
        self,
        task: AnyTask,
        folder: Path,
        identity: Identity,
        state: dict[str, Any] | None,
        history: list[dict[str, Any]],
        ranks: Ranks = ALONE,
    ) -> None:
        self.task, self.config, self.folder, self.identity, self.ranks = task, task.config, folder, identity, ranks
        self.networks, self.optimizer = task.networks, task.optimizer
        self.device = next(self.networks.parameters()).device
        self.step, self.history = 0, history
        self.ema = ema_model(self.networks, self.config.ema)
        if state:
            identity.check(state["run"], folder)
            self.networks.load_state_dict(state["networks"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            self.step, self.history = state["step"], state["history"]
        for group in self.optimizer.param_groups:
            group["initial_lr"] = self.config.learning_rate
        # The learning rate is a function of the step, so it needs no state of its own.
        plan = warm_up_cosine(self.config.steps, self.config.warm_up, task.final_rate)
        self.scheduler = LambdaLR(self.optimizer, plan, last_epoch=self.step - 1)
        self._losses = ranks.wrap(_Losses(task), partial=task.partial)

    def run(self) -> bool:
        """Train to the last step; save a state at intervals and at the end.

        SIGINT and SIGTERM end the run after the current step, with a saved state.

        :returns: whether the last step was done
        :raises FileError: another run uses the folder
        :raises TextDifuseError: a loss or a gradient is not finite; the last saved state is kept
        """
        cv2.setNumThreads(1)  # OpenCV's own threads would compete with PyTorch's for the cores
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # few shapes, each used thousands of times
        config, meter = self.config, _Meter()
        with (
            lock_folder(self.folder) if self.ranks.first else nullcontext(),
            RunLog(self.folder, self.step, config.steps, silent=not self.ranks.first) as log,
            DeferredSignals() as signals,
        ):
            preview = self.task.preview() if self.ranks.first and self.task.sheet_every else None
            for batch in meter.timed(self._batches()):
                meter.add(self.update(batch), self.ranks.size * self.task.crops(batch))
                log.bar.update()
                last = self.step == config.steps
                if self.step % config.log_every == 0:
                    log.values(self.step, {"lr": round(float(self.scheduler.get_last_lr()[0]), 8), **meter.take()})
                if preview and (last or self.step % self.task.sheet_every == 0):
                    log.sheet(self.step, preview.sheet(self.ema.module, self.device))
                (stopping,) = self.ranks.any(signals.received, device=str(self.device))
                if stopping or last or self.step % config.save_every == 0:
                    self.save()
                if stopping:
                    break
        return self.step == config.steps

    def update(self, batch: Batch) -> dict[str, float]:
        """Take one step of the optimizer.

        :param batch: on any device
        :returns: the losses and the norm of the gradient, of this process
        :raises TextDifuseError: one of them is not finite in any process; the weights are unchanged
        """
        batch = self._on_device(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            losses: dict[str, Tensor] = self._losses(batch, self.generator())
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.task.parameters, self.config.clip)
        # One transfer for all values: each transfer waits for the device.
        figures = torch.stack([*(loss.detach().float() for loss in losses.values()), norm.float()]).tolist()
        values = dict(zip((*losses, "gradient"), figures, strict=True))
        self._check_finite(values)
        self.optimizer.step()
        self.scheduler.step()
        self.ema.update_parameters(self.networks)
        self.step += 1
        return values

    def generator(self) -> torch.Generator:
        """Create the generator of the next step, a function of the seed, the step and the rank: it has no state."""
        key = np.random.SeedSequence((self.config.seed, self.step, self.ranks.rank)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(key[0]) >> 1)

    def save(self) -> None:
        """Write the averaged weights as a checkpoint, and the state to resume from."""
        if not self.ranks.first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stage = {
            "stage": self.task.name,
            **to_mapping(self.config),
            "done": self.step,
            "processes": self.ranks.size,
        }
        provenance = {"version": __version__, "history": [*self.history, stage]}
        state = {
            "run": vars(self.identity),
            "step": self.step,
            "networks": self.networks.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "history": self.history,
        }
        # The state comes last: a run resumed at its last step writes no weights again.
        back_up_weights(self.folder)
        self.task.save(self.folder / WEIGHTS, self.ema.module, provenance)
        save_state(self.folder, state)

    def _batches(self) -> Iterator[Batch]:
        """Yield the batches of the remaining steps.

        Batches are reused in rounds of one batch of each shape, because a batch used twice in a row teaches less the
        second time (data echoing; Choi et al. 2019). A run resumed within a round prepares its batches again.
        """
        shapes = self.task.shape_count
        length = shapes * self.task.echo
        rounds, rest = divmod(self.config.steps, length)
        first = self.step // length * shapes
        prepared = iter(self._loader(first, rounds * shapes + min(rest, shapes) - first))
        held: list[Batch] = []
        for step in range(self.step, self.config.steps):
            turn, shape = divmod(step % length, shapes)
            if step % length == 0:
                held = []
            while len(held) <= (shape if turn == 0 else shapes - 1):
                held.append(self._on_device(next(prepared)))
            yield self.task.mirror(held[shape]) if turn % 2 else held[shape]

    def _loader(self, first: int, count: int) -> DataLoader[Batch]:
        workers = self.config.workers
        return DataLoader(
            self.task.batches(first, count, self.ranks.rank),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.type == "cuda",
        )

    def _on_device(self, batch: Batch) -> Batch:
        return type(batch)(*(part.to(self.device, non_blocking=True) for part in batch))

    def _check_finite(self, values: dict[str, float]) -> None:
        wrong = next((name for name, value in values.items() if not math.isfinite(value)), None)
        (failed,) = self.ranks.any(wrong is not None, device=str(self.device))
        if not failed:
            return
        found = f"{values[wrong]}" if wrong else "another value in another process"
        where = f"{found} at step {self.step + 1}"
        raise TextDifuseError(f"the {wrong or 'loss'} of the training", "finite", where, self._remedy())

    def _remedy(self) -> str:
        saved = load_state(self.folder)
        if saved is None:
            return "no state was saved yet; start a new run with a lower learning_rate"
        return (
            f"the state of step {saved['step']} in {self.folder} is kept as it is; start a new run from its {WEIGHTS} "
            f"with a lower learning_rate, or from {PREVIOUS_WEIGHTS} if they are damaged too"
        )


def warm_up_cosine(steps: int, warm_up: int, final: float) -> Callable[[int], float]:
    """Make the learning-rate factor of a step: a linear rise, then half a cosine, for :class:`.LambdaLR`.

    :param steps: of the whole run
    :param warm_up: steps of the rise
    :param final: factor at the end, in [0, 1]
    """

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        progress = (step - warm_up) / max(1, steps - warm_up)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


class _Losses(nn.Module):
    """A task's losses as one module, the form in which gradients are averaged over processes."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.networks = task.networks
        self.task = task

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return self.task.losses(batch, generator)


class _Meter:
    """Mean losses, crops per second, and the share of the time spent waiting for batches."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._crops, self._waiting = 0, 0.0
        self._started = time.perf_counter()

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        iterator = iter(batches)
        while True:
            before = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            self._waiting += time.perf_counter() - before
            yield batch

    def add(self, values: dict[str, float], crops: int) -> None:
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        self._crops += crops

    def take(self) -> dict[str, float]:
        """Return the figures since the last call."""
        seconds = time.perf_counter() - self._started
        figures = {name: round(sum(values) / len(values), 6) for name, values in self._values.items()}
        figures["crops_per_second"] = round(self._crops / seconds, 1)
        figures["waiting"] = round(self._waiting / seconds, 3)
        self._reset()
        return figures


def _start_worker(number: int) -> None:
    ignore_signals()
    start_worker(number)
