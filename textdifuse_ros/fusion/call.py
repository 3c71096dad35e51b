"""Settings and timings of one call of the fuser."""

from __future__ import annotations

import time

import torch

from textdifuse_ros.config.base import FuserConfig, parameters
from textdifuse_ros.diffusion import samplers
from textdifuse_ros.diffusion.samplers import Sampler

_CHECKS = {item.name: item.check for item in parameters(FuserConfig)}


class CallSettings:
    """The checked settings of one call.

    :param steps: reverse steps
    :param sampler: name of the rule of one step
    :param seed: of the noise
    :param confidence: whether the confidence is computed
    :ivar rule: the sampler
    :ivar key: what the bytes depend on, beside weights and images
    :raises ConfigError: a value out of range
    """

    def __init__(self, steps: int, sampler: str, seed: int, *, confidence: bool = False) -> None:
        _CHECKS["steps"](steps)
        _CHECKS["sampler"](sampler)
        _CHECKS["seed"](seed)
        self.steps, self.sampler, self.seed = steps, sampler, seed
        self.rule: Sampler = samplers.by_name(sampler)
        self.confidence = confidence
        self.key = steps, sampler, seed, confidence

    def generator(self) -> torch.Generator:
        """A CPU generator of the noise, so that the noise is the same on every device."""
        return torch.Generator().manual_seed(self.seed)


class Stopwatch:
    """Measures the seconds between laps; synchronizes on CUDA, where launches return early.

    :param device: that computes
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = self._begin = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End a lap.

        :param name: of the stage that ends
        """
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._laps[name] = now - self._last
        self._last = now

    def laps(self) -> dict[str, float]:
        """Return the seconds of each lap, and their ``total``."""
        return {**self._laps, "total": self._last - self._begin}
