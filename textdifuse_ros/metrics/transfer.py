"""Metrics of what is transferred from the sources: MI, FMI, Qncie (information) and Qcv (perceived difference)."""

from __future__ import annotations

import cv2
import numpy as np

from textdifuse_ros.metrics.images import check_min_size, check_same_shape, grey_values

LEVELS = 256
QCV_WINDOW = 16
"""Side of the regions of Qcv, and the smallest image [pixel]."""


def mutual_information(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """MI: ``I(A; F) + I(B; F)`` over the joint histograms of 256 grey levels [bit]; 0 .. 16.

    Qu, Zhang, Yan, "Information measure for performance of image fusion", Electronics Letters 38, 2002. A copy of one
    source gets at least that source's entropy, so on its own it proves little.

    :param fused: uint8 or float64 [H, W] in 0 .. 255; float values are rounded to grey levels and clipped
    :param a: one source, likewise, of the same size
    :param b: the other source
    :raises ImageError: wrong type or shape, or different shapes
    """
    fused, a, b = _levels(fused, a, b)
    return sum(_entropy(source) + _entropy(fused) - _joint_entropy(source, fused) for source in (a, b))


def feature_mutual_information(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """FMI: mean over both sources of ``2 I(S; F) / (H(S) + H(F))`` of the images' gradient strengths; 0 .. 1.

    Haghighat, Aghagolzadeh, Seyedarabi, "A non-reference image fusion metric based on mutual information of image
    features", Computers and Electrical Engineering 37, 2011, with the gradient as the feature. The distributions are
    histograms of the whole image (256 levels, each feature up to its maximum), where the authors' program estimates
    them in small windows: compare the figures with one another, not with those of that program.

    :param fused: uint8 or float64 [H, W] in 0 .. 255
    :param a: one source, likewise, of the same size
    :param b: the other source
    :returns: NaN if the fused image and a source are without any edge
    :raises ImageError: wrong type or shape, or different shapes
    """
    strengths = [_gradient(image) for image in _checked(fused, a, b)]
    features = [np.rint(one * ((LEVELS - 1) / max(float(one.max()), 1e-12))).astype(np.uint8) for one in strengths]
    shares = []
    for source in features[1:]:
        total = _entropy(source) + _entropy(features[0])
        shares.append(2 * (total - _joint_entropy(source, features[0])) / total if total else float("nan"))
    return sum(shares) / 2


def nonlinear_correlation(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Qncie: nonlinear correlation information entropy of A, B and F; 0 .. 1.

    Wang, Shen, Jin, "Performance evaluation of image fusion techniques", in: Image Fusion, Academic Press, 2008: with
    ``NCC(X, Y) = H(X) + H(Y) - H(X, Y)`` in logarithms to base 256, and the eigenvalues ``l`` of the 3 x 3 matrix of
    them (1 on the diagonal), ``1 + sum l / 3 log256(l / 3)``.

    :param fused: uint8 or float64 [H, W] in 0 .. 255; float values are rounded to grey levels and clipped
    :param a: one source, likewise, of the same size
    :param b: the other source
    :raises ImageError: wrong type or shape, or different shapes
    """
    images = _levels(fused, a, b)
    matrix = np.eye(3)
    for row in range(3):
        for column in range(row):
            one, other = images[row], images[column]
            shared = (_entropy(one) + _entropy(other) - _joint_entropy(one, other)) / np.log2(LEVELS)
            matrix[row, column] = matrix[column, row] = shared
    shares = np.clip(np.linalg.eigvalsh(matrix), 1e-300, None) / 3
    return float(1 + np.sum(shares * np.log(shares)) / np.log(LEVELS))


def perceived_difference(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Qcv: mean squared difference to the sources as seen by an eye [level squared]; lower is better, 0 at best.

    Chen, Varshney, "A human perception inspired quality metric for image fusion based on regional information",
    Information Fusion 8, 2007: the differences are filtered by the contrast sensitivity of Mannos and Sakrison,
    ``2.6 (0.0192 + 0.114 r) exp(-(0.114 r)^1.1)``; their mean square in regions of 16 x 16 pixels is weighted by each
    source's summed edge strength (alpha = 1). The radial frequency ``r`` is that of Liu's programs (Liu et al., IEEE
    TPAMI 34, 2012): an eighth of the pixels of a side at the Nyquist frequency. Incomplete regions are left out.

    :param fused: uint8 or float64 [H, W] in 0 .. 255, at least 16 x 16
    :param a: one source, likewise, of the same size
    :param b: the other source
    :returns: NaN if both sources are without any edge
    :raises ImageError: wrong type or shape, different shapes, or too small
    """
    fused, a, b = _checked(fused, a, b)
    check_min_size("the fused image", fused, QCV_WINDOW)
    height, width = fused.shape
    across, down = np.fft.rfftfreq(width) * 2 * width / 8, np.fft.fftfreq(height) * 2 * height / 8
    radius = np.hypot(down[:, None], across[None, :])
    sensitivity = 2.6 * (0.0192 + 0.114 * radius) * np.exp(-((0.114 * radius) ** 1.1))
    difference = weight = 0.0
    for source in (a, b):
        seen = np.fft.irfft2(np.fft.rfft2(source - fused) * sensitivity, s=fused.shape)
        salience = _regions(_gradient(source)).sum((1, 3))
        difference += float(np.sum(salience * _regions(seen * seen).mean((1, 3))))
        weight += float(salience.sum())
    return difference / weight if weight > 0 else float("nan")


def _checked(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    images = [grey_values(what, each) for what, each in (("the fused image", fused), ("A", a), ("B", b))]
    for source in images[1:]:
        check_same_shape("the fused image", images[0], source)
    return images


def _levels(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    return [np.clip(np.rint(image), 0, LEVELS - 1).astype(np.uint8) for image in _checked(fused, a, b)]


def _entropy_of(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(np.sum(shares * np.log2(1 / shares)))


def _entropy(image: np.ndarray) -> float:
    return _entropy_of(np.bincount(image.reshape(-1)))


def _joint_entropy(one: np.ndarray, other: np.ndarray) -> float:
    return _entropy_of(np.bincount(one.reshape(-1).astype(np.int32) * LEVELS + other.reshape(-1)))


def _gradient(image: np.ndarray) -> np.ndarray:
    """Sobel strength; borders are replicated, so that they add no edges."""
    sides = [
        cv2.Sobel(image, cv2.CV_64F, *along, ksize=3, borderType=cv2.BORDER_REPLICATE) for along in ((1, 0), (0, 1))
    ]
    return np.asarray(np.hypot(*sides))


def _regions(image: np.ndarray) -> np.ndarray:
    """View an image as regions: [rows, 16, columns, 16]."""
    rows, columns = (side // QCV_WINDOW for side in image.shape)
    whole = image[: rows * QCV_WINDOW, : columns * QCV_WINDOW]
    return whole.reshape(rows, QCV_WINDOW, columns, QCV_WINDOW)
