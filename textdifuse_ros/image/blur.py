"""Gaussian blur of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(picture: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian cut off at three sigma, borders replicated, in float32 also under autocast.

    :param picture: float [N, 1, H, W]
    :param sigma: standard deviation [pixel]
    :return: float32 [N, 1, H, W]
    """
    reach = max(1, int(3 * sigma))
    places = torch.arange(-reach, reach + 1, device=picture.device)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    with torch.autocast("cuda" if picture.is_cuda else "cpu", enabled=False):
        wide = F.pad(picture.float(), (reach, reach, reach, reach), mode="replicate")
        return F.conv2d(F.conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
