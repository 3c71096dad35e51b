"""What a fused picture costs: parameters and arithmetic, counted on the networks themselves."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from textdifuse_ros.networks.drive import MULTIPLE, DriveNetworks


def count_parameters(networks: DriveNetworks) -> dict[str, int]:
    """Numbers of weights: ``luma`` (encoder, fusion control, decoder), ``chroma``, ``total``."""
    luma = sum(p.numel() for p in networks.luma.parameters())
    chroma = sum(p.numel() for p in networks.chroma.parameters())
    return {"luma": luma, "chroma": chroma, "total": luma + chroma}


def count_flops(networks: DriveNetworks, height: int, width: int) -> dict[str, float]:
    """GFLOP of the parts for one picture (one multiply-add is 2 FLOP; convolutions and linear layers).

    :return: ``luma_encode`` (both sources and the fusion control), ``luma_step``, ``chroma_encode``, ``chroma_step``
    """
    with torch.device("meta"):
        networks = DriveNetworks(networks.config)
    multiple = 2 * MULTIPLE
    height, width = height + -height % multiple, width + -width % multiple
    luma = torch.empty(1, 1, height, width, device="meta")
    color = F.avg_pool2d(luma, 2).expand(-1, 3, -1, -1)
    timestep = torch.empty(1, device="meta")
    counts: dict[str, float] = {}

    def counted(name: str, function: Any, *arguments: Any) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = function(*arguments)
        counts[name] = counter.get_total_flops() / 1e9
        return result

    with torch.inference_mode():
        features = counted("luma_encode", networks.luma.fuse_features, luma, luma)
        counted("luma_step", networks.luma.decoder, features, luma, timestep)
        features = counted("chroma_encode", networks.chroma.encoder, color)
        counted("chroma_step", networks.chroma.decoder, features, color[:, :2], timestep)
    return counts


def picture_gflops(counts: dict[str, float], steps: int) -> dict[str, float]:
    """GFLOP of a whole picture in so many steps: ``luma``, ``chroma``, ``total``."""
    luma = counts["luma_encode"] + steps * counts["luma_step"]
    chroma = counts["chroma_encode"] + steps * counts["chroma_step"]
    return {"luma": luma, "chroma": chroma, "total": luma + chroma}
