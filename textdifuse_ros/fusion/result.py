"""The result of a fusion."""

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
    :ivar provenance: ``model`` (name, or stem of its file), ``weights`` (sha256 of the checkpoint), ``steps``,
        ``sampler``, ``seed``, ``device``, ``precision``, ``version``: the same values and sources give the same bytes.
        With an emphasis also ``text``, ``strength`` and ``localizer``. In a stream (``runtime/video_state.py``) also
        ``video``: trust in the previous image, 0 .. 1; above 0 the bytes depend on that image too
    :ivar timings: seconds: ``prepare`` (bytes to tensors), ``encode`` (both sources and the fusion control), ``steps``
        (reverse steps of luma), ``chroma``, ``objects`` (the modulated process, with an emphasis), ``finish`` (tensors
        to bytes), ``total``. With a CUDA graph ``prepare``, ``graph`` (the plain fusion), ``objects``, ``finish``,
        ``total``
    :ivar mask: uint8 [H, W], 0 where every byte is that of the plain fusion, rising to 255 within the objects'
        borders; None without an emphasis
    :ivar confidence: expected absolute error of each pixel's luma [grey levels], float32 [H, W], of the model's own
        distribution; None unless requested. It compares with the fusion of the undegraded pair, before an emphasis
    :ivar plain: like ``image``, without the emphasis; None without one, or unless requested
    """

    image: np.ndarray
    provenance: dict[str, str | int | float]
    timings: dict[str, float]
    mask: np.ndarray | None = None
    plain: np.ndarray | None = None
    confidence: np.ndarray | None = None


def png_texts(provenance: Mapping[str, str | int | float], pair: Pair, **more: str) -> dict[str, str]:
    """Text chunks of the PNG file of a fused image, for :func:`.files.write_png`.

    :param provenance: of the image, see :class:`FusionResult`
    :param pair: the fused files, whose names are noted
    :param more: what was done to them before, by keyword
    :returns: ``Software``, and ``textdifuse``, the provenance with ``visible``, ``infrared`` and ``more``, as JSON
    """
    made_by = {**provenance, "visible": pair.visible.name, "infrared": pair.infrared.name, **more}
    return {"Software": f"textdifuse_ros {__version__}", "textdifuse": json.dumps(made_by, sort_keys=True)}
