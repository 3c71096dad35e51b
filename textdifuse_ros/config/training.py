"""Parameters of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config.base import parameter
from textdifuse_ros.errors import ConfigError

STAGES = ("luma", "chroma", "control", "joint", "modulation")

CHANGEABLE_ON_RESUME = ("workers", "log_every", "save_every", "sheet_every")
"""Parameters that change nothing of what is learned: a run may be taken up with others."""


@dataclass(frozen=True)
class TrainConfig:
    """One run of one stage."""

    stage: str = parameter("luma", "What is trained.", choices=STAGES)
    objective: str = parameter(
        "few_step",
        "What the diffusion is trained for: few_step (each estimate, on the timesteps of 1, 2 and 4 steps) or hybrid "
        "(iDDPM's hybrid loss on all timesteps, for many steps).",
        choices=("few_step", "hybrid"),
    )
    steps: int = parameter(10_000, "Optimizer steps of the whole run.", low=1, high=100_000_000)
    batch: int = parameter(
        1, "How many times the stage's usual number of crops a batch holds, in each process.", low=1, high=4096
    )
    echo: int = parameter(
        1,
        "How many steps use each batch, mirrored every other time: for devices faster than crops can be prepared.",
        low=1,
        high=100,
    )
    learning_rate: float = parameter(4e-4, "Highest learning rate of Adam; it falls to a fiftieth.", low=1e-8, high=1.0)
    warm_up: int = parameter(200, "Steps over which the learning rate rises.", low=0, high=1_000_000)
    ema: float = parameter(0.999, "Share that the moving average of the weights keeps a step.", low=0.0, high=0.99999)
    clip: float = parameter(1.0, "Largest norm of the gradient.", low=1e-6, high=1e6)
    degradations: str = parameter(
        "road",
        "What is done to clean crops: road (night, glare, weather, camera noise), medical (mild noise, low contrast, "
        "blur), or none.",
        choices=("road", "medical", "none"),
    )
    look: str = parameter("road", "What the joint stage's fused image is to look like.", choices=("road", "medical"))
    seed: int = parameter(0, "Seed of crops, degradations, noise and first weights.", low=0, high=2**31 - 1)
    precision: str = parameter("bfloat16", "Number format of the arithmetic.", choices=("bfloat16", "float32"))
    workers: int = parameter(
        1, "Processes that prepare batches; 0 prepares them in the training process.", low=0, high=256
    )
    save_every: int = parameter(500, "Steps between two saved states.", low=1, high=1_000_000)
    log_every: int = parameter(50, "Steps between two lines of the log.", low=1, high=1_000_000)
    sheet_every: int = parameter(500, "Steps between two sheets of sample images; 0 makes none.", low=0, high=1_000_000)


@dataclass(frozen=True)
class AblationConfig(TrainConfig):
    """The run of one variant of an ablation: a small budget, and no sheets."""

    stage: str = parameter("control", "What is trained.", choices=("control",))
    steps: int = parameter(300, "Optimizer steps of each variant.", low=1, high=100_000_000)
    learning_rate: float = parameter(2e-4, "Highest learning rate of Adam; it falls to a fiftieth.", low=1e-8, high=1.0)
    warm_up: int = parameter(20, "Steps over which the learning rate rises.", low=0, high=1_000_000)
    ema: float = parameter(0.98, "Share that the moving average of the weights keeps a step.", low=0.0, high=0.99999)
    sheet_every: int = parameter(0, "Steps between two sheets of sample images; 0 makes none.", low=0, high=1_000_000)


@dataclass(frozen=True)
class LocalizerTrainConfig:
    """One training run of the localizer."""

    steps: int = parameter(6000, "Optimizer steps of the whole run.", low=1, high=100_000_000)
    learning_rate: float = parameter(2e-3, "Highest learning rate of AdamW; it falls to a hundredth.", low=1e-8, high=1)
    warm_up: int = parameter(200, "Steps over which the learning rate rises.", low=0, high=1_000_000)
    weight_decay: float = parameter(0.01, "Weight decay of AdamW.", low=0.0, high=10.0)
    ema: float = parameter(0.998, "Share that the moving average of the weights keeps a step.", low=0.0, high=0.99999)
    clip: float = parameter(5.0, "Largest norm of the gradient.", low=1e-6, high=1e6)
    crop: int = parameter(256, "Side of the crops; a multiple of 32.", unit="px", low=32, high=4096)
    crops: int = parameter(8, "Crops of a step.", low=2, high=4096)
    seed: int = parameter(0, "Seed of crops, degradations and first weights.", low=0, high=2**31 - 1)
    precision: str = parameter("bfloat16", "Number format of the arithmetic.", choices=("bfloat16", "float32"))
    workers: int = parameter(1, "Processes that prepare batches; 0 for the training process itself.", low=0, high=256)
    save_every: int = parameter(250, "Steps between two saved states.", low=1, high=1_000_000)
    log_every: int = parameter(50, "Steps between two lines of the log.", low=1, high=1_000_000)

    def __post_init__(self) -> None:
        if self.crop % 32:
            raise ConfigError("crop", "a multiple of 32 [px]", self.crop)
