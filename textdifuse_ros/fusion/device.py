"""Number format and memory of the networks."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

_ALLOCATOR = {
    "M_MMAP_MAX": (-4, 0),
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),
    "M_TOP_PAD": (-2, 64 << 20),
    "M_ARENA_MAX": (-8, 1),
}
"""Options of ``mallopt`` (malloc.h) and their values."""


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of the networks.

    :param name: ``bfloat16``, ``float32``, or ``auto``: bfloat16 where the hardware computes in it
    :param device: of the networks
    """
    if name == "auto":
        # Native since Ampere (compute capability 8); PyTorch emulates it on older GPUs.
        native = torch.cuda.get_device_capability(device)[0] >= 8 if device.type == "cuda" else _cpu_computes_bfloat16()
        return torch.bfloat16 if native else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _cpu_computes_bfloat16() -> bool:
    # Emulated bfloat16 is slower than float32, so the processor's own flags decide, not what PyTorch can run.
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def keep_memory() -> str:
    """Make the C library's allocator keep freed memory for the next image.

    By default it returns large blocks to the system at once, and faulting the pages in again costs as much as the
    arithmetic. Equivalent to ``MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647 MALLOC_TOP_PAD_=67108864
    MALLOC_ARENA_MAX=1`` in the environment; applies to the whole process.

    :returns: the settings that took effect, for reports; empty without glibc
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return ""
    return " ".join(f"{name}={value}" for name, (option, value) in _ALLOCATOR.items() if mallopt(option, value) == 1)


def memory_in_use(device: str) -> dict[str, float]:
    """Memory in use [MB]: ``resident`` of this process, on CUDA also ``allocated`` and ``reserved``; empty if unknown.

    :param device: of :attr:`.Fuser.device`
    """
    found = {}
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found["resident"] = round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
    except (OSError, ValueError, IndexError):
        pass
    if device.startswith("cuda"):
        found["allocated"] = round(torch.cuda.memory_allocated(device) / 1e6, 1)
        found["reserved"] = round(torch.cuda.memory_reserved(device) / 1e6, 1)
    return found
