"""Any picture size through networks whose levels halve: pad to a multiple, crop back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(picture: Tensor, multiple: int) -> Tensor:
    """Grow a picture to the right and below, by mirroring, until both sides are multiples.

    :param picture: float [N, C, H, W]
    :return: float [N, C, H', W'], H' and W' the next multiples; the same tensor where nothing is missing
    """
    height, width = picture.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return picture
    # Mirroring needs more pixels than it adds; a smaller picture is grown by its border first.
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(picture, (0, right, 0, down), mode=mode)


def crop_to(picture: Tensor, height: int, width: int) -> Tensor:
    """The upper left part of a padded picture, [N, C, height, width]."""
    return picture[..., :height, :width]
