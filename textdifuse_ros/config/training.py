"""Parameters of training runs."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config.base import parameter
from textdifuse_ros.errors import ConfigError

STAGES = ("luma", "chroma", "control", "joint", "modulation")

CHANGEABLE_ON_RESUME = ("workers", "log_every", "save_every", "sheet_every")
"""Parameters that do not affect the result and may therefore change when a run is resumed."""


@dataclass(frozen=True)
class TrainConfig:
    """Parameters of a run of one training stage."""

    stage: str = parameter("luma", "Training stage.", choices=STAGES)
    objective: str = parameter(
        "few_step",
        "Training objective of the diffusion: all_steps (from noise and at every timestep, with the variance of x0), "
        "few_step (every estimate of sampling in 1, 2 and 4 steps) or hybrid (iDDPM's hybrid loss).",
        choices=("all_steps", "few_step", "hybrid"),
    )
    steps: int = parameter(10_000, "Optimizer steps of the whole run.", low=1, high=100_000_000)
    batch: int = parameter(
        1, "Batch size of each process, as a multiple of the stage's default number of crops.", low=1, high=4096
    )
    echo: int = parameter(
        1,
        "Steps per batch (data echoing), mirrored every other time; for devices faster than the data loading.",
        low=1,
        high=100,
    )
    learning_rate: float = parameter(4e-4, "Peak learning rate of Adam; decays to 1/50.", low=1e-8, high=1.0)
    warm_up: int = parameter(200, "Warm-up steps of the learning rate.", low=0, high=1_000_000)
    ema: float = parameter(0.999, "Decay of the moving average of the weights.", low=0.0, high=0.99999)
    clip: float = parameter(1.0, "Maximum norm of the gradient.", low=1e-6, high=1e6)
    degradations: str = parameter(
        "road",
        "Degradations of clean crops: road (night, glare, weather, camera noise), medical (mild noise, low contrast, "
        "blur), or none.",
        choices=("road", "medical", "none"),
    )
    look: str = parameter(
        "road",
        "Target appearance of the joint stage's fused image: road (like the visible image where it is well exposed), "
        "vivid (both sources mixed everywhere), medical.",
        choices=("road", "vivid", "medical"),
    )
    seed: int = parameter(0, "Seed of crops, degradations, noise and initial weights.", low=0, high=2**31 - 1)
    precision: str = parameter("bfloat16", "Data type of the computation.", choices=("bfloat16", "float32"))
    workers: int = parameter(
        1, "Processes that prepare batches; 0 prepares them in the training process.", low=0, high=256
    )
    save_every: int = parameter(500, "Steps between saved states.", low=1, high=1_000_000)
    log_every: int = parameter(50, "Steps between log lines.", low=1, high=1_000_000)
    sheet_every: int = parameter(500, "Steps between sheets of sample images; 0 disables them.", low=0, high=1_000_000)


@dataclass(frozen=True)
class AblationConfig(TrainConfig):
    """Parameters of one variant of an ablation: few steps, no sheets."""

    stage: str = parameter("control", "Training stage.", choices=("control",))
    steps: int = parameter(300, "Optimizer steps of each variant.", low=1, high=100_000_000)
    learning_rate: float = parameter(2e-4, "Peak learning rate of Adam; decays to 1/50.", low=1e-8, high=1.0)
    warm_up: int = parameter(20, "Warm-up steps of the learning rate.", low=0, high=1_000_000)
    ema: float = parameter(0.98, "Decay of the moving average of the weights.", low=0.0, high=0.99999)
    sheet_every: int = parameter(0, "Steps between sheets of sample images; 0 disables them.", low=0, high=1_000_000)


@dataclass(frozen=True)
class LocalizerTrainConfig:
    """Parameters of a training run of the localizer."""

    steps: int = parameter(6000, "Optimizer steps of the whole run.", low=1, high=100_000_000)
    learning_rate: float = parameter(2e-3, "Peak learning rate of AdamW; decays to 1/100.", low=1e-8, high=1)
    warm_up: int = parameter(200, "Warm-up steps of the learning rate.", low=0, high=1_000_000)
    weight_decay: float = parameter(0.01, "Weight decay of AdamW.", low=0.0, high=10.0)
    ema: float = parameter(0.998, "Decay of the moving average of the weights.", low=0.0, high=0.99999)
    clip: float = parameter(5.0, "Maximum norm of the gradient.", low=1e-6, high=1e6)
    crop: int = parameter(256, "Side of the crops; a multiple of 32.", unit="px", low=32, high=4096)
    crops: int = parameter(8, "Crops per step.", low=2, high=4096)
    seed: int = parameter(0, "Seed of crops, degradations and initial weights.", low=0, high=2**31 - 1)
    precision: str = parameter("bfloat16", "Data type of the computation.", choices=("bfloat16", "float32"))
    workers: int = parameter(
        1, "Processes that prepare batches; 0 prepares them in the training process.", low=0, high=256
    )
    save_every: int = parameter(250, "Steps between saved states.", low=1, high=1_000_000)
    log_every: int = parameter(50, "Steps between log lines.", low=1, high=1_000_000)

    def __post_init__(self) -> None:
        if self.crop % 32:
            raise ConfigError("crop", "a multiple of 32 [px]", self.crop)
