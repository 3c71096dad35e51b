"""What fusing is trained for.

:func:`fusion_loss` is the paper's, equations (9) to (11), for the fusion control. :func:`vivid_loss` is for the joint
stage that follows: the maximum alone gives a flat image wherever one source is bright and thins out whatever the
other one shows there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.image.blur import gaussian_blur
from textdifuse_ros.image.gradients import sobel, sobel_vector
from textdifuse_ros.image.ranges import signed_to_unit

GRADIENT_WEIGHT = 0.2

DARKEST, BRIGHTEST = 0.05, 0.98
CLIPPED = 0.008
"""Share of the pixels that the target clips at either end."""
MOST_GAIN = 2.5
LEAST_MEAN = 0.38
TOE = 0.05
"""The least intensity above black at which the gamma works [share of the range]."""
COLD = (0.08, 0.30)
"""Infrared intensity below which all is sky, and above which none is."""
COLD_SKY = (0.17, 0.62)
"""Infrared intensity, as a share of the image's mean, below which all may be sky, and above which nothing is."""
BRIGHT = (0.4, 0.65)
"""Visible intensity below which nothing is a sky by day, and above which all may be."""
THIN = 9
"""Wires, lamp posts and twigs before the sky are thinner than this and belong to it [pixel]."""
CORING = 0.03
"""Infrared Sobel gradients below this are noise."""
SOBEL_OF_STEP = 4
"""Sobel gradient at a step of 1."""

FAINT = 0.015
"""Standard deviation of a window whose contrast may be raised to this one's where ``most_kept`` allows less."""
MOST_RAISED = 2.5

EDGE_WEIGHT = 0.9
CORRELATION_WEIGHT = 0.1
INFORMATION_WEIGHT = 0.25
WEAKER_SHARE = 2.0
"""Weight of what is kept of the source of which less is kept, beside the sum of both."""
GRID_WEIGHT = 1.0

_TINY = 1e-4


@dataclass(frozen=True)
class Look:
    """What the joint stage's target is made with.

    :ivar share_of_sum: of the sum in the target intensity; the rest is the maximum
    :ivar least_gamma: the strongest lift of an image that is dark on the whole
    :ivar sky_coring: Sobel gradients below this are texture where the infrared is cold
    :ivar sky_share: of the visible sky's brightness that the infrared sky is taken to have
    :ivar edge_gain: of the edges of the stronger source
    :ivar bands: number of octaves of detail that the target takes from the stronger source instead of blending them
    :ivar favour: of the visible source where the stronger of both is looked for
    :ivar most_kept: gain above which more contrast is no more information kept, but exaggeration
    """

    share_of_sum: float
    least_gamma: float
    sky_coring: float
    sky_share: float
    edge_gain: float
    bands: int
    favour: float
    most_kept: float


LOOKS = {
    "road": Look(0.5, 0.5, 0.16, 0.55, 1.1, bands=3, favour=1.3, most_kept=1.3),
    "medical": Look(0.3, 0.85, CORING, 0, 1.6, bands=0, favour=1, most_kept=float("inf")),
}


def fusion_loss(
    fused: Tensor, visible: Tensor, infrared: Tensor, *, intensity: float = 1.0, gradient: float = GRADIENT_WEIGHT
) -> Tensor:
    """Intensity and gradient of the fused luma against the stronger of the two clean sources, equation (11).

    Taken on [0, 1] (in [-1, 1] the absolute values of equation 9 would turn black into white), with absolute Sobel
    gradients and the L1 norm.

    :param fused: float [N, 1, H, W] in [-1, 1], the estimate Z^_0 of equation (8)
    :param visible: like it, the restored or clean luma
    :param infrared: like it, the restored or clean infrared
    :param intensity: weight of equation (9)
    :param gradient: weight of equation (10)
    :returns: [N]
    """
    fused, visible, infrared = signed_to_unit(fused), signed_to_unit(visible), signed_to_unit(infrared)
    brightness = (fused - torch.maximum(visible, infrared)).abs()
    edges = (sobel(fused) - torch.maximum(sobel(visible), sobel(infrared))).abs()
    return intensity * brightness.flatten(1).mean(1) + gradient * edges.flatten(1).mean(1)


def without_cold_sky(visible: Tensor, infrared: Tensor, look: Look) -> Tensor:
    """The infrared with a dimmed copy of the visible in place of a cold sky by day.

    Nothing is up there that the infrared could show: its cold would make a bright sky grey, its clouds and
    fixed-pattern noise would be printed over it, and wires would be white. Where the infrared is cold and the visible
    bright, both without what is thin, the visible is followed, as it is by the maximum of equation (9).

    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: like it
    :returns: like it
    """
    if not look.sky_share:
        return infrared
    warm = _widest(-_widest(-gaussian_blur(infrared, 0.8))) / infrared.mean((1, 2, 3), keepdim=True).clamp(min=_TINY)
    bright = -_widest(-_widest(gaussian_blur(visible, 0.8)))
    sky = gaussian_blur((1 - _ramp(warm, *COLD_SKY)) * _ramp(bright, *BRIGHT), 2)
    return infrared + sky * (look.sky_share * visible - infrared)


def vivid_target(visible: Tensor, infrared: Tensor, look: Look) -> Tensor:
    """The intensity that the joint stage asks for: a blend of sum and maximum over the whole range.

    The sum keeps both sources where they are bright at once, the maximum keeps what is warm as bright as it is. Detail
    is not blended: of two sources that disagree (lane lines that are bright in one and dark in the other) nothing would
    be left. Each octave of it comes from the source that has more of it there. One straight line for the whole image
    stretches the blend (by at most ``MOST_GAIN``), and a gamma lifts it where it is still dark, but not its black: the
    night would be fog. Both are of the image, not of a place.

    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: like it
    :returns: like it
    """
    strongest = torch.maximum(visible, infrared)
    blend = _blend(visible, infrared, look)
    low, high = _quantiles(blend, CLIPPED, 1 - CLIPPED)
    floor = _quantiles(strongest, 0.005)[0].clamp(max=DARKEST)
    gain = ((BRIGHTEST - floor) / (high - low).clamp(min=_TINY)).clamp(max=MOST_GAIN)
    above = ((blend - low) * gain / (1 - floor)).clamp(0, 1)
    mean = (floor + (1 - floor) * above.mean((1, 2, 3), keepdim=True)).clamp(0.01, 0.99)
    gamma = (torch.log(torch.full_like(mean, LEAST_MEAN)) / torch.log(mean)).clamp(look.least_gamma, 1)
    # Behind a toe: a power of its own is infinitely steep at black, and every step of a dark image would be seen.
    lifted = ((above + TOE) ** gamma - TOE**gamma) / ((1 + TOE) ** gamma - TOE**gamma)
    return floor + (1 - floor) * lifted


def _blend(visible: Tensor, infrared: Tensor, look: Look) -> Tensor:
    """Sum and maximum of what is left of both sources without detail, and the stronger source's detail.

    Texture of the sky is left out of all octaves alike: an object's octaves add up to its edge only together, and one
    of them left out is a halo.
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
    for seen, warm, around in octaves:
        power_seen = (look.favour**2 * gaussian_blur(seen.square(), around)).square()
        power_warm = gaussian_blur((real * warm).square(), around).square()
        share = power_seen / (power_seen + power_warm).clamp(min=_TINY**3)
        blend = blend + share * seen + (1 - share) * real * warm
    return blend


def vivid_edges(visible: Tensor, infrared: Tensor, look: Look) -> Tensor:
    """The gradient that the joint stage asks for: the stronger source's, with its direction, ``edge_gain`` times.

    Weak infrared gradients are cored out, the more the colder the place: clouds and fixed-pattern noise of a cold sky
    are not to be printed over the visible one.

    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: like it
    :returns: [N, 2, H, W], Sobel along x and y
    """
    seen, warm = sobel_vector(visible), sobel_vector(infrared)
    warm = warm * (1 - _coring(infrared, look) / _length(warm).clamp(min=_TINY)).clamp(min=0)
    return look.edge_gain * torch.where(look.favour * _length(seen) > _length(warm), seen, warm)


def _coring(infrared: Tensor, look: Look) -> Tensor:
    """The Sobel gradient of the infrared below which it is noise or texture of the sky, [N, 1, H, W]."""
    around = F.avg_pool2d(F.avg_pool2d(infrared, 4), 3, 1, 1, count_include_pad=False)
    around = F.interpolate(around, size=infrared.shape[2:], mode="bilinear", align_corners=False)
    return CORING + (look.sky_coring - CORING) * (1 - _ramp(around, *COLD))


def vivid_loss(
    fused: Tensor, visible: Tensor, infrared: Tensor, shown: Tensor, target: Tensor, edges: Tensor, *, most_kept: float
) -> Tensor:
    """The joint stage's loss: intensity, edges, what of each source is left, and no grid.

    :param fused: float [N, 1, H, W] in [-1, 1], the estimate Z^_0 of equation (8)
    :param visible: float32 [N, 1, H, W] in [0, 1], clean luma
    :param infrared: like it; correlated with the fused image as it is
    :param shown: what is to be seen of it, of :func:`without_cold_sky`
    :param target: of :func:`vivid_target`, made with ``shown``
    :param edges: of :func:`vivid_edges`, likewise
    :param most_kept: of :func:`local_information`
    :returns: [N]
    """
    fused = signed_to_unit(fused.float())
    error = fused - target
    sources = (visible, infrared)
    correlation = sum(correlate(fused - a, b) for a, b in (sources, sources[::-1]))
    information = torch.stack([local_information(fused, source, most_kept=most_kept) for source in (visible, shown)])
    return (
        error.abs().flatten(1).mean(1)
        + EDGE_WEIGHT * (sobel_vector(fused) - edges).abs().sum(1).flatten(1).mean(1)
        + CORRELATION_WEIGHT * (2 - correlation)
        - INFORMATION_WEIGHT * (information.sum(0) + WEAKER_SHARE * information.amin(0))
        + GRID_WEIGHT * grid_energy(error)
    )


def correlate(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation of each image, [N, 1, H, W] twice to [N]; the sum of two such of differences is SCD."""
    x, y = (z - z.mean((1, 2, 3), keepdim=True) for z in (x, y))
    norm = (x * x).mean((1, 2, 3)) * (y * y).mean((1, 2, 3))
    return (x * y).mean((1, 2, 3)) / (norm + _TINY**2).sqrt()


def local_information(fused: Tensor, source: Tensor, *, most_kept: float = float("inf")) -> Tensor:
    """How much of a source's local structure an image keeps, about 0 to 1, more where it adds contrast to it.

    As VIF (Sheikh, Bovik 2006), with box windows half a window apart, which cost a twentieth of its Gaussian ones. VIF
    rewards any contrast that is added, and a network that is asked for it exaggerates every edge.

    :param fused: float32 [N, 1, H, W] in [0, 1]
    :param source: like it
    :param most_kept: local gain that counts as most; faint structure may be raised to a standard deviation of
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
    """How unlike the error is at the pixels of a cell of the pixel shuffle, after averaging over 4 x 4 cells.

    An error of the scene averages out; one of the place within the cell is the grid that shuffling prints.

    :param error: [N, 1, H, W], image minus truth
    :returns: [N]
    """
    phases = F.avg_pool2d(F.pixel_unshuffle(error, cell), 4, 2)
    return (phases - phases.mean(1, keepdim=True)).abs().flatten(1).mean(1)


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    return ((x - low) / (high - low)).clamp(0, 1)


def _widest(x: Tensor) -> Tensor:
    return F.max_pool2d(x, THIN, 1, THIN // 2)


def _quantiles(images: Tensor, *shares: float) -> list[Tensor]:
    """Quantiles of each image, [N, 1, 1, 1] each, from a seventh of its pixels."""
    some = images.flatten(1)[:, ::7].float()
    return [torch.quantile(some, share, dim=1)[:, None, None, None] for share in shares]


def _length(vector: Tensor) -> Tensor:
    return vector.square().sum(1, keepdim=True).sqrt()
