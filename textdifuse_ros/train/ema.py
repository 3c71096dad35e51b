"""Exponential moving average of weights: what is shipped and looked at."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """A slow copy of some parameters.

    :param parameters: by name
    :param decay: share of the old average kept at each update; warms up as (1 + n) / (10 + n)
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.updates = 0
        self.average = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the present parameters into the average."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - keep)

    def state(self) -> dict[str, object]:
        """For a training state; :meth:`load` takes it back."""
        return {"average": self.average, "updates": self.updates}

    def load(self, average: dict[str, Tensor], updates: int) -> None:
        """Go on from a saved state."""
        for name, value in self.average.items():
            value.copy_(average[name])
        self.updates = updates
