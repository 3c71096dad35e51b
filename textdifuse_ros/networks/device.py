"""The device that networks run on."""

from __future__ import annotations

import torch

from textdifuse_ros.errors import ConfigError, DeviceError


def resolve_device(name: str, parameter: str = "device") -> torch.device:
    """Resolve the name of a device.

    :param name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``
    :param parameter: name of the configuration parameter, for errors
    :raises ConfigError: unknown name
    :raises DeviceError: the CUDA device does not exist
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
    # With an index, so that it stays the same device whatever a thread sets as its current one later.
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)
