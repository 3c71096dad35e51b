"""Where networks run."""

from __future__ import annotations

import torch

from textdifuse_ros.errors import ConfigError, DeviceError


def resolve_device(name: str, parameter: str = "device") -> torch.device:
    """The device that a configuration names.

    :param name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``
    :param parameter: what the configuration calls it, for errors
    :raises ConfigError: another name
    :raises DeviceError: CUDA asked for and absent
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if name != "cpu" and (kind != "cuda" or (":" in name and not number.isdigit())):
        raise ConfigError(parameter, "auto, cpu, cuda or cuda:N", repr(name))
    if kind == "cuda" and not torch.cuda.is_available():
        remedy = f"use {parameter} cpu or auto"
        raise DeviceError(f"the {parameter}", "present", f"{name}, and PyTorch sees no CUDA device", remedy)
    if number and int(number) >= torch.cuda.device_count():
        raise DeviceError(f"the {parameter}", f"one of {torch.cuda.device_count()} CUDA devices", name)
    # By number, so that it is the same one whatever device a thread makes its current one later.
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)
