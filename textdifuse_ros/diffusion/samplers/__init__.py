"""The rules of one reverse step: ``ancestral``, ``ddim``, ``dpm_solver``, ``posterior_mean``."""

from __future__ import annotations

from collections.abc import Callable

from textdifuse_ros.diffusion.samplers.ancestral import Ancestral
from textdifuse_ros.diffusion.samplers.base import NoiseCrop, NoiseSource, NoiseTape, Sampler, SamplerState, fork
from textdifuse_ros.diffusion.samplers.ddim import Ddim
from textdifuse_ros.diffusion.samplers.dpm_solver import DpmSolver
from textdifuse_ros.diffusion.samplers.posterior_mean import PosteriorMean
from textdifuse_ros.errors import ConfigError

__all__ = [
    "Ancestral",
    "Ddim",
    "DpmSolver",
    "NoiseCrop",
    "NoiseSource",
    "NoiseTape",
    "PosteriorMean",
    "Sampler",
    "SamplerState",
    "by_name",
    "fork",
]

_SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "ancestral": Ancestral,
    "ddim": Ddim,
    "dpm_solver": DpmSolver,
    "posterior_mean": PosteriorMean,
}


def by_name(name: str) -> Sampler:
    """The sampler called ``name``, with its defaults.

    :raises ConfigError: an unknown name
    """
    if name not in _SAMPLERS:
        raise ConfigError("sampler", f"one of {', '.join(_SAMPLERS)}", repr(name))
    return _SAMPLERS[name]()
