"""What a fusion gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FusionResult:
    """One fused picture and what made it.

    :ivar image: uint8 [H, W, 3] RGB, C-contiguous
    :ivar provenance: ``model`` (its name; of a path the stem), ``weights`` (sha256 of the checkpoint), ``steps``,
        ``sampler``, ``seed``, ``device``, ``precision``, ``version``; with the same sources they give the same
        bytes again
    :ivar timings: seconds spent: ``prepare`` (bytes to tensors), ``encode`` (both sources and the fusion control),
        ``steps`` (reverse steps of luma), ``chroma``, ``finish`` (tensors to bytes), ``total``
    """

    image: np.ndarray
    provenance: dict[str, str | int]
    timings: dict[str, float]
