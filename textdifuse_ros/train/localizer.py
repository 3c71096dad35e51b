"""Training of the built-in localizer: one run in a folder, resumable as those of :mod:`textdifuse_ros.train.loop`."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from textdifuse_ros import __version__
from textdifuse_ros.config.base import from_mapping, to_mapping
from textdifuse_ros.config.training import LocalizerTrainConfig
from textdifuse_ros.data.crops import start_worker
from textdifuse_ros.data.label_pack import LabelBatch, LabelBatches, LabelPack
from textdifuse_ros.data.labels import CLASSES
from textdifuse_ros.errors import ConfigError, TextDifuseError
from textdifuse_ros.localize.weights import load_localizer, save_localizer
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.localizer import LocalizerNetwork, LocalizerNetworkConfig
from textdifuse_ros.train.ema import Ema
from textdifuse_ros.train.interrupt import StopRequest, ignore_in_worker
from textdifuse_ros.train.localizer_loss import LocalizerLoss, thing_weights
from textdifuse_ros.train.log import RunLog
from textdifuse_ros.train.state import WEIGHTS, Identity, keep_weights_before, left_to_one, load_state, save_state


class LocalizerTraining:
    """A run in a folder: made new, or taken up where its state stands. Nothing is written before :meth:`run`.

    :param folder: keeps state, log and weights
    :param pack: the label pack
    :param start: checkpoint to start from; None for new weights, or to take up a run whatever it started from
    :param sizes: of a new network; None for the default ones
    :raises ConfigError: the folder holds another run: other parameters, pack or start
    :raises CheckpointError: the start or the state is damaged
    """

    def __init__(
        self,
        config: LocalizerTrainConfig,
        folder: Path,
        pack: Path,
        start: Path | None = None,
        device: torch.device | str = "cpu",
        sizes: LocalizerNetworkConfig | None = None,
    ) -> None:
        self.config, self.folder, self.pack, self.device = config, folder, pack, torch.device(device)
        self.history: list[dict[str, Any]] = []
        self.step = 0
        state = load_state(folder)
        saved = state["run"] if state else None
        network, origin = self._network(start, sizes, saved)
        digest = LabelPack(pack).digest
        self.identity = Identity(to_mapping(config), to_mapping(network.config), digest, origin)
        if saved:
            self.identity.check(saved, folder)
        self.network = channels_last(network.to(self.device)).train()
        self.loss = LocalizerLoss(self.device)
        learning = dict(self.network.named_parameters())
        self.optimizer = torch.optim.AdamW(
            learning.values(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.ema = Ema(learning, config.ema)
        if state:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load(**state["ema"])
            self.step, self.history = state["step"], state["history"]

    def run(self) -> bool:
        """Train to the last step; a state is saved now and then and at the end.

        SIGINT and SIGTERM end the run after the step in hand, with a state.

        :returns: whether the last step was done
        :raises TextDifuseError: a loss or a gradient is not finite; the state saved last is left as it is
        """
        cv2.setNumThreads(1)  # OpenCV's own threads would fight PyTorch's for the cores
        config, began = self.config, time.perf_counter()
        sums: dict[str, float] = {}
        with left_to_one(self.folder), RunLog(self.folder, self.step, config.steps) as log, StopRequest() as stop:
            since = self.step
            for batch in self._loader():
                for name, value in self.update(batch).items():
                    sums[name] = sums.get(name, 0.0) + value
                log.bar.update()
                if self.step % config.log_every == 0:
                    count, seconds = self.step - since, time.perf_counter() - began
                    means = {name: round(value / count, 6) for name, value in sums.items()}
                    speed = round(count * config.crops / seconds, 1)
                    log.values(self.step, {"lr": round(self.learning_rate(), 8), **means, "crops_per_second": speed})
                    sums, since, began = {}, self.step, time.perf_counter()
                if stop.asked or self.step % config.save_every == 0 or self.step == config.steps:
                    self.save()
                if stop.asked:
                    break
        return self.step == config.steps

    def update(self, batch: LabelBatch) -> dict[str, float]:
        """One step of the optimizer.

        :returns: the losses and the norm of the gradient
        :raises TextDifuseError: one of them is not finite; the weights were not changed
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        batch = LabelBatch(*(part.to(self.device, non_blocking=True) for part in batch))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            cells = self.network(batch.visible, batch.infrared)
        losses = self.loss(cells, batch.codes, batch.boxes)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        figures = torch.stack([*(loss.detach().float() for loss in losses.values()), norm.float()]).tolist()
        values = dict(zip((*losses, "gradient"), figures, strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                what = f"the {name} of the training"
                raise TextDifuseError(what, "finite", f"{value} at step {self.step + 1}", "lower learning_rate")
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        return values

    def save(self) -> None:
        """Write the state to resume from, and the averaged weights as a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "run": vars(self.identity),
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state(),
            "history": self.history,
        }
        done = {"stage": "localizer", **to_mapping(self.config), "done": self.step}
        provenance = {"version": __version__, "history": [*self.history, done]}
        keep_weights_before(self.folder)
        save_localizer(self.folder / WEIGHTS, self.averaged(), provenance)
        save_state(self.folder, state)

    def averaged(self) -> LocalizerNetwork:
        """A copy of the network with the moving average of its weights, for evaluation.

        What is weighted is learned as if it were so much more frequent. For things that is taken back, so that their
        probabilities are those of the images; poles and signs would vanish.
        """
        network = copy.deepcopy(self.network).requires_grad_(False).eval()
        network.load_state_dict({**network.state_dict(), **self.ema.average})
        _shift_logits(network, -thing_weights().log())
        return network

    def learning_rate(self) -> float:
        """Of the next step: a linear rise, then half a cosine down to a hundredth."""
        config = self.config
        if self.step < config.warm_up:
            return config.learning_rate * (self.step + 1) / config.warm_up
        progress = (self.step - config.warm_up) / max(1, config.steps - config.warm_up)
        return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _network(
        self, start: Path | None, sizes: LocalizerNetworkConfig | None, saved: dict[str, Any] | None
    ) -> tuple[LocalizerNetwork, str]:
        """A network to begin with, and the digest of the checkpoint it comes from."""
        if start is not None:
            network, checkpoint = load_localizer(start)
            _shift_logits(network, thing_weights().log())
            self.history = checkpoint.provenance.get("history", [])
            return network, checkpoint.sha256
        if saved:
            sizes = from_mapping(LocalizerNetworkConfig, saved["networks"], "the state")
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
            torch.manual_seed(self.config.seed)
            network = LocalizerNetwork(sizes or LocalizerNetworkConfig(classes=len(CLASSES)))
        return network, saved["start"] if saved else ""

    def _loader(self) -> DataLoader[LabelBatch]:
        config = self.config
        count = max(0, config.steps - self.step)
        batches = LabelBatches(self.pack, config.crop, config.crops, config.seed, self.step, count)
        return DataLoader(
            batches,
            batch_size=None,
            num_workers=config.workers,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if config.workers else None,
            pin_memory=self.device.type == "cuda",
        )


def _shift_logits(network: LocalizerNetwork, shift: Tensor) -> None:
    bias = network.to_logits.bias
    if bias is None or bias.shape != shift.shape:
        found = "none" if bias is None else len(bias)
        raise ConfigError("classes", f"{len(shift)}, as many as the labels have", found)
    with torch.no_grad():
        bias += shift.to(bias.device)


def _start_worker(number: int) -> None:
    ignore_in_worker()
    start_worker(number)
