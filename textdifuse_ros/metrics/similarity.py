"""Similarity metrics: SCD, VIF and SSIM of a fused image to its sources, and PSNR."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.metrics.images import check_min_size, check_same_shape, grey_values

VIF_SCALES = 4
VIF_NOISE = 2.0  # variance of the visual noise, sigma_n^2 [grey level squared]
VIF_MIN_SIZE = 41  # [pixel]; smaller images have no window at the fourth scale
_TINY = 1e-10
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
WELL_EXPOSED = (40, 215)
"""Levels of the smoothed visible luma at which the visible image is well exposed."""
EXPOSURE_SIGMA = 3.0  # of the Gaussian that smooths it [pixel]


def scd(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """SCD: sum of the correlations of differences, ``corr(F - B, A) + corr(F - A, B)``; -2 .. 2.

    ``A + B``, shifted, reaches almost 2, so on its own it proves little.
    Aslantas, Bendes, "A new image quality metric for image fusion: the sum of the correlations of differences", AEU 69,
    2015.

    :param fused: uint8 or float64 [H, W] in 0 .. 255
    :param a: one source, likewise, of the same size
    :param b: the other source
    :returns: NaN if a correlation is undefined: a source is constant, or the fused image is a source plus a constant
    :raises ImageError: wrong type or shape, or different shapes
    """
    fused, a, b = (grey_values(what, each) for what, each in (("the fused image", fused), ("A", a), ("B", b)))
    check_same_shape("the fused image", fused, a)
    check_same_shape("the fused image", fused, b)
    return _correlation(fused - b, a) + _correlation(fused - a, b)


def correlation_inside(fused: np.ndarray, source: np.ndarray, mask: np.ndarray) -> float:
    """Pearson correlation of a fused image with a source within a mask; -1 .. 1.

    :param fused: uint8 or float64 [H, W] in 0 .. 255
    :param source: likewise, of the same size
    :param mask: bool [H, W]
    :returns: NaN if the mask is empty, or an image is constant within it
    :raises ImageError: wrong type or shape, or different shapes
    """
    fused, source = grey_values("the fused image", fused), grey_values("the source", source)
    check_same_shape("the fused image", fused, source)
    check_same_shape("the mask", mask, source)
    return _correlation(fused[mask], source[mask]) if mask.any() else float("nan")


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation of two images; NaN if one is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.vdot(x, y) / np.sqrt(np.vdot(x, x) * np.vdot(y, y)))


@dataclass(frozen=True)
class LocalMoments:
    """Windowed moments of an image at one scale.

    :ivar values: float64 [H, W], the image (for VIF without its mean)
    :ivar mean: float64 [h, w], mean of each window
    :ivar variance: float64 [h, w], variance of each window
    """

    values: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def vif(fused: np.ndarray, source: np.ndarray) -> float:
    """VIF with one source: visual information fidelity, 0 .. 1, above 1 if the source's contrast is enhanced.

    The pixel-domain version (VIFp) of Sheikh, Bovik, "Image information and visual quality", IEEE TIP 15, 2006,
    as in their released code: with the local gain ``g = cov / var_S`` and distortion ``v = var_F - g cov``,
    ``sum log(1 + g^2 var_S / (v + sigma_n^2)) / sum log(1 + var_S / sigma_n^2)``, ``sigma_n^2 = 2``, over 4 scales with
    Gaussian windows of 17, 9, 5 and 3 pixels (sigma a fifth of them), whole windows only. The fusion literature's VIF
    is the *sum* over both sources.

    :param fused: uint8 or float64 [H, W] in 0 .. 255, at least 41 x 41
    :param source: likewise, of the same size
    :returns: NaN if the source is constant and carries no information
    :raises ImageError: wrong type or shape, different shapes, or too small
    """
    check_same_shape("the fused image", fused, source)
    return vif_from_moments(vif_moments(fused, "the fused image"), vif_moments(source, "the source"))


def vif_moments(image: np.ndarray, what: str = "the image") -> list[LocalMoments]:
    """Compute the moments of one image for :func:`vif`, to be shared by several comparisons.

    :param image: uint8 or float64 [H, W] in 0 .. 255, at least 41 x 41
    :param what: name of the image in the error message
    :returns: moments at each scale
    :raises ImageError: wrong type or shape, or too small
    """
    values = grey_values(what, image)
    check_min_size(what, values, VIF_MIN_SIZE)
    # VIF does not depend on the mean; removing it avoids cancellation in the variances.
    values = values - values.mean()
    moments = []
    for scale in range(VIF_SCALES):
        kernel = _vif_kernel(scale)
        if scale:
            values = np.ascontiguousarray(_filter_valid(values, kernel)[::2, ::2])
        mean = _filter_valid(values, kernel)
        variance = np.maximum(_filter_valid(values * values, kernel) - mean * mean, 0)
        moments.append(LocalMoments(values, mean, variance))
    return moments


def vif_from_moments(fused: list[LocalMoments], source: list[LocalMoments]) -> float:
    """Compute :func:`vif` from :func:`vif_moments`.

    :param fused: moments of the fused image
    :param source: moments of the source
    """
    preserved = total = 0.0
    for scale, (f, s) in enumerate(zip(fused, source, strict=True)):
        covariance = _filter_valid(f.values * s.values, _vif_kernel(scale)) - f.mean * s.mean
        gain = covariance / (s.variance + _TINY)
        gain[(s.variance < _TINY) | (f.variance < _TINY) | (gain < 0)] = 0
        # Where the gain is 0, all of the fused variance is distortion by the same formula.
        distortion = np.maximum(f.variance - gain * covariance, _TINY)
        signal = np.where(s.variance < _TINY, 0, s.variance)
        preserved += float(np.log1p(gain * gain * signal / (distortion + VIF_NOISE)).sum())
        total += float(np.log1p(signal / VIF_NOISE).sum())
    return preserved / total if total > 0 else float("nan")


def _vif_kernel(scale: int) -> np.ndarray:
    size = 2 ** (VIF_SCALES - scale) + 1
    return cv2.getGaussianKernel(size, size / 5, cv2.CV_64F)


def ssim(fused: np.ndarray, source: np.ndarray) -> float:
    """SSIM with one source: mean structural similarity, -1 .. 1, 1 for equal images; always defined.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13, 2004, equations 13 and 17: Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, range 255,
    population variances, whole windows only. The project's tables give the mean over both sources.

    :param fused: uint8 or float64 [H, W] in 0 .. 255, at least 11 x 11
    :param source: likewise, of the same size
    :raises ImageError: wrong type or shape, different shapes, or too small
    """
    check_same_shape("the fused image", fused, source)
    return ssim_from_moments(ssim_moments(fused, "the fused image"), ssim_moments(source, "the source"))


def ssim_moments(image: np.ndarray, what: str = "the image") -> LocalMoments:
    """Compute the moments of one image for :func:`ssim`, to be shared by several comparisons.

    :param image: uint8 or float64 [H, W] in 0 .. 255, at least 11 x 11
    :param what: name of the image in the error message
    :raises ImageError: wrong type or shape, or too small
    """
    values = grey_values(what, image)
    check_min_size(what, values, SSIM_WINDOW)
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, SSIM_SIGMA, cv2.CV_64F)
    mean = _filter_valid(values, kernel)
    return LocalMoments(values, mean, _filter_valid(values * values, kernel) - mean * mean)


def ssim_from_moments(fused: LocalMoments, source: LocalMoments) -> float:
    """Compute :func:`ssim` from :func:`ssim_moments`.

    :param fused: moments of the fused image
    :param source: moments of the source
    """
    return float(np.mean(ssim_map(fused, source)))


def ssim_map(fused: LocalMoments, source: LocalMoments) -> np.ndarray:
    """Compute the similarity of every window, see :func:`ssim`.

    :param fused: moments of the fused image
    :param source: moments of the source
    :returns: float64 [H - 10, W - 10], for the pixel in the middle of each window
    """
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, SSIM_SIGMA, cv2.CV_64F)
    means = fused.mean * source.mean
    covariance = _filter_valid(fused.values * source.values, kernel) - means
    brightness = fused.mean * fused.mean + source.mean * source.mean + SSIM_C1
    contrast = fused.variance + source.variance + SSIM_C2
    return np.asarray((2 * means + SSIM_C1) * (2 * covariance + SSIM_C2) / (brightness * contrast))


def ssim_day(fused: np.ndarray, visible: np.ndarray) -> float:
    """SSIM with the visible image where that is well exposed: there a fused image should look like it.

    The mean of :func:`ssim_map` over the windows around the pixels whose visible luma, smoothed by a Gaussian of
    sigma 3, lies in 40 .. 215.

    :param fused: uint8 or float64 [H, W] in 0 .. 255, at least 11 x 11
    :param visible: uint8 or float64 [H, W] in 0 .. 255, the visible luma, of the same size
    :returns: NaN if no pixel is well exposed
    :raises ImageError: wrong type or shape, different shapes, or too small
    """
    check_same_shape("the fused image", fused, visible)
    moments = ssim_moments(visible, "the visible image")
    return ssim_day_from_map(ssim_map(ssim_moments(fused, "the fused image"), moments), moments)


def ssim_day_from_map(similarity: np.ndarray, visible: LocalMoments) -> float:
    """Compute :func:`ssim_day` from the similarity of every window.

    :param similarity: float64 [H - 10, W - 10], from :func:`ssim_map`
    :param visible: moments of the visible luma
    """
    border = SSIM_WINDOW // 2
    exposed = well_exposed(visible.values)[border:-border, border:-border]
    return float(similarity[exposed].mean()) if exposed.any() else float("nan")


def well_exposed(visible: np.ndarray) -> np.ndarray:
    """Find the pixels whose visible luma, smoothed by a Gaussian of sigma 3, lies in 40 .. 215.

    :param visible: uint8 or float64 [H, W] in 0 .. 255, the visible luma
    :returns: bool [H, W]
    """
    smooth = cv2.GaussianBlur(visible.astype(np.float64), (0, 0), EXPOSURE_SIGMA)
    return np.asarray((smooth >= WELL_EXPOSED[0]) & (smooth <= WELL_EXPOSED[1]))


def _filter_valid(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter by a separable symmetric kernel, keeping positions where it fits completely."""
    border = len(kernel) // 2
    return cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel)[border:-border, border:-border]


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """PSNR of two images, ``10 log10(255^2 / mean squared difference)`` [dB].

    :param x: uint8 or float64, [H, W] or [H, W, 3], in 0 .. 255
    :param y: likewise, of the same shape
    :returns: infinity for equal images
    :raises ImageError: wrong type, or different shapes
    """
    check_same_shape("the image", x, y)
    x, y = (grey_values("the image", each.reshape(len(each), -1)) for each in (x, y))
    error = float(np.mean(np.square(x - y)))
    return float(10 * np.log10(255**2 / error)) if error > 0 else float("inf")
