"""Conversions between stored images (unsigned integers) and the range [-1, 1] of the diffusion."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(image: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """Copy a stored image to a device.

    :param image: uint8 or uint16 [H, W] or [H, W, C]
    :param device: target device
    :returns: uint8, or int32 for uint16 input, [H, W, C]; C is 1 for a grey image
    """
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype == np.uint16:
        image = image.astype(np.int32)  # PyTorch computes little in uint16
    # Images decoded from messages may be read-only views, which PyTorch does not accept.
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).to(device)


def to_unit(stored: Tensor) -> Tensor:
    """Scale an uploaded image to [0, 1].

    :param stored: uint8, or int32 of 16 bits, [H, W, C], from :func:`upload`
    :returns: float32 [1, C, H, W]
    """
    scale = 255.0 if stored.dtype == torch.uint8 else 65535.0
    return stored.permute(2, 0, 1).unsqueeze(0).to(torch.float32).div_(scale)


def to_levels(unit: Tensor) -> Tensor:
    """Convert [0, 1] to 8-bit levels, rounded to nearest and clipped.

    :param unit: float [1, C, H, W] in [0, 1]
    :returns: uint8 [H, W, C], contiguous, on the same device
    """
    return unit[0].mul(255.0).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def to_bytes(unit: Tensor) -> np.ndarray:
    """Convert a tensor to a stored image.

    :param unit: float [1, C, H, W] in [0, 1]
    :returns: uint8 [H, W, C], or [H, W] if C is 1; C-contiguous
    """
    image = to_levels(unit).cpu().numpy()
    return image[:, :, 0] if image.shape[2] == 1 else image


def unit_to_signed(unit: Tensor) -> Tensor:
    """Map ``unit`` from [0, 1] to [-1, 1]."""
    return unit * 2 - 1


def signed_to_unit(signed: Tensor) -> Tensor:
    """Map ``signed`` from [-1, 1] to [0, 1], the range of the fusion losses (9) and (10)."""
    return (signed + 1) / 2
