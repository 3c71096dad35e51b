"""Several training processes as one: those that ``torchrun`` starts, and the values they exchange."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import torch
from torch import nn

from textdifuse_ros.errors import ConfigError, TextDifuseError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; a single one by default.

    :ivar rank: index of this process; 0 saves and logs
    :ivar size: number of processes
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process saves and logs."""
        return self.rank == 0

    def wrap(self, module: nn.Module, *, partial: bool) -> nn.Module:
        """Average the gradients of a module over all processes; a single process gets the module itself.

        :param module: whose parameters are trained
        :param partial: some batches leave some parameters without a gradient
        """
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=partial)

    def any(self, *flags: bool, device: str = "cpu") -> tuple[bool, ...]:
        """Return for each flag whether it is set in any process.

        :param flags: of this process
        :param device: that the processes communicate through
        """
        if self.size == 1:
            return flags
        shared = torch.tensor(flags, dtype=torch.int32, device=device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in shared.tolist())

    def from_first(self, make: Callable[[], T]) -> T:
        """Run a function in the first process and share its result; its :class:`.TextDifuseError` is raised in all.

        :param make: function without arguments; the result must be picklable
        """
        if self.size == 1:
            return make()
        found: list[object] = [None]
        if self.first:
            try:
                found = [make()]
            except TextDifuseError as error:
                found = [error]
        torch.distributed.broadcast_object_list(found)
        if isinstance(found[0], TextDifuseError):
            raise found[0]
        return found[0]  # type: ignore[return-value]

    def check_same(self, what: str, value: object) -> None:
        """Refuse values that differ between the processes.

        :param what: name of the value, for the error
        :param value: of this process; must be picklable
        :raises ConfigError: in all processes
        """
        if self.size == 1:
            return
        values: list[object] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise ConfigError(what, f"the same in all processes ({values[0]})", f"{other} in process {rank}")


ALONE = Ranks()


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that ``torchrun`` started with this one; without it, this is the only process.

    Gradients are exchanged over NCCL between GPUs and over gloo between CPUs.

    :param device: of the configuration; with several GPUs each process takes the one of its local rank
    :returns: the ranks, and the device of this process
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(torch.distributed.get_rank(), size), device
    finally:
        torch.distributed.destroy_process_group()


def exit_process(status: int) -> NoReturn:
    """Exit a process of a group without finalizing the interpreter.

    gloo's threads free the last tensors of an all-reduce late, and need the interpreter's lock to do so. A thread that
    requests it during finalization aborts the process (``AsyncWork::~AsyncWork`` in PyTorch 2.13), although all the
    work is done and saved.

    :param status: exit status
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
