"""Training small enough for tests: small crops and batches. As a program it runs ``textdifuse`` with them.

tiny_training.py ARGUMENTS...    arguments of textdifuse; with DIGESTS=FOLDER in the environment each process writes the
                                 digest of its final weights to FOLDER/RANK
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import BatchShape
from textdifuse_ros.fusion.weights import load_networks
from textdifuse_ros.train.fusion_task import FusionTask
from textdifuse_ros.train.state import STATE
from textdifuse_ros.train.trainer import Trainer

CONFIG = TrainConfig(steps=4, warm_up=1, workers=0, log_every=2, save_every=100, sheet_every=0, precision="float32")


def shapes() -> dict[type, tuple[BatchShape, ...]]:
    """Return small batch shapes for every stage."""
    from textdifuse_ros.train.ablation import AblationStage
    from textdifuse_ros.train.chroma import ChromaStage
    from textdifuse_ros.train.control import ControlStage
    from textdifuse_ros.train.joint import JointStage
    from textdifuse_ros.train.luma import LumaStage

    pairs = BatchShape(32, 3, 3, pairs=True)
    return {
        LumaStage: (BatchShape(32, 3, 2),),
        ChromaStage: (BatchShape(64, 3, 0),),
        ControlStage: (pairs,),
        AblationStage: (pairs,),
        # Like the stage's own: pairs, and sometimes visible images alone.
        JointStage: (pairs, BatchShape(32, 4, 0)),
    }


def main() -> int:
    """Run the command line."""
    from textdifuse_ros.cli.main import main as textdifuse

    for stage, small in shapes().items():
        stage.shapes = small  # type: ignore[attr-defined]
    run = Trainer.run

    def run_and_write_digest(trainer: Trainer[Any]) -> bool:
        done = run(trainer)
        if folder := os.environ.get("DIGESTS"):
            (Path(folder) / str(trainer.ranks.rank)).write_text(digest(trainer.networks.state_dict()))
        return done

    Trainer.run = run_and_write_digest  # type: ignore[method-assign]
    if "RANK" in os.environ:
        # A long switch interval makes gloo's threads still wait for the interpreter when the process ends.
        sys.setswitchinterval(10)
    return textdifuse(sys.argv[1:])


def digest(tensors: dict[str, Any]) -> str:
    """Hash all bits of all tensors."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].numpy().tobytes())
    return found.hexdigest()


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a checkpoint."""
    return load_networks(path)[1].tensors


def state(folder: Path) -> dict[str, Any]:
    """Read the state of a run."""
    found: dict[str, Any] = torch.load(folder / STATE, weights_only=True)
    return found


def flat(value: Any) -> list[Any]:
    """List all leaves of nested containers, tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return [(value.dtype, value.numpy().tobytes())]
    if isinstance(value, dict):
        return [leaf for name in sorted(value, key=str) for leaf in (str(name), *flat(value[name]))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


def at_step(trainer: Trainer[FusionTask], step: int, act: Callable[[], object]) -> None:
    """Call ``act`` within the step that starts after ``step`` steps."""
    stage = trainer.task.stage

    class Watched:
        shapes, parameters = stage.shapes, stage.parameters

        def __call__(self, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
            if trainer.step == step:
                act()
            return stage(batch, generator)

    trainer.task.stage = Watched()  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(main())
