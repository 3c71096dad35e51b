"""Net2net widening: larger networks that compute the same function (Net2Net; Chen, Goodfellow, Shlens 2016).

Every layer keeps the weights between its old channels. New channels have weights of their own, but no old channel
reads from them yet. New blocks start as the identity.
"""

from __future__ import annotations

import re
from dataclasses import fields

import torch
from torch import Tensor

from textdifuse_ros.networks.drive import DriveConfig, DriveNetworks

_SIZES = tuple(f"{part}_{name}" for part in ("luma", "chroma") for name in ("widths", "blocks", "decoder_blocks"))
_NEW_BLOCK = re.compile(r"levels\.\d+\.\d+\.second\.(weight|bias)$")


def can_widen(small: DriveConfig, large: DriveConfig) -> bool:
    """Whether networks can be widened: no level loses channels or blocks, and everything else is equal.

    :param small: configuration of the given networks
    :param large: configuration of the widened networks
    """
    return all(
        all(a <= b for a, b in zip(getattr(small, item.name), getattr(large, item.name), strict=True))
        if item.name in _SIZES
        else getattr(small, item.name) == getattr(large, item.name)
        for item in fields(DriveConfig)
    )


@torch.no_grad()
def widen(networks: DriveNetworks, config: DriveConfig) -> DriveNetworks:
    """Widen networks without changing what they compute.

    :param networks: not changed
    :param config: of the widened networks, one for which :func:`can_widen` holds
    """
    larger = DriveNetworks(config)
    old = networks.state_dict()
    new = larger.state_dict()
    for name, tensor in new.items():
        if name in old:
            _put(tensor, old[name], _channels(name, networks.config), _channels(name, config))
        elif _NEW_BLOCK.search(name):
            tensor.zero_()
    larger.load_state_dict(new)
    return larger


_Groups = tuple[list[int] | None, list[int] | None]
"""Output and input channels of a layer in groups that are widened separately; None for a single group."""


def _channels(name: str, config: DriveConfig) -> _Groups:
    part, _, rest = name.partition(".")
    widths = config.chroma_widths if part == "chroma" else config.luma_widths
    if rest.startswith("encoder.context.2."):
        return [width for width in widths for _ in ("scale", "shift")], None
    if rest.startswith("decoder.time.out."):
        return list(widths), None
    if part == "modulation" and rest.startswith("describe."):
        return None, [widths[1]] * 2
    level = re.match(r"(?:control\.)?levels\.(\d)\.(compare\.0|weigh|look|directions)\.", rest)
    if level is None or (part == "luma") != rest.startswith("control."):
        return None, None
    width = widths[int(level[1])]
    if level[2] in ("compare.0", "look"):
        return None, [width] * 2
    return [width] * (2 if level[2] == "weigh" else 6), None


def _put(new: Tensor, old: Tensor, small: _Groups, large: _Groups) -> None:
    """Copy old weights to their channels; old outputs get zero weights for new inputs."""
    rows = _places(old.shape[0], small[0], large[0])
    if new.dim() == 1:
        new[rows] = old
        return
    columns = _places(old.shape[1], small[1], large[1])
    kept = torch.zeros((len(rows), *new.shape[1:]), dtype=new.dtype)
    kept[:, columns] = old
    new[rows] = kept


def _places(count: int, small: list[int] | None, large: list[int] | None) -> Tensor:
    """Index of each old channel among the new ones."""
    if small is None or large is None:
        return torch.arange(count)
    starts = torch.tensor([0, *large[:-1]]).cumsum(0).tolist()
    return torch.cat([start + torch.arange(width) for start, width in zip(starts, small, strict=True)])
