"""The state that samplers pass on, the step that they take, and their sources of noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.prediction import lift
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.errors import InputError


@dataclass(frozen=True)
class SamplerState:
    """The state of a reverse process between two steps; immutable, each step returns a new one.

    :ivar z: float32 (or wider) [N, C, H, W], noised to step ``index``; clean once ``index`` is -1
    :ivar index: index in the schedule of the step to take next, counting down; -1 when all are taken
    :ivar previous_x0: the x0 estimate of the step before, like ``z``, for second-order samplers; None at the start
    :ivar previous_half_log_snr: :attr:`NoiseSchedule.half_log_snr` at that estimate
    """

    z: Tensor
    index: int
    previous_x0: Tensor | None = None
    previous_half_log_snr: float | None = None

    @classmethod
    def start(cls, z: Tensor, schedule: NoiseSchedule) -> SamplerState:
        """The state before the first step; 16-bit z becomes float32.

        :param z: float [N, C, H, W], noised to the last step
        :param schedule: the (respaced) schedule to run
        """
        return cls(lift(z), len(schedule) - 1)

    @property
    def done(self) -> bool:
        """Whether every step has been taken."""
        return self.index < 0


class NoiseTape:
    """Noise that is drawn once and can be replayed.

    For CUDA graphs: a captured graph can read tensors, but not draw from a CPU generator.

    :param generator: source of noise beyond the end of the tape
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._drawn: list[Tensor] = []
        self._next = 0

    def next(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """The next noise; shapes and dtypes must come in the same order on every replay.

        :param shape: of the noise
        :param like: has its dtype and device
        """
        if self._next == len(self._drawn):
            self._drawn.append(draw_noise(shape, self._generator, like))
        self._next += 1
        return self._drawn[self._next - 1]

    def rewound(self) -> NoiseTape:
        """The same tape from its beginning; both share the drawn noise."""
        return self._at(0)

    def fork(self) -> NoiseTape:
        """The same tape from the current position; both share the drawn noise."""
        return self._at(self._next)

    def _at(self, position: int) -> NoiseTape:
        other = NoiseTape(self._generator)
        other._drawn, other._next = self._drawn, position
        return other


class NoiseCrop:
    """A rectangle of the noise of a whole image.

    :param source: source of the image's noise
    :param shape: shape of the image, [N, C, H, W]
    :param rows: rows of the rectangle
    :param columns: columns of the rectangle
    """

    def __init__(self, source: NoiseSource, shape: Sequence[int], rows: slice, columns: slice) -> None:
        self._source, self._shape, self._rows, self._columns = source, shape, rows, columns

    def next(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """The next noise.

        :param shape: of the rectangle
        :param like: has its dtype and device
        """
        return draw_noise(self._shape, self._source, like)[..., self._rows, self._columns]


NoiseSource: TypeAlias = "torch.Generator | NoiseTape | NoiseCrop"


def fork(source: torch.Generator | NoiseTape) -> torch.Generator | NoiseTape:
    """A second source that yields the same noise as the first from now on.

    :param source: left unchanged
    """
    if isinstance(source, NoiseTape):
        return source.fork()
    twin = torch.Generator(source.device)
    twin.set_state(source.get_state())
    return twin


class Sampler(Protocol):
    """The rule of one reverse step. Holds settings only, so one object serves any number of loops at once.

    :ivar uses_variance: whether it uses a learned variance
    """

    uses_variance: ClassVar[bool]

    def step(
        self, state: SamplerState, denoised: Denoised, schedule: NoiseSchedule, generator: NoiseSource | None
    ) -> SamplerState:
        """Step from ``state.index`` to the next cleaner index; from index 0 to x0 itself.

        :param state: before the step
        :param denoised: the denoiser's view of ``state.z``
        :param schedule: the (respaced) schedule that is being run
        :param generator: source of noise; may be None where the rule draws none
        :raises InputError: noise is needed and there is no generator
        """
        ...


def draw_noise(shape: Sequence[int], generator: NoiseSource | None, like: Tensor) -> Tensor:
    """Draw standard normal noise on the generator's device and move it to ``like``'s.

    A CPU generator therefore gives the same noise whatever device the networks run on.

    :param shape: of the noise
    :param generator: source of noise, or None
    :param like: a tensor of the noise's dtype and device
    :raises InputError: there is no generator
    """
    if generator is None:
        raise InputError("the generator", "a torch.Generator, since this sampler draws noise", None)
    if not isinstance(generator, torch.Generator):
        return generator.next(shape, like)
    return torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
