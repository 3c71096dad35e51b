"""Building blocks without normalization, so that results depend on neither the batch nor the image size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, divided by the stride.

    :param inputs: channels
    :param outputs: channels
    :param kernel: side of the kernel, odd
    :param stride: in both directions
    """
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def channels_last(module: _Module) -> _Module:
    """Convert the weights to the memory format in which convolutions are fastest; returns the same module.

    :param module: converted in place
    """
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Compute the shapes of the tensors of a module, without memory for them.

    :param build: creates the module
    """
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x)) + shift))``, the last convolution small at first.

    :param channels: of input and output
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = conv(channels, channels)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Apply the block.

        :param x: [N, C, H, W]
        :param shift: [N or 1, C, 1, 1], of the time embedding, or None
        """
        h = self.first(F.relu(x))
        if shift is not None:
            h = h + shift
        return x + self.second(F.relu(h))


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the timestep (Ho 2020, section 4), then two linear layers.

    :param width: of the embedding
    :param outputs: channels of the output vectors, one per level
    """

    rates: Tensor

    def __init__(self, width: int, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.outputs = outputs
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, sum(outputs))
        half = width // 2
        self.register_buffer("rates", torch.exp(-math.log(10_000) * torch.arange(half) / half), persistent=False)

    def forward(self, timestep: Tensor) -> tuple[Tensor, ...]:
        """Embed timesteps.

        :param timestep: integer or float [N], of the full schedule
        :returns: one [N, C, 1, 1] per level, in the precision of the weights
        """
        phase = timestep.to(torch.float32)[:, None] * self.rates[None]
        wave = torch.cat((phase.cos(), phase.sin()), 1).to(self.hidden.weight.dtype)
        vector = self.out(F.silu(self.hidden(wave)))
        return tuple(part[:, :, None, None] for part in vector.split(self.outputs, 1))
