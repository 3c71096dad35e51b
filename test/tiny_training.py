"""Training small enough for tests: little crops and networks. As a program it is ``textdifuse`` with these.

tiny_training.py WORDS...    the arguments of textdifuse; with DIGESTS=FOLDER in the environment each process leaves the
                             digest of its last weights in FOLDER/RANK
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from textdifuse_ros.config.training import TrainConfig
from textdifuse_ros.data.crops import Shape

CONFIG = TrainConfig(steps=4, warm_up=1, workers=0, log_every=2, save_every=100, sheet_every=0, precision="float32")


def shapes() -> dict[type, tuple[Shape, ...]]:
    """Little batches for every stage."""
    from textdifuse_ros.train.ablation import AblationStage
    from textdifuse_ros.train.chroma import ChromaStage
    from textdifuse_ros.train.control import ControlStage
    from textdifuse_ros.train.joint import JointStage
    from textdifuse_ros.train.luma import LumaStage

    pairs = Shape(32, 3, 3, pairs=True)
    return {
        LumaStage: (Shape(32, 3, 2),),
        ChromaStage: (Shape(64, 3, 0),),
        ControlStage: (pairs,),
        AblationStage: (pairs,),
        # As the stage itself: pairs, and now and then visible images alone.
        JointStage: (pairs, Shape(32, 4, 0)),
    }


def main() -> int:
    """Run the command line."""
    from textdifuse_ros.cli.main import main as textdifuse
    from textdifuse_ros.train.loop import Training

    for stage, little in shapes().items():
        stage.shapes = little  # type: ignore[attr-defined]
    run = Training.run

    def run_and_tell(training: Training) -> bool:
        done = run(training)
        if folder := os.environ.get("DIGESTS"):
            (Path(folder) / str(training.ranks.rank)).write_text(digest(training.networks.state_dict()))
        return done

    Training.run = run_and_tell  # type: ignore[method-assign]
    if "RANK" in os.environ:
        # Threads wait long for the interpreter, so that gloo's still want it when the process ends.
        sys.setswitchinterval(10)
    return textdifuse(sys.argv[1:])


def digest(tensors: dict[str, Any]) -> str:
    """Of all bits of all tensors."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].numpy().tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
