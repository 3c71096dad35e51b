"""How much of its sources a fused image keeps: SCD, VIF, SSIM; and how alike two images are: PSNR."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from textdifuse_ros.metrics.images import check_min_size, check_same_shape, grey_values

VIF_SCALES = 4
VIF_NOISE = 2.0  # variance of the visual noise, sigma_n^2 [grey level squared]
VIF_LEAST = 41  # pixels a side: below, nothing is left of the fourth scale
_TINY = 1e-10
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def scd(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """SCD: the sum of the correlations of differences, ``corr(F - B, A) + corr(F - A, B)``; -2 .. 2.

    ``A + B``, shifted, reaches almost 2: alone it proves little.
    Aslantas, Bendes, "A new image quality metric for image fusion: the sum of the correlations of differences", AEU 69,
    2015.

    :param fused: uint8 or float64 [H, W] in 0 .. 255
    :param a: one source, likewise and of the same size
    :param b: the other source
    :returns: NaN where a correlation is undefined: a source is constant, or the fused image is one plus a constant
    :raises ImageError: another type or shape, or different shapes
    """
    fused, a, b = (grey_values(what, each) for what, each in (("the fused image", fused), ("A", a), ("B", b)))
    check_same_shape("the fused image", fused, a)
    check_same_shape("the fused image", fused, b)
    return _correlation(fused - b, a) + _correlation(fused - a, b)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of two images; NaN where one is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.vdot(x, y) / np.sqrt(np.vdot(x, x) * np.vdot(y, y)))


@dataclass(frozen=True)
class LocalMoments:
    """An image (less its mean) with its windowed mean and variance, at one scale."""

    values: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def vif(fused: np.ndarray, source: np.ndarray) -> float:
    """VIF of one source: the share of the source's information that the fused image keeps; 0 .. 1, above 1 where it
    adds contrast to the source's structure.

    The pixel-domain version (VIFp) of Sheikh, Bovik, "Image information and visual quality", IEEE TIP 15, 2006,
    as in their released code: with the local gain ``g = cov / var_S`` and distortion ``v = var_F - g cov``,
    ``sum log(1 + g^2 var_S / (v + sigma_n^2)) / sum log(1 + var_S / sigma_n^2)``, ``sigma_n^2 = 2``, over 4 scales with
    Gaussian windows of 17, 9, 5 and 3 pixels (sigma a fifth of them), only whole windows. The fusion literature's VIF
    is the *sum* over both sources.

    :param fused: uint8 or float64 [H, W] in 0 .. 255, at least 41 x 41
    :param source: likewise, of the same size
    :returns: NaN where the source is constant: it carries no information
    :raises ImageError: another type or shape, different shapes, or too small
    """
    check_same_shape("the fused image", fused, source)
    return vif_from_moments(vif_moments(fused, "the fused image"), vif_moments(source, "the source"))


def vif_moments(image: np.ndarray, what: str = "the image") -> list[LocalMoments]:
    """What :func:`vif` needs to know of one image, for each scale; several comparisons can share it.

    :param image: uint8 or float64 [H, W] in 0 .. 255, at least 41 x 41
    :raises ImageError: another type or shape, or too small
    """
    values = grey_values(what, image)
    check_min_size(what, values, VIF_LEAST)
    # VIF does not know the mean; without it the variances do not suffer from cancellation.
    values = values - values.mean()
    moments = []
    for scale in range(VIF_SCALES):
        kernel = _vif_kernel(scale)
        if scale:
            values = np.ascontiguousarray(_inside(values, kernel)[::2, ::2])
        mean = _inside(values, kernel)
        variance = np.maximum(_inside(values * values, kernel) - mean * mean, 0)
        moments.append(LocalMoments(values, mean, variance))
    return moments


def vif_from_moments(fused: list[LocalMoments], source: list[LocalMoments]) -> float:
    """:func:`vif` of two images whose :func:`vif_moments` are known."""
    kept = total = 0.0
    for scale, (f, s) in enumerate(zip(fused, source, strict=True)):
        covariance = _inside(f.values * s.values, _vif_kernel(scale)) - f.mean * s.mean
        gain = covariance / (s.variance + _TINY)
        gain[(s.variance < _TINY) | (f.variance < _TINY) | (gain < 0)] = 0
        # Where the gain is 0 all of the fused variance is distortion, by the same formula.
        distortion = np.maximum(f.variance - gain * covariance, _TINY)
        signal = np.where(s.variance < _TINY, 0, s.variance)
        kept += float(np.log1p(gain * gain * signal / (distortion + VIF_NOISE)).sum())
        total += float(np.log1p(signal / VIF_NOISE).sum())
    return kept / total if total > 0 else float("nan")


def _vif_kernel(scale: int) -> np.ndarray:
    size = 2 ** (VIF_SCALES - scale) + 1
    return cv2.getGaussianKernel(size, size / 5, cv2.CV_64F)


def ssim(fused: np.ndarray, source: np.ndarray) -> float:
    """SSIM with one source: the mean over the image of structural similarity; -1 .. 1, 1 for equal images.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13, 2004, equations 13 and 17: Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, range 255,
    population variances, only whole windows. Always defined. Tables of the project give the mean over both sources.

    :param fused: uint8 or float64 [H, W] in 0 .. 255, at least 11 x 11
    :param source: likewise, of the same size
    :raises ImageError: another type or shape, different shapes, or too small
    """
    check_same_shape("the fused image", fused, source)
    return ssim_from_moments(ssim_moments(fused, "the fused image"), ssim_moments(source, "the source"))


def ssim_moments(image: np.ndarray, what: str = "the image") -> LocalMoments:
    """What :func:`ssim` needs to know of one image; several comparisons can share it.

    :param image: uint8 or float64 [H, W] in 0 .. 255, at least 11 x 11
    :raises ImageError: another type or shape, or too small
    """
    values = grey_values(what, image)
    check_min_size(what, values, SSIM_WINDOW)
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, SSIM_SIGMA, cv2.CV_64F)
    mean = _inside(values, kernel)
    return LocalMoments(values, mean, _inside(values * values, kernel) - mean * mean)


def ssim_from_moments(fused: LocalMoments, source: LocalMoments) -> float:
    """:func:`ssim` of two images whose :func:`ssim_moments` are known."""
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, SSIM_SIGMA, cv2.CV_64F)
    means = fused.mean * source.mean
    covariance = _inside(fused.values * source.values, kernel) - means
    brightness = fused.mean * fused.mean + source.mean * source.mean + SSIM_C1
    contrast = fused.variance + source.variance + SSIM_C2
    return float(np.mean((2 * means + SSIM_C1) * (2 * covariance + SSIM_C2) / (brightness * contrast)))


def _inside(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A separable, symmetric window applied where it fits whole."""
    border = len(kernel) // 2
    return cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel)[border:-border, border:-border]


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """PSNR of two images, ``10 log10(255^2 / mean squared difference)`` [dB].

    :param x: uint8 or float64, [H, W] or [H, W, 3], in 0 .. 255
    :param y: likewise, of the same shape
    :returns: infinity where the images are equal
    :raises ImageError: another type, or different shapes
    """
    check_same_shape("the image", x, y)
    x, y = (grey_values("the image", each.reshape(len(each), -1)) for each in (x, y))
    error = float(np.mean(np.square(x - y)))
    return float(10 * np.log10(255**2 / error)) if error > 0 else float("inf")
