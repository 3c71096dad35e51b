"""Any image size through networks whose levels halve: pad to a multiple, crop back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Grow an image to the right and below, by mirroring, until both sides are multiples.

    :param image: float [N, C, H, W]
    :returns: float [N, C, H', W'], H' and W' the next multiples; the same tensor where nothing is missing
    """
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    # Mirroring needs more pixels than it adds; a smaller image is grown by its border first.
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode)


def crop_to(image: Tensor, height: int, width: int) -> Tensor:
    """The upper left part of a padded image, [N, C, height, width]."""
    return image[..., :height, :width]
