"""What the fusion control is trained for: equations (9) to (11)."""

from __future__ import annotations

import torch
from torch import Tensor

from textdifuse_ros.image.gradients import sobel
from textdifuse_ros.image.ranges import signed_to_unit

GRADIENT_WEIGHT = 0.2


def fusion_loss(fused: Tensor, visible: Tensor, infrared: Tensor) -> Tensor:
    """Intensity and gradient of the fused luma against the stronger of the two clean sources, equation (11).

    Taken on [0, 1] (in [-1, 1] the absolute values of equation 9 would turn black into white), with absolute Sobel
    gradients and the L1 norm.

    :param fused: float [N, 1, H, W] in [-1, 1], the estimate Z^_0 of equation (8)
    :param visible: like it, the restored or clean luma
    :param infrared: like it, the restored or clean infrared
    :return: [N]
    """
    fused, visible, infrared = signed_to_unit(fused), signed_to_unit(visible), signed_to_unit(infrared)
    intensity = (fused - torch.maximum(visible, infrared)).abs()
    gradient = (sobel(fused) - torch.maximum(sobel(visible), sobel(infrared))).abs()
    return intensity.flatten(1).mean(1) + GRADIENT_WEIGHT * gradient.flatten(1).mean(1)
