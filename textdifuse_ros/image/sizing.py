"""Pad images to a size that a network can downsample, and crop the result back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad an image at the right and the bottom, by reflection, until both sides are multiples of ``multiple``.

    :param image: float [N, C, H, W]
    :param multiple: [pixel]
    :returns: float [N, C, H', W'], H' and W' the next multiples; the same tensor if no padding is needed
    """
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    # Reflection needs more pixels than it adds; smaller images replicate their border.
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode)


def crop_to(image: Tensor, height: int, width: int) -> Tensor:
    """Crop a padded image to its upper left part.

    :param image: [..., H', W']
    :param height: height of the result [pixel]
    :param width: width of the result [pixel]
    :returns: view of ``image``, [..., height, width]
    """
    return image[..., :height, :width]
