"""Target of the joint stage for road scenes: the visible image, completed by the infrared where it fails.

Where the visible image is well exposed, the target looks like it: lane lines, skies, dark cars and clothes keep their
look. A source of mixing everywhere would turn cars pale and lane lines dark, and a detector loses more by that than
it gains. Where the visible image is dark, saturated or hidden (glare, smoke, noise), the brighter source shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textdifuse_ros.image.blur import gaussian_blur

DARK = (0.06, 0.20)
"""Visible intensity below which the infrared is needed, and above which it is not."""
SATURATED = (0.84, 0.96)
"""Visible intensity above which the infrared begins to be needed, and is needed fully."""
FAVOR = 2.0
"""Factor on the visible detail when the stronger source of an octave is chosen."""
MIX = 0.15
"""Share of the infrared's coarse contrast that is added to a well exposed visible image."""
OCTAVES = 3
DAY = (0.20, 0.36)
"""Mean intensity below which an image is a night, and above which it is a day."""
DAY_GAIN = 1.25
"""Largest stretch of an image by day."""
STRUCTURE = 3 / 255
"""Local standard deviation of the clean image above which something can be hidden."""
NOISE = 1 / 255
HIDDEN = (3.0, 0.5)
"""Signal-to-noise ratio of the clean structure in the degraded image above which it shows, and below which it does
not."""

_TINY = 1e-4


def ramp(x: Tensor, start: float, end: float) -> Tensor:
    """Rise linearly from 0 at ``start`` to 1 at ``end``.

    :param x: float, any shape
    :param start: may lie above ``end``
    :param end: of the rise
    """
    return ((x - start) / (end - start)).clamp(0, 1)


def hidden_structure(degraded: Tensor, clean: Tensor) -> Tensor:
    """Measure where the structure of the clean image no longer shows in the degraded one.

    Both are compared by their local covariance: what the degraded image has of the clean structure, against
    everything else in it, and the noise of quantization.

    :param degraded: float32 [N, 1, H, W] in [0, 1]
    :param clean: likewise
    :returns: like ``clean``, 0 where it shows, 1 where it does not
    """

    def mean(x: Tensor) -> Tensor:
        return gaussian_blur(x, 2.5)

    mean_d, mean_c = mean(degraded), mean(clean)
    var_d = (mean(degraded**2) - mean_d**2).clamp(min=0)
    var_c = (mean(clean**2) - mean_c**2).clamp(min=0)
    covariance = (mean(degraded * clean) - mean_d * mean_c).clamp(min=0)
    signal = covariance**2 / var_c.clamp(min=_TINY**2)
    noise = (var_d - signal).clamp(min=0) + NOISE**2
    lost = ramp(signal / noise, *HIDDEN) * ramp(var_c.sqrt(), STRUCTURE / 2, STRUCTURE)
    weight = ramp(var_c.sqrt(), 0, STRUCTURE) + _TINY
    # Flat places cannot tell; they follow the structure around them.
    return gaussian_blur(lost * weight, 4) / gaussian_blur(weight, 4)


def need_of_infrared(visible: Tensor, hidden: Tensor) -> Tensor:
    """Measure where the visible image does not inform; [N, 1, H, W] in [0, 1].

    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param hidden: of :func:`hidden_structure`
    """
    smooth = gaussian_blur(visible, 3)
    exposure = torch.maximum(1 - ramp(smooth, *DARK), ramp(smooth, *SATURATED))
    return gaussian_blur(torch.maximum(exposure, hidden), 2)


def natural_blend(visible: Tensor, infrared: Tensor, need: Tensor) -> Tensor:
    """Blend both sources before the tone curve.

    The coarse image is the visible one with a little of the infrared's contrast, and the maximum of both where the
    infrared is needed. Each octave of detail comes from the source that has more of it, the visible one favored.

    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: like ``visible``
    :param need: of :func:`need_of_infrared`
    :returns: like ``visible``
    """
    octaves = []
    coarse_visible, coarse_infrared = visible, infrared
    for octave in range(OCTAVES):
        fine = coarse_visible, coarse_infrared
        coarse_visible, coarse_infrared = (gaussian_blur(image, 1.2 * 2**octave) for image in fine)
        octaves.append((fine[0] - coarse_visible, fine[1] - coarse_infrared, 1.5 * 2**octave))
    mixed = coarse_visible + MIX * (coarse_infrared - coarse_infrared.mean((1, 2, 3), keepdim=True))
    blend = torch.lerp(mixed, torch.maximum(coarse_visible, coarse_infrared), need)
    favor = FAVOR * (1 - need) + 0.25 * need
    for fine_visible, fine_infrared, sigma in octaves:
        visible_power = (favor**2 * gaussian_blur(fine_visible.square(), sigma)).square()
        infrared_power = gaussian_blur(fine_infrared.square(), sigma).square()
        share = visible_power / (visible_power + infrared_power).clamp(min=_TINY**3)
        blend = blend + share * fine_visible + (1 - share) * fine_infrared
    return blend


def stretch_day(blend: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch images by day to the whole range, by at most ``DAY_GAIN``.

    :param blend: float32 [N, 1, H, W]
    :param low: [N, 1, 1, 1], its 1st percentile
    :param high: likewise, the 99th
    :returns: the stretched images, and how much each is a day, [N, 1, 1, 1] in [0, 1]
    """
    day = ramp(blend.mean((1, 2, 3), keepdim=True), *DAY)
    gain = (0.96 / (high - low).clamp(min=_TINY)).clamp(1, DAY_GAIN)
    center, reach = (low + high) / 2, (high - low) * gain / 2
    center_after = torch.minimum(torch.maximum(center, 0.02 + reach), 0.98 - reach)
    return torch.lerp(blend, (blend - center) * gain + center_after, day), day
