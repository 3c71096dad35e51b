"""Sobel gradients of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sobel_vector(image: Tensor) -> Tensor:
    """Sobel gradient along x and y, borders replicated, in float32 also under autocast.

    In bfloat16 the differences of neighbours near white would be mostly rounding.

    :param image: float [N, 1, H, W]
    :returns: float32 [N, 2, H, W], in the image's units a pixel times 8
    """
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=image.device)
    kernels = torch.stack((kernel, kernel.T)).unsqueeze(1)
    with torch.autocast("cuda" if image.is_cuda else "cpu", enabled=False):
        return F.conv2d(F.pad(image.float(), (1, 1, 1, 1), mode="replicate"), kernels)


def sobel(image: Tensor) -> Tensor:
    """Absolute Sobel gradient |g_x| + |g_y| (equation 10's nabla); like :func:`sobel_vector`, float32 [N, 1, H, W]."""
    return sobel_vector(image).abs().sum(1, keepdim=True)
