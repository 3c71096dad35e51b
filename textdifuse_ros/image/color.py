"""BT.601 full-range luma and chroma (the YCbCr of JPEG, ITU-T T.871)."""

from __future__ import annotations

import torch
from torch import Tensor

KR, KG, KB = 0.299, 0.587, 0.114


def rgb_to_ycbcr(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Convert RGB to luma and chroma.

    :param rgb: float [N, 3, H, W] in [0, 1]
    :returns: luma float [N, 1, H, W] in [0, 1]; chroma (Cb, Cr) float [N, 2, H, W] in [-0.5, 0.5]
    """
    red, green, blue = rgb.unbind(1)
    luma = KR * red + KG * green + KB * blue
    cb = (blue - luma) / (2 * (1 - KB))
    cr = (red - luma) / (2 * (1 - KR))
    return luma.unsqueeze(1), torch.stack((cb, cr), 1)


def ycbcr_to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Convert luma and chroma to RGB, without clipping; the inverse of :func:`rgb_to_ycbcr`.

    :param luma: float [N, 1, H, W] in [0, 1]
    :param chroma: float [N, 2, H, W] in [-0.5, 0.5]
    :returns: float [N, 3, H, W]
    """
    luma = luma.squeeze(1)
    cb, cr = chroma.unbind(1)
    red = luma + 2 * (1 - KR) * cr
    blue = luma + 2 * (1 - KB) * cb
    green = (luma - KR * red - KB * blue) / KG
    return torch.stack((red, green, blue), 1)
