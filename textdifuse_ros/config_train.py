"""Parameters of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config import parameter

STAGES = ("luma", "chroma", "control", "joint")


@dataclass(frozen=True)
class TrainConfig:
    """One run of one stage."""

    stage: str = parameter("luma", "What is trained.", choices=STAGES)
    steps: int = parameter(10_000, "Optimizer steps of the whole run.", low=1, high=100_000_000)
    learning_rate: float = parameter(4e-4, "Highest learning rate of Adam; it falls to a fiftieth.", low=1e-8, high=1.0)
    warm_up: int = parameter(200, "Steps over which the learning rate rises.", low=0, high=1_000_000)
    ema: float = parameter(0.999, "Share that the moving average of the weights keeps a step.", low=0.0, high=0.99999)
    clip: float = parameter(1.0, "Largest norm of the gradient.", low=1e-6, high=1e6)
    seed: int = parameter(0, "Seed of crops, degradations, noise and first weights.", low=0, high=2**31 - 1)
    precision: str = parameter("bfloat16", "Number format of the arithmetic.", choices=("bfloat16", "float32"))
    workers: int = parameter(
        1, "Processes that prepare batches; 0 prepares them in the training process.", low=0, high=256
    )
    save_every: int = parameter(500, "Steps between two saved states.", low=1, high=1_000_000)
    log_every: int = parameter(50, "Steps between two lines of the log.", low=1, high=1_000_000)
