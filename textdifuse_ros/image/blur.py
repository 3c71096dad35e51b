"""Gaussian blur of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian cut off at three sigma, borders replicated, in float32 also under autocast.

    :param image: float [N, 1, H, W]
    :param sigma: standard deviation [pixel]
    :returns: float32 [N, 1, H, W]
    """
    reach = max(1, int(3 * sigma))
    places = torch.arange(-reach, reach + 1, device=image.device)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    with torch.autocast("cuda" if image.is_cuda else "cpu", enabled=False):
        wide = F.pad(image.float(), (reach, reach, reach, reach), mode="replicate")
        return F.conv2d(F.conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
