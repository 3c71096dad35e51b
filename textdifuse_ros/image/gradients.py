"""Sobel gradients of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sobel_vector(image: Tensor) -> Tensor:
    """Compute the Sobel gradient along x and y; borders are replicated.

    Computed in float32 even under autocast: in bfloat16 the differences of bright neighbors are mostly rounding error.

    :param image: float [N, 1, H, W]
    :returns: float32 [N, 2, H, W], 8 times the gradient [image unit per pixel]
    """
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=image.device)
    kernels = torch.stack((kernel, kernel.T)).unsqueeze(1)
    with torch.autocast("cuda" if image.is_cuda else "cpu", enabled=False):
        return F.conv2d(F.pad(image.float(), (1, 1, 1, 1), mode="replicate"), kernels)


def sobel(image: Tensor) -> Tensor:
    """Compute the absolute Sobel gradient ``|g_x| + |g_y|``, the nabla of equation 10.

    :param image: float [N, 1, H, W]
    :returns: float32 [N, 1, H, W], scaled like :func:`sobel_vector`
    """
    return sobel_vector(image).abs().sum(1, keepdim=True)
