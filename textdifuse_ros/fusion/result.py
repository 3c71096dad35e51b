"""What a fusion gives back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from textdifuse_ros import __version__
from textdifuse_ros.image.files import Pair


@dataclass(frozen=True)
class FusionResult:
    """One fused image and what made it.

    :ivar image: uint8 [H, W, 3] RGB, C-contiguous
    :ivar provenance: ``model`` (its name; of a path the stem), ``weights`` (sha256 of the checkpoint), ``steps``,
        ``sampler``, ``seed``, ``device``, ``precision``, ``version``; with the same sources they give the same
        bytes again. Where something was to stand out also ``text``, ``strength`` and ``localizer``, for which the
        objects must be found again. Of a stream's image (:mod:`.stream`) also ``video``: how much of it, 0 .. 1,
        could be told from the one before; where it is not 0, the bytes depend on that one too.
    :ivar timings: seconds spent: ``prepare`` (bytes to tensors), ``encode`` (both sources and the fusion control, and
        kappa of what is to stand out), ``steps`` (reverse steps of luma, those of the objects too), ``chroma``,
        ``finish`` (tensors to bytes), ``total``; where a CUDA graph is used ``prepare``, ``graph`` (all up to chroma of
        the plain fusion), ``objects`` (what stands out), ``finish``, ``total``
    :ivar mask: uint8 [H, W], where something stands out: 0 where every byte is that of the plain fusion, rising to 255
        within the objects' borders; None where nothing was asked for
    :ivar plain: like ``image``, the image without what stands out; None where nothing does, or where it was not
        asked for
    """

    image: np.ndarray
    provenance: dict[str, str | int | float]
    timings: dict[str, float]
    mask: np.ndarray | None = None
    plain: np.ndarray | None = None


def png_texts(provenance: Mapping[str, str | int | float], pair: Pair, **more: str) -> dict[str, str]:
    """What a PNG file of a fused image says of itself, for :func:`.files.write_png`.

    :param provenance: of the image, see :class:`FusionResult`
    :param pair: the files that were fused; their names are kept
    :param more: what was done to them before, by keyword
    :returns: ``Software``, and ``textdifuse``, the provenance with ``visible``, ``infrared`` and ``more``, as JSON
    """
    made_by = {**provenance, "visible": pair.visible.name, "infrared": pair.infrared.name, **more}
    return {"Software": f"textdifuse_ros {__version__}", "textdifuse": json.dumps(made_by, sort_keys=True)}
