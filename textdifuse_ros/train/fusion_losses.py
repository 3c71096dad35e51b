"""Losses of fused images.

:func:`fusion_loss` is the paper's, equations (9) to (11), for the fusion control. :func:`vivid_loss` is for the joint
stage that follows: the maximum alone gives a flat image wherever one source is bright, and loses contrast of the other
source there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.image.blur import gaussian_blur
from textdifuse_ros.image.gradients import sobel, sobel_vector
from textdifuse_ros.image.ranges import signed_to_unit
from textdifuse_ros.train.natural_target import natural_blend, stretch_day

GRADIENT_WEIGHT = 0.2

DARKEST, BRIGHTEST = 0.05, 0.98
CLIPPED = 0.008
"""Share of the pixels that the target clips at each end."""
MOST_GAIN = 2.5
LEAST_MEAN = 0.38
TOE = 0.05
"""Offset of the gamma curve, which limits its slope at black [share of the range]."""
COLD = (0.08, 0.30)
"""Infrared intensity below which everything is treated as sky, and above which nothing is."""
COLD_SKY = (0.17, 0.62)
"""Infrared intensity relative to the image mean, below which everything may be sky, and above which nothing is."""
BRIGHT = (0.4, 0.65)
"""Visible intensity below which nothing is daylight sky, and above which everything may be."""
THIN = 9
"""Structures before the sky that are thinner than this belong to it: wires, lamp posts, twigs [pixels]."""
CORING = 0.03
"""Infrared Sobel gradients below this are noise."""
SOBEL_OF_STEP = 4
"""Sobel gradient at a step of 1."""

FAINT = 0.015
"""Standard deviation to which the contrast of a window may be raised even where ``most_kept`` allows less."""
MOST_RAISED = 2.5

SSIM_SIGMA, SSIM_C1, SSIM_C2 = 1.5, 0.01**2, 0.03**2
STRUCTURE_WEIGHT = 1.0
EDGE_WEIGHT = 0.9
CORRELATION_WEIGHT = 0.1
WEAKER_SHARE = 2.0
"""Additional weight of the source that less information is kept of."""
GRID_WEIGHT = 1.0

_TINY = 1e-4


@dataclass(frozen=True)
class Look:
    """Parameters of the joint stage's target.

    :ivar share_of_sum: share of the sum in the target intensity; the rest is the maximum
    :ivar least_gamma: smallest gamma, that is the strongest lift of a dark image
    :ivar sky_coring: Sobel gradient below which the infrared is texture where it is cold
    :ivar sky_share: brightness given to the infrared sky, as a share of the visible sky's
    :ivar edge_gain: gain of the edges of the stronger source
    :ivar bands: octaves of detail that are taken from the stronger source instead of blended
    :ivar favor: factor on the visible source when the stronger source is chosen
    :ivar most_kept: gain above which more contrast does not count as more information
    :ivar information: weight of the information kept of both sources
    :ivar natural: the target of :mod:`.natural_target` instead of a blend of sum and maximum
    """

    share_of_sum: float
    least_gamma: float
    sky_coring: float
    sky_share: float
    edge_gain: float
    bands: int
    favor: float
    most_kept: float
    information: float = 0.25
    natural: bool = False


LOOKS = {
    "road": Look(0, 0.5, 0.16, 0.55, 1.1, bands=3, favor=2.0, most_kept=1.3, information=0.17, natural=True),
    "vivid": Look(0.5, 0.5, 0.16, 0.55, 1.1, bands=3, favor=1.3, most_kept=1.3),
    "medical": Look(0.3, 0.85, CORING, 0, 1.6, bands=0, favor=1, most_kept=float("inf")),
}


def fusion_loss(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, intensity: float = 1.0, gradient: float = GRADIENT_WEIGHT
) -> Tensor:
    """Compare intensity and gradient of the fused luma with the stronger of the two clean sources; equation (11).

    Computed on [0, 1] (on [-1, 1] the absolute values of equation 9 would turn black into white), with absolute Sobel
    gradients and the L1 norm.

    :param fused: float [N, 1, H, W] in [-1, 1], the estimate Z^_0 of equation (8)
    :param visible: like ``fused``, the restored or clean luma
    :param infrared: like ``fused``, the restored or clean infrared
    :param intensity: weight of equation (9)
    :param gradient: weight of equation (10)
    :returns: [N]
    """
    fused, visible, infrared = signed_to_unit(fused), signed_to_unit(visible), signed_to_unit(infrared)
    brightness = (fused - torch.maximum(visible, infrared)).abs()
    edges = (sobel(fused) - torch.maximum(sobel(visible), sobel(infrared))).abs()
    return intensity * brightness.flatten(1).mean(1) + gradient * edges.flatten(1).mean(1)


def without_cold_sky(visible: Tensor, infrared: Tensor, look: Look) -> Tensor:
    """Replace a cold daylight sky of the infrared by a dimmed copy of the visible.

    The infrared has no useful information there: cold would make a bright sky grey, clouds and fixed-pattern noise
    would be visible in it, and wires would be white. Sky is where the infrared is cold and the visible is bright, both
    without thin structures; there the target follows the visible, as the maximum of equation (9) does.

    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: float32 [N, 1, H, W] in [0, 1], clean
    :param look: parameters of the target
    :returns: like ``infrared``
    """
    if not look.sky_share:
        return infrared
    warmth = _widest(-_widest(-gaussian_blur(infrared, 0.8))) / infrared.mean((1, 2, 3), keepdim=True).clamp(min=_TINY)
    bright = -_widest(-_widest(gaussian_blur(visible, 0.8)))
    sky = gaussian_blur((1 - _ramp(warmth, *COLD_SKY)) * _ramp(bright, *BRIGHT), 2)
    return infrared + sky * (look.sky_share * visible - infrared)


def vivid_target(visible: Tensor, infrared: Tensor, look: Look, need: Tensor | None = None) -> Tensor:
    """Compute the target intensity of the joint stage: a blend of sum and maximum over the whole range.

    The sum keeps both sources where both are bright; the maximum keeps the brightness of warm objects. Detail is not
    blended, because sources that disagree would cancel out (lane lines that are bright in one and dark in the other):
    each octave comes from the source that has more of it there. A linear stretch (by at most ``MOST_GAIN``) and a gamma
    that lifts a dark image follow. Black stays black, or a night would look like fog. Both are global to the image.

    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: like ``visible``
    :param look: parameters of the target
    :param need: of :func:`.need_of_infrared`; for a natural look, which stretches nights only
    :returns: like ``visible``
    """
    strongest = torch.maximum(visible, infrared)
    night: Tensor | float = 1.0
    if need is None:
        blend = _blend(visible, infrared, look)
    else:
        blend = natural_blend(visible, infrared, need)
        blend, day = stretch_day(blend, *_quantiles(blend, 0.01, 0.99))
        night = 1 - day
    low, high = (quantile * night for quantile in _quantiles(blend, CLIPPED, 1 - CLIPPED))
    floor = night * _quantiles(strongest, 0.005)[0].clamp(max=DARKEST)
    gain = ((BRIGHTEST - floor) / (high - low).clamp(min=_TINY)).clamp(max=MOST_GAIN)
    gain = 1 + night * (gain - 1)
    above = ((blend - low) * gain / (1 - floor)).clamp(0, 1)
    mean = (floor + (1 - floor) * above.mean((1, 2, 3), keepdim=True)).clamp(0.01, 0.99)
    gamma = (torch.log(torch.full_like(mean, LEAST_MEAN)) / torch.log(mean)).clamp(look.least_gamma, 1)
    # With an offset: a pure power is infinitely steep at black and would show every quantization step of a dark image.
    lifted = ((above + TOE) ** gamma - TOE**gamma) / ((1 + TOE) ** gamma - TOE**gamma)
    return floor + (1 - floor) * lifted


def _blend(visible: Tensor, infrared: Tensor, look: Look) -> Tensor:
    """Blend sum and maximum of the coarse images, and add the detail of the stronger source.

    Sky texture is removed from all octaves alike: the octaves of an object add up to its edge, and a missing one would
    leave a halo.
    """
    octaves = []
    coarse_visible, coarse_infrared = visible, infrared
    for octave in range(look.bands):
        fine = coarse_visible, coarse_infrared
        coarse_visible, coarse_infrared = (gaussian_blur(image, 1.2 * 2**octave) for image in fine)
        octaves.append((fine[0] - coarse_visible, fine[1] - coarse_infrared, 1.5 * 2**octave))
    strongest = torch.maximum(coarse_visible, coarse_infrared)
    blend = look.share_of_sum * (coarse_visible + coarse_infrared) + (1 - look.share_of_sum) * strongest
    if not octaves:
        return blend
    strength = gaussian_blur((infrared - coarse_infrared).square(), 6).sqrt()
    real = (strength * SOBEL_OF_STEP / _coring(coarse_infrared, look) - 1).clamp(0, 1)
    for fine_visible, fine_infrared, sigma in octaves:
        visible_power = (look.favor**2 * gaussian_blur(fine_visible.square(), sigma)).square()
        infrared_power = gaussian_blur((real * fine_infrared).square(), sigma).square()
        share = visible_power / (visible_power + infrared_power).clamp(min=_TINY**3)
        blend = blend + share * fine_visible + (1 - share) * real * fine_infrared
    return blend


def vivid_edges(visible: Tensor, infrared: Tensor, look: Look) -> Tensor:
    """Compute the target gradient of the joint stage: ``edge_gain`` times that of the stronger source.

    Weak infrared gradients are cored, more strongly in cold regions, so that clouds and fixed-pattern noise of a cold
    sky do not appear in the visible one.

    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: like ``visible``
    :param look: parameters of the target
    :returns: [N, 2, H, W], Sobel along x and y
    """
    x, y = sobel_vector(visible), sobel_vector(infrared)
    y = y * (1 - _coring(infrared, look) / _length(y).clamp(min=_TINY)).clamp(min=0)
    return look.edge_gain * torch.where(look.favor * _length(x) > _length(y), x, y)


def _coring(infrared: Tensor, look: Look) -> Tensor:
    """Return the Sobel gradient below which the infrared is noise or sky texture, [N, 1, H, W]."""
    around = F.avg_pool2d(F.avg_pool2d(infrared, 4), 3, 1, 1, count_include_pad=False)
    around = F.interpolate(around, size=infrared.shape[2:], mode="bilinear", align_corners=False)
    return CORING + (look.sky_coring - CORING) * (1 - _ramp(around, *COLD))


def structure_error(fused: Tensor, visible: Tensor, where: Tensor) -> Tensor:
    """Compute the loss of structural similarity to the visible image, ``1 - SSIM``, averaged over some pixels.

    :param fused: float32 [N, 1, H, W] in [0, 1]
    :param visible: like ``fused``, clean luma
    :param where: like ``fused``, weight of each pixel
    :returns: [N]
    """
    mean_f, mean_v = gaussian_blur(fused, SSIM_SIGMA), gaussian_blur(visible, SSIM_SIGMA)
    var_f = (gaussian_blur(fused**2, SSIM_SIGMA) - mean_f**2).clamp(min=0)
    var_v = (gaussian_blur(visible**2, SSIM_SIGMA) - mean_v**2).clamp(min=0)
    covariance = gaussian_blur(fused * visible, SSIM_SIGMA) - mean_f * mean_v
    luminance = (2 * mean_f * mean_v + SSIM_C1) / (mean_f**2 + mean_v**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_f + var_v + SSIM_C2)
    return ((1 - luminance * structure) * where).mean((1, 2, 3))


def vivid_loss(
    fused: Tensor, visible: Tensor, infrared: Tensor, shown: Tensor, target: Tensor, edges: Tensor, look: Look
) -> Tensor:
    """Loss of the joint stage: intensity, edges, information kept of each source, and pixel-shuffle grid.

    :param fused: float [N, 1, H, W] in [-1, 1], the estimate Z^_0 of equation (8)
    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: like ``visible``; correlated with the fused image
    :param shown: the infrared without cold sky, see :func:`without_cold_sky`
    :param target: of :func:`vivid_target` from ``visible`` and ``shown``
    :param edges: of :func:`vivid_edges` from ``visible`` and ``shown``
    :param look: parameters of the target
    :returns: [N]
    """
    fused = signed_to_unit(fused.float())
    error = fused - target
    sources = (visible, infrared)
    correlation = sum(correlate(fused - a, b) for a, b in (sources, sources[::-1]))
    information = torch.stack(
        [local_information(fused, source, most_kept=look.most_kept) for source in (visible, shown)]
    )
    return (
        error.abs().flatten(1).mean(1)
        + EDGE_WEIGHT * (sobel_vector(fused) - edges).abs().sum(1).flatten(1).mean(1)
        + CORRELATION_WEIGHT * (2 - correlation)
        - look.information * (information.sum(0) + WEAKER_SHARE * information.amin(0))
        + GRID_WEIGHT * grid_energy(error)
    )


def correlate(x: Tensor, y: Tensor) -> Tensor:
    """Compute the Pearson correlation of each pair of images; SCD is the sum of two of them, on differences.

    :param x: float [N, 1, H, W]
    :param y: like ``x``
    :returns: [N]
    """
    x, y = (z - z.mean((1, 2, 3), keepdim=True) for z in (x, y))
    norm = (x * x).mean((1, 2, 3)) * (y * y).mean((1, 2, 3))
    return (x * y).mean((1, 2, 3)) / (norm + _TINY**2).sqrt()


def local_information(fused: Tensor, source: Tensor, *, most_kept: float = float("inf")) -> Tensor:
    """Measure the share of a source's local structure that an image keeps, about 0 to 1; added contrast raises it.

    Like VIF (Sheikh & Bovik 2006), with box windows at a stride of half a window, which cost a twentieth of Gaussian
    ones. VIF rewards any added contrast, and a network trained on it exaggerates every edge; ``most_kept`` limits that.

    :param fused: float32 [N, 1, H, W] in [0, 1]
    :param source: like ``fused``
    :param most_kept: largest local gain that counts; faint structure may be raised to a standard deviation of
        ``FAINT``, at most ``MOST_RAISED`` times
    :returns: [N]
    """
    kept = torch.zeros(fused.shape[0], device=fused.device)
    total = torch.zeros_like(kept)
    noise = 2 / 255**2
    for window in (4, 4, 4):
        mean_f, mean_s, ff, ss, fs = (
            F.avg_pool2d(part, window, window // 2) for part in (fused, source, fused**2, source**2, fused * source)
        )
        var_f, var_s = (ff - mean_f**2).clamp(min=0), (ss - mean_s**2).clamp(min=0)
        covariance = fs - mean_f * mean_s
        gain = (covariance / (var_s + noise / 100)).clamp(min=0)
        distortion = (var_f - gain * covariance).clamp(min=0)
        raised = (FAINT / (var_s + _TINY**2).sqrt()).clamp(max=MOST_RAISED)
        gain = torch.minimum(gain, raised.clamp(min=most_kept))
        kept = kept + torch.log1p(gain**2 * var_s / (distortion + noise)).flatten(1).sum(1)
        total = total + torch.log1p(var_s / noise).flatten(1).sum(1)
        fused, source = F.avg_pool2d(fused, 2), F.avg_pool2d(source, 2)
    return kept / total.clamp(min=1)


def grid_energy(error: Tensor, cell: int = 4) -> Tensor:
    """Measure how the error differs between the pixels of a pixel-shuffle cell, averaged over 4 x 4 cells.

    Errors of the scene average out; one that depends on the position in the cell is the grid of the pixel shuffle.

    :param error: [N, 1, H, W], image minus truth
    :param cell: upscaling factor of the pixel shuffle [pixels]
    :returns: [N]
    """
    phases = F.avg_pool2d(F.pixel_unshuffle(error, cell), 4, 2)
    return (phases - phases.mean(1, keepdim=True)).abs().flatten(1).mean(1)


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    return ((x - low) / (high - low)).clamp(0, 1)


def _widest(x: Tensor) -> Tensor:
    return F.max_pool2d(x, THIN, 1, THIN // 2)


def _quantiles(images: Tensor, *shares: float) -> list[Tensor]:
    """Estimate quantiles of each image, [N, 1, 1, 1] each, from every seventh pixel."""
    some = images.flatten(1)[:, ::7].float()
    return [torch.quantile(some, share, dim=1)[:, None, None, None] for share in shares]


def _length(vector: Tensor) -> Tensor:
    return vector.square().sum(1, keepdim=True).sqrt()
