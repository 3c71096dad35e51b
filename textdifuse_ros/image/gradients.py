"""Sobel gradients of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sobel(picture: Tensor) -> Tensor:
    """Absolute Sobel gradient |g_x| + |g_y|, borders replicated (equation 10's nabla).

    :param picture: float [N, 1, H, W]
    :return: float [N, 1, H, W], in the picture's units a pixel times 8
    """
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=picture.device)
    kernels = torch.stack((kernel, kernel.T)).unsqueeze(1).to(picture.dtype)
    gradient = F.conv2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), kernels)
    return gradient.abs().sum(1, keepdim=True)
