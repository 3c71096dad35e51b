"""The training loop: batches in order, one optimizer, a moving average, a state to resume from."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from textdifuse_ros import __version__
from textdifuse_ros.config import from_mapping, to_mapping
from textdifuse_ros.config_train import TrainConfig
from textdifuse_ros.data.crops import CropBatches, Sample, start_worker
from textdifuse_ros.errors import CheckpointError, ConfigError, TextDifuseError
from textdifuse_ros.fusion.weights import load_networks, save_networks
from textdifuse_ros.networks.blocks import channels_last
from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks
from textdifuse_ros.train.ema import Ema
from textdifuse_ros.train.stages import STAGES

STATE = "state.pt"
WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"


class Training:
    """A run in a folder: made new, or taken up where its state stands.

    :param run: folder that keeps state, log and weights
    :param pack: the picture pack
    :param start: checkpoint to start from, or None for new weights; ignored when the run is taken up
    :raises ConfigError: the folder holds a run of another configuration
    """

    def __init__(
        self, config: TrainConfig, run: Path, pack: Path, start: Path | None = None, device: str = "cpu"
    ) -> None:
        self.config, self.run_folder, self.pack, self.device = config, run, pack, device
        torch.manual_seed(config.seed)
        self.history: list[dict[str, Any]] = []
        state = _load_state(run / STATE, device) if (run / STATE).is_file() else None
        if state is not None:
            networks = DriveNetworks(from_mapping(DriveConfig, state["drive"], str(run / STATE)))
        elif start is None:
            networks = DriveNetworks(DriveConfig())
        else:
            networks, checkpoint = load_networks(start)
            self.history = checkpoint.provenance.get("history", [])
        self.networks = channels_last(networks.to(device))
        self.networks.requires_grad_(False)
        self.stage = STAGES[config.stage](self.networks)
        for item in self.stage.parameters:
            item.requires_grad_(True)
        learning = {name: p for name, p in self.networks.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.Adam(learning.values(), lr=config.learning_rate)
        self.ema = Ema(learning, config.ema)
        self.step = 0
        if state is not None:
            self._resume(state)

    def run(self) -> None:
        """Train to the last step; a state is saved now and then, at the end, and when interrupted."""
        cv2.setNumThreads(1)  # OpenCV's own threads would fight PyTorch's for the cores
        self.run_folder.mkdir(parents=True, exist_ok=True)
        batches = CropBatches(
            str(self.pack), self.stage.shapes, self.config.seed, self.step, self.config.steps - self.step
        )
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=self.config.workers,
            worker_init_fn=start_worker,
            prefetch_factor=4 if self.config.workers else None,
        )
        bar = tqdm(total=self.config.steps, initial=self.step, unit="step", smoothing=0.05)
        sums: dict[str, float] = {}
        crops, began = 0, time.perf_counter()
        try:
            for batch in loader:
                losses = self._update(Sample(*(part.to(self.device) for part in batch)))
                crops += batch.visible.shape[0] + batch.infrared.shape[0]
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value / self.config.log_every
                bar.update()
                if self.step % self.config.log_every == 0:
                    seconds = time.perf_counter() - began
                    self._log({**{k: round(v, 5) for k, v in sums.items()}, "crops_per_second": round(crops / seconds)})
                    bar.set_postfix_str(f"loss {sums['loss']:.4f}, {crops / seconds:.0f} crops/s")
                    sums, crops, began = {}, 0, time.perf_counter()
                if self.step % self.config.save_every == 0:
                    self.save()
        finally:
            bar.close()
            self.save()

    def save(self) -> None:
        """Write the state to resume from, and the averaged weights as a checkpoint."""
        state = {
            "config": to_mapping(self.config),
            "drive": to_mapping(self.networks.config),
            "step": self.step,
            "networks": self.networks.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state(),
            "history": self.history,
        }
        partial = self.run_folder / (STATE + ".partial")
        torch.save(state, partial)
        partial.replace(self.run_folder / STATE)
        averaged = DriveNetworks(self.networks.config)
        averaged.load_state_dict({**self.networks.state_dict(), **self.ema.average})
        done = {**to_mapping(self.config), "done": self.step}
        save_networks(self.run_folder / WEIGHTS, averaged, {"version": __version__, "history": [*self.history, done]})

    def _update(self, batch: Sample) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        # Noise is a function of the seed and the step: a resumed run draws what an uninterrupted one would have.
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            losses: dict[str, Tensor] = self.stage(batch, generator)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.stage.parameters, self.config.clip)
        if not bool(torch.isfinite(norm)):
            raise TextDifuseError("the gradient", "finite", f"{float(norm)} at step {self.step}", "lower learning_rate")
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        return {name: value.item() for name, value in losses.items()}

    def _learning_rate(self) -> float:
        config = self.config
        if self.step < config.warm_up:
            return config.learning_rate * (self.step + 1) / config.warm_up
        progress = (self.step - config.warm_up) / max(1, config.steps - config.warm_up)
        return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _resume(self, state: dict[str, Any]) -> None:
        mine, its = to_mapping(self.config), state["config"]
        different = [name for name in mine if mine[name] != its.get(name) and name not in ("workers", "log_every")]
        if different:
            name = different[0]
            raise ConfigError(
                name,
                f"{its.get(name)!r}, as in the run in {self.run_folder}",
                repr(mine[name]),
                "give another run folder to start a new run",
            )
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load(**state["ema"])
        self.step, self.history = state["step"], state["history"]

    def _log(self, values: dict[str, float]) -> None:
        line = {"step": self.step, "lr": round(self._learning_rate(), 7), **values}
        with (self.run_folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _load_state(path: Path, device: str) -> dict[str, Any]:
    """The state of a run.

    :raises CheckpointError: it cannot be read
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zipfile, pickle and torch have a dozen kinds for a damaged file
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            str(path), "a readable training state", reason, "start a new run from the weights"
        ) from error
    return state
