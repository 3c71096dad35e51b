"""Parameters and GFLOP of a fusion, counted on the networks themselves."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from textdifuse_ros.fusion.reference import fused_size
from textdifuse_ros.fusion.regions import find_regions, merge_sizes
from textdifuse_ros.fusion.weights import FusionNetworks
from textdifuse_ros.networks.drive import MULTIPLE, DriveNetworks
from textdifuse_ros.networks.reference.networks import ReferenceNetworks


def count_parameters(networks: FusionNetworks) -> dict[str, int]:
    """Count the weights: ``luma`` (encoder, fusion control, decoder), ``chroma``, ``modulation``, ``total``.

    :param networks: on any device
    """
    if isinstance(networks, ReferenceNetworks):
        weights = sum(p.numel() for p in networks.parameters())
        return {"luma": weights, "chroma": 0, "modulation": 0, "total": weights}
    parts = {"luma": networks.luma, "chroma": networks.chroma, "modulation": networks.modulation}
    counts = {name: sum(p.numel() for p in part.parameters()) if part else 0 for name, part in parts.items()}
    return {**counts, "total": sum(counts.values())}


def count_flops(networks: FusionNetworks, height: int, width: int) -> dict[str, float]:
    """Count the GFLOP of each part for one image: convolutions and linear layers, a multiply-add being 2 FLOP.

    A step is that of a sampler without learned variance, such as ``ddim``.

    :param networks: on any device
    :param height: of the image [pixels]
    :param width: of the image [pixels]
    :returns: ``luma_encode`` (both sources and the fusion control), ``luma_step``, ``chroma``,
        and ``modulation``, kappa of the whole image (0 without a re-modulation)
    """
    if isinstance(networks, ReferenceNetworks):
        return _count_reference(networks, height, width)
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
        counted("luma_step", partial(networks.luma.decoder, variance=False), features, luma, timestep)
        counts["modulation"] = 0.0
        if networks.modulation is not None:
            amounts = luma.expand(-1, 3, -1, -1)
            context = counted("modulation", networks.modulation.context, features, features, amounts, luma)
            before = counts["modulation"]
            counted("modulation", networks.modulation, features, features, amounts, context)
            counts["modulation"] += before
        counted("chroma", lambda image: networks.chroma(networks.chroma.white_balance(image)), color)
    return counts


def _count_reference(networks: ReferenceNetworks, height: int, width: int) -> dict[str, float]:
    """The same, with attention, for the family ``reference``, all of which runs at every step."""
    width, height = fused_size(width, height)
    # With gradients, since the bands of an inference overlap and would be counted (1.7 % more).
    with torch.device("meta"), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        networks = ReferenceNetworks(networks.config).eval().requires_grad_(False)
        luma, timestep = torch.empty(1, 1, height, width), torch.empty(1)
        networks.decoder(networks.fuse_features(networks.encode_pair(luma, luma, luma, timestep)), timestep)
    step = counter.get_total_flops() / 1e9
    return {"luma_encode": 0.0, "luma_step": step, "chroma": 0.0, "modulation": 0.0}


def image_gflops(counts: dict[str, float], steps: int) -> dict[str, float]:
    """GFLOP of a whole image: ``luma``, ``chroma``, ``total``.

    :param counts: of :func:`count_flops`
    :param steps: reverse steps
    """
    luma = counts["luma_encode"] + steps * counts["luma_step"]
    return {"luma": luma, "chroma": counts["chroma"], "total": luma + counts["chroma"]}


def emphasis_gflops(counts: dict[str, float], strengths: np.ndarray, steps: int) -> float:
    """GFLOP that emphasized objects add to an image.

    :param counts: of :func:`count_flops`, for an image of this size
    :param strengths: float32 [H, W] in [-1, 2]
    :param steps: reverse steps
    """
    multiple = 2 * MULTIPLE
    height, width = (side + -side % multiple for side in strengths.shape)
    padded = np.pad(strengths, ((0, height - strengths.shape[0]), (0, width - strengths.shape[1])))
    # Convolutions cost in proportion to their area; only kappa's context covers the whole image.
    groups = merge_sizes(find_regions(padded), height, width)
    share = sum(region.pixels for regions in groups for region in regions) / (height * width)
    return share * (counts["modulation"] + steps * counts["luma_step"])
