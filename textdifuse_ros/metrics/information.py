"""No-reference metrics of a fused image: entropy and standard deviation.

Both increase with noise and stretched contrast; on their own they prove nothing.
"""

from __future__ import annotations

import numpy as np

from textdifuse_ros.metrics.images import grey_values


def entropy(fused: np.ndarray) -> float:
    """EN: Shannon entropy of the histogram of 256 grey levels, ``-sum p log2 p`` [bit]; 0 .. 8.

    Roberts, van Aardt, Ahmed, "Assessment of image fusion procedures using entropy, image quality, and multispectral
    classification", J. Applied Remote Sensing 2, 2008.

    :param fused: uint8 or float64 [H, W] in 0 .. 255; float values are rounded to grey levels and clipped
    :raises ImageError: wrong type or shape
    """
    if fused.dtype != np.uint8:
        fused = np.clip(np.rint(grey_values("the fused image", fused)), 0, 255).astype(np.uint8)
    else:
        grey_values("the fused image", fused[:1])
    counts = np.bincount(fused.reshape(-1))
    share = counts[counts > 0] / fused.size
    # log2 of the inverse, so that a constant image gives 0, not -0.
    return float(np.sum(share * np.log2(1 / share)))


def standard_deviation(fused: np.ndarray) -> float:
    """SD: population standard deviation, ``sqrt(sum (F - mean F)^2 / (H W))`` [grey level]; 0 .. 127.5.

    The fusion literature cites Rao, "In-fibre Bragg grating sensors", Measurement Science and Technology 8, 1997.

    :param fused: uint8 or float64 [H, W] in 0 .. 255
    :raises ImageError: wrong type or shape
    """
    return float(np.std(grey_values("the fused image", fused)))
