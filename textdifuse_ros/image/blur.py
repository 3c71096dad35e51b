"""Gaussian blur of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian truncated at three sigma; borders are replicated. Computed in float32 even under autocast.

    :param image: float [N, 1, H, W]
    :param sigma: standard deviation [pixel]
    :returns: float32 [N, 1, H, W]
    """
    radius = max(1, int(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    with torch.autocast("cuda" if image.is_cuda else "cpu", enabled=False):
        padded = F.pad(image.float(), (radius, radius, radius, radius), mode="replicate")
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
