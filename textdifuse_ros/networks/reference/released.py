"""Read the weights that the authors published."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textdifuse_ros.checkpoint import check_finite
from textdifuse_ros.errors import CheckpointError, quote
from textdifuse_ros.networks.blocks import shapes_of
from textdifuse_ros.networks.reference.networks import ReferenceConfig, ReferenceNetworks

PROGRAM = "github.com/Leiii-Cao/Text-DiFuse"
FILES = {
    "encoder": "diffusion_stage1.pth",
    "decoder": "diffusion_stage2.pth",
    "control": "FCM-VIS-IR.pt or FCM-Medi.pt",
}
"""The networks, and the published files that hold them."""

# Modules of the fusion control: theirs, ours.
_CONTROL = {
    "inBlock": "reduce",
    "middleBlock1.0": "shared.norm",
    "middleBlock1.2": "shared.conv",
    "CBMA1.channel_attention.shared_MLP": "attention.channel",
    "CBMA1.spatial_attention.conv2d": "attention.spatial",
}
# Their first output weighs the second source, and their second one the first.
for _number, _output, _ours in ((2, 1, "second"), (3, 2, "first")):
    _CONTROL |= {
        f"middleBlock{_number}.0": f"{_ours}.middle.norm",
        f"middleBlock{_number}.2": f"{_ours}.middle.conv",
        f"CBMA{_number}.channel_attention.shared_MLP": f"{_ours}.attention.channel",
        f"CBMA{_number}.spatial_attention.conv2d": f"{_ours}.attention.spatial",
        f"outBlock{_output}.0": f"{_ours}.out.norm",
        f"outBlock{_output}.2": f"{_ours}.out.conv",
    }
# The branch without effect, which is checked and dropped, and the one of the same shapes.
_UNUSED = {"middleBlock4": "middleBlock3", "CBMA4": "CBMA3", "outBlock3": "outBlock2"}


def released_shapes(config: ReferenceConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """The tensors of the published files: for each network in :data:`FILES` names and shapes.

    :param config: sizes of the networks
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {network: {} for network in FILES}
    for name, shape in shapes_of(lambda: ReferenceNetworks(config)).items():
        network, _, tensor = name.partition(".")
        shapes[network][_their_name(tensor) if network == "control" else tensor] = shape
    control = shapes["control"]
    for unused, same in _UNUSED.items():
        control |= {
            unused + name.removeprefix(same): shape for name, shape in control.items() if name.startswith(same + ".")
        }
    return shapes


def read_released(files: Mapping[str, str | Path], config: ReferenceConfig) -> dict[str, Tensor]:
    """Read the published files as the tensors of :class:`.ReferenceNetworks`, float32.

    :param files: paths of the networks in :data:`FILES`
    :param config: sizes of the networks
    :raises CheckpointError: missing, unreadable, or with other tensors than the published ones
    """
    shapes = released_shapes(config)
    for network in FILES:
        _check_exists(Path(files[network]), network)
    return rename({network: _read(Path(files[network]), network, shapes[network]) for network in FILES})


def rename(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Convert the published tensors to those of :class:`.ReferenceNetworks`; leaves out the unused ones.

    :param states: for each network in :data:`FILES` the tensors of :func:`released_shapes`
    """
    tensors: dict[str, Tensor] = {}
    for network, state in states.items():
        for name, tensor in state.items():
            if network != "control":
                tensors[f"{network}.{name}"] = tensor
            elif name.partition(".")[0] not in _UNUSED:
                tensors[f"{network}.{_our_name(name)}"] = tensor
    return tensors


def _check_exists(path: Path, network: str) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"the authors' {network} {quote(str(path))}",
            f"the file {FILES[network]}",
            "no such file",
            f"fetch it from the folder that the README of {PROGRAM} links under Pretrained weights",
        )


def _read(path: Path, network: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    what = f"the authors' {network} {quote(str(path))}"
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        lines = str(error).splitlines()
        raise CheckpointError(what, "a PyTorch file of weights", lines[0] if lines else type(error).__name__) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(what, "a PyTorch file of named tensors", type(state).__name__)
    expected = f"the {len(shapes)} tensors of {FILES[network]}"
    problems = [f"Unexpected key {quote(str(name))}" for name in state if name not in shapes]
    problems += [f"Missing key {quote(name)}" for name in shapes if name not in state]
    for name, shape in shapes.items():
        found = state.get(name)
        if name in state and not (isinstance(found, Tensor) and tuple(found.shape) == shape):
            actual = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            problems.append(f"size mismatch of {quote(name)}: {actual} instead of {list(shape)}")
    if problems:
        more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        raise CheckpointError(what, expected, "; ".join(problems[:2]) + more, "give encoder, decoder and FCM in order")
    check_finite(state, path)
    return {name: tensor.to(torch.float32) for name, tensor in state.items()}


def _our_name(theirs: str) -> str:
    module = next(m for m in _CONTROL if theirs.startswith(m + "."))
    return _CONTROL[module] + theirs.removeprefix(module)


def _their_name(ours: str) -> str:
    theirs, module = next((t, m) for t, m in _CONTROL.items() if ours.startswith(m + "."))
    return theirs + ours.removeprefix(module)
