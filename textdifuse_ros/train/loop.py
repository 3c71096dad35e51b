"""The training loop: batches in order, one optimizer, a moving average, a state to resume from."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from textdifuse_ros import __version__
from textdifuse_ros.config.base import from_mapping, to_mapping
from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import CropBatches, Sample, Shape, start_worker
from textdifuse_ros.data.pack import ImagePack
from textdifuse_ros.errors import TextDifuseError
from textdifuse_ros.fusion.weights import fitted, grown, load_networks, save_networks
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.train.ema import Ema
from textdifuse_ros.train.interrupt import StopRequest, ignore_in_worker
from textdifuse_ros.train.log import RunLog
from textdifuse_ros.train.preview import Preview
from textdifuse_ros.train.ranks import ALONE, Ranks
from textdifuse_ros.train.stages import Stage, make_stage
from textdifuse_ros.train.state import (
    BEFORE,
    WEIGHTS,
    Identity,
    keep_weights_before,
    left_to_one,
    load_state,
    save_state,
)


class Training:
    """A run in a folder: made new, or taken up where its state stands. Nothing is written before :meth:`run`.

    :param folder: keeps state, log, sheets and weights
    :param pack: the image pack
    :param start: checkpoint to start from; None for new weights, or to take up a run whatever it started from
    :param drive: sizes of new networks; None for the default ones
    :param ranks: the processes that train together, each with batches of its own
    :param make: makes the stage; another one for the variants of an ablation
    :param variant: names what ``make`` makes other than the configuration says
    :raises ConfigError: the folder holds another run: other parameters, pack, start or number of processes
    :raises CheckpointError: the start or the state is damaged
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        pack: Path,
        start: Path | None = None,
        device: torch.device | str = "cpu",
        *,
        drive: DriveConfig | None = None,
        ranks: Ranks = ALONE,
        make: Callable[[TrainConfig, DriveNetworks], Stage] = make_stage,
        variant: str = "",
    ) -> None:
        self.config, self.folder, self.pack, self.ranks = config, folder, pack, ranks
        self.device = torch.device(device)
        self.history: list[dict[str, Any]] = []
        self.step = 0
        state = ranks.from_first(lambda: load_state(folder))
        saved = state["run"] if state else None
        networks, origin = self._networks(start, drive, saved)
        digest = ImagePack(pack).digest
        ranks.check_same("the image pack", digest)
        ranks.check_same("the start checkpoint", origin)
        self.identity = Identity(to_mapping(config), to_mapping(networks.config), digest, origin, ranks.size, variant)
        if saved:
            self.identity.check(saved, folder)
        self.networks = channels_last(networks.to(self.device)).requires_grad_(False)
        self.stage = make(config, self.networks)
        for item in self.stage.parameters:
            item.requires_grad_(True)
        learning = {name: p for name, p in self.networks.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.Adam(learning.values(), lr=config.learning_rate)
        self.ema = Ema(learning, config.ema)
        if state:
            self.networks.load_state_dict(state["networks"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load(**state["ema"])
            self.step, self.history = state["step"], state["history"]
        # Where batches of one source alternate with pairs, the fusion control is idle now and then.
        kinds = {(shape.visible > 0, shape.infrared > 0) for shape in self.stage.shapes}
        self._losses = ranks.wrap(_Losses(self.networks, self.stage), partial=len(kinds) > 1)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The batches of one process, in turn."""
        times = self.config.batch
        return tuple(
            Shape(shape.size, shape.visible * times, shape.infrared * times, shape.pairs) for shape in self.stage.shapes
        )

    def batches(self, first: int, count: int) -> CropBatches:
        """This process's batches by number."""
        config = self.config
        pack = str(self.pack)
        return CropBatches(pack, self.shapes, config.seed, first, count, config.degradations, self.ranks.rank)

    def run(self) -> bool:
        """Train to the last step; a state is saved now and then and at the end.

        SIGINT and SIGTERM end the run after the step in hand, with a state.

        :returns: whether the last step was done
        :raises TextDifuseError: a loss or a gradient is not finite; the state saved last is left as it is
        """
        cv2.setNumThreads(1)  # OpenCV's own threads would fight PyTorch's for the cores
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # a handful of shapes, each met thousands of times
        config, clock = self.config, _Clock()
        met: dict[str, list[float]] = {}
        with (
            left_to_one(self.folder) if self.ranks.first else nullcontext(),
            RunLog(self.folder, self.step, config.steps, silent=not self.ranks.first) as log,
            StopRequest() as stop,
        ):
            preview = self._preview()
            for batch in self._fed():
                clock.waited()
                losses = self.update(batch)
                clock.crops += (len(batch.visible) + len(batch.infrared)) * self.ranks.size
                for name, value in losses.items():
                    met.setdefault(name, []).append(value)
                log.bar.update()
                if self.step % config.log_every == 0:
                    means = {name: round(sum(values) / len(values), 6) for name, values in met.items()}
                    log.values(self.step, {"lr": round(self.learning_rate(), 8), **means, **clock.rates()})
                    met, clock = {}, _Clock()
                if preview and (self.step % config.sheet_every == 0 or self.step == config.steps):
                    log.sheet(self.step, preview.sheet(self.averaged(), self.device))
                (stopping,) = self.ranks.any(stop.asked, device=str(self.device))
                if stopping or self.step % config.save_every == 0 or self.step == config.steps:
                    self.save()
                if stopping:
                    break
                clock.resume()
        return self.step == config.steps

    def update(self, batch: Sample) -> dict[str, float]:
        """One step of the optimizer.

        :param batch: anywhere
        :returns: the losses and the norm of the gradient, of this process
        :raises TextDifuseError: one of them is not finite in any process; nothing was changed
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        batch = self._on_device(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            losses: dict[str, Tensor] = self._losses(batch, self._generator())
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.stage.parameters, self.config.clip)
        # One transfer for all figures: each one waits for the device.
        figures = torch.stack([*(loss.detach().float() for loss in losses.values()), norm.float()]).tolist()
        values = dict(zip((*losses, "gradient"), figures, strict=True))
        wrong = next((name for name, value in values.items() if not math.isfinite(value)), None)
        (failed,) = self.ranks.any(wrong is not None, device=str(self.device))
        if failed:
            found = f"{values[wrong]}" if wrong else "another value in another process"
            where = f"{found} at step {self.step + 1}"
            raise TextDifuseError(f"the {wrong or 'loss'} of the training", "finite", where, self._way_out())
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        return values

    def save(self) -> None:
        """Write the state to resume from, and the averaged weights as a checkpoint."""
        if not self.ranks.first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "run": vars(self.identity),
            "step": self.step,
            "networks": self.networks.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state(),
            "history": self.history,
        }
        done = {**to_mapping(self.config), "done": self.step, "processes": self.ranks.size}
        provenance = {"version": __version__, "history": [*self.history, done]}
        # The state comes last: a run that is taken up at its last step writes no weights again.
        keep_weights_before(self.folder)
        save_networks(self.folder / WEIGHTS, self.averaged(), provenance)
        save_state(self.folder, state)

    def averaged(self) -> DriveNetworks:
        """A copy of the networks with the moving average of their weights."""
        networks = copy.deepcopy(self.networks).requires_grad_(False)
        networks.load_state_dict({**networks.state_dict(), **self.ema.average})
        return networks

    def learning_rate(self) -> float:
        """Of the next step: a linear rise, then half a cosine down to a fiftieth."""
        config = self.config
        if self.step < config.warm_up:
            return config.learning_rate * (self.step + 1) / config.warm_up
        progress = (self.step - config.warm_up) / max(1, config.steps - config.warm_up)
        return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _networks(
        self, start: Path | None, drive: DriveConfig | None, saved: dict[str, Any] | None
    ) -> tuple[DriveNetworks, str]:
        """Networks to begin with, and the digest of the checkpoint they come from."""
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
            torch.manual_seed(self.config.seed)
            if start is None:
                if drive is None:
                    drive = from_mapping(DriveConfig, saved["networks"], "the state") if saved else DriveConfig()
                return grown(DriveNetworks(drive), self.config.stage), saved["start"] if saved else ""
            networks, checkpoint = load_networks(start)
            self.history = checkpoint.provenance.get("history", [])
            return grown(fitted(networks, drive, str(start)), self.config.stage), checkpoint.sha256

    def _fed(self) -> Iterator[Sample]:
        """The batches of the steps that are left.

        Batches are used again in rounds, one of each shape, for a batch that comes twice in a row teaches less the
        second time (data echoing; Choi et al. 2019). A run that is taken up within a round prepares its batches again.
        """
        kinds = len(self.shapes)
        round_ = kinds * self.config.echo
        last, left = divmod(self.config.steps, round_)
        first = self.step // round_ * kinds
        batches = iter(self._loader(first, last * kinds + min(left, kinds) - first))
        held: list[Sample] = []
        for step in range(self.step, self.config.steps):
            turn, kind = divmod(step % round_, kinds)
            if step % round_ == 0:
                held = []
            while len(held) <= (kind if turn == 0 else kinds - 1):
                held.append(self._on_device(next(batches)))
            yield Sample(*(part.flip(-1) for part in held[kind])) if turn % 2 else held[kind]

    def _on_device(self, batch: Sample) -> Sample:
        return Sample(*(part.to(self.device, non_blocking=True) for part in batch))

    def _loader(self, first: int, count: int) -> DataLoader[Sample]:
        workers = self.config.workers
        return DataLoader(
            self.batches(first, count),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.type == "cuda",
        )

    def _generator(self) -> torch.Generator:
        """The noise of a step is a function of the seed, the step and the rank: there is no state to keep."""
        key = np.random.SeedSequence((self.config.seed, self.step, self.ranks.rank)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(key[0]) >> 1)

    def _preview(self) -> Preview | None:
        config = self.config
        # What the modulation sees beside the images only its stage draws: objects.
        if not config.sheet_every or not self.ranks.first or config.stage == "modulation":
            return None
        return Preview(config.stage, str(self.pack), self.stage.shapes, config.seed, config.degradations)

    def _way_out(self) -> str:
        saved = load_state(self.folder)
        if saved is None:
            return "no state was saved yet; start a new run with a lower learning_rate"
        again = (
            f"start a new run from its {WEIGHTS} with a lower learning_rate, or from {BEFORE} if they are spoiled too"
        )
        return f"the state of step {saved['step']} in {self.folder} is kept as it is; {again}"


class _Losses(nn.Module):
    """A stage as one module, the form in which gradients are averaged over processes."""

    def __init__(self, networks: DriveNetworks, stage: Stage) -> None:
        super().__init__()
        self.networks = networks
        self.stage = stage

    def forward(self, batch: Sample, generator: torch.Generator) -> dict[str, Tensor]:
        return self.stage(batch, generator)


class _Clock:
    """Crops a second, and the share of the time in which training waited for crops."""

    def __init__(self) -> None:
        self.crops = 0
        self._waiting = 0.0
        self._began = self._asked = time.perf_counter()

    def waited(self) -> None:
        """A batch has come."""
        self._waiting += time.perf_counter() - self._asked

    def resume(self) -> None:
        """The next batch is asked for."""
        self._asked = time.perf_counter()

    def rates(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._began
        return {"crops_per_second": round(self.crops / seconds, 1), "waiting": round(self._waiting / seconds, 3)}


def _start_worker(number: int) -> None:
    ignore_in_worker()
    start_worker(number)
