"""Run a diffusion of T timesteps in fewer steps (iDDPM, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, repeat

from textdifuse_ros.checks import check_number
from textdifuse_ros.diffusion.schedule import NoiseSchedule
from textdifuse_ros.errors import InputError


def space_timesteps(T: int, steps: int) -> tuple[int, ...]:
    """The timesteps that ``steps`` steps visit, ascending: the ends of ``steps`` equal parts of 0..T-1.

    ======  ======================  (T = 1000)
    steps   timesteps
    ======  ======================
    1       999
    2       499, 999
    4       249, 499, 749, 999
    ======  ======================

    T-1, pure noise, is always there, and the last step goes from the lowest timestep to x0. The sets are nested: those
    of n steps are among those of m steps wherever n divides m, so a network trained on the four-step set serves one
    and two steps as well.

    :param T: timesteps of the full schedule
    :param steps: 1 to T
    :raises ConfigError: steps is no integer in that range
    """
    check_number("timesteps", T, 1, None, integer=True)
    check_number("steps", steps, 1, T, integer=True)
    return tuple((k + 1) * T // steps - 1 for k in range(steps))


def space_with_ends(T: int, steps: int) -> tuple[int, ...]:
    """The timesteps of iDDPM and of the authors' program: ``steps`` of them, evenly from 0 to T-1, both included.

    25 of 1000 are 0, 42, 83, 125 ... 957, 999. One step visits T-1; their program would visit 0, where there is no
    noise to remove.

    :param T: timesteps of the full schedule
    :param steps: 1 to T
    :raises ConfigError: steps is no integer in that range
    """
    check_number("timesteps", T, 1, None, integer=True)
    check_number("steps", steps, 1, T, integer=True)
    if steps == 1:
        return (T - 1,)
    # Summed up and not multiplied, as in iDDPM: some counts depend on how the last bit is rounded.
    strides = repeat((T - 1) / (steps - 1), steps - 1)
    return tuple(round(t) for t in accumulate(strides, initial=0.0))


def respace(schedule: NoiseSchedule, timesteps: Sequence[int]) -> NoiseSchedule:
    """The schedule that visits only the given timesteps and has the full one's ``abar`` there.

    ``timesteps`` of the result maps its step indices to original timesteps. The highest need not be the schedule's
    last: a loop that starts from a noised image in place of pure noise takes fewer.

    :param schedule: a full schedule, or one respaced before
    :param timesteps: original timesteps, any order, each of them in ``schedule.timesteps``
    :raises InputError: no timestep, one given twice, or one that the schedule does not have
    """
    chosen = sorted(timesteps)
    index = {t: i for i, t in enumerate(schedule.timesteps)}
    if not chosen or len(set(chosen)) != len(chosen) or not index.keys() >= set(chosen):
        raise InputError("the timesteps to respace to", "different timesteps of the schedule", list(timesteps))
    return NoiseSchedule(schedule.abar[[index[t] for t in chosen]], tuple(chosen))
