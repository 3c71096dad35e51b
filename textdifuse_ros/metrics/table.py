"""All metrics of one fused image against its clean sources."""

from __future__ import annotations

import numpy as np

from textdifuse_ros.checks import describe
from textdifuse_ros.errors import ImageError
from textdifuse_ros.metrics.color import delta_e_2000
from textdifuse_ros.metrics.detail import average_gradient, qabf
from textdifuse_ros.metrics.images import check_color, check_same_shape, to_grey
from textdifuse_ros.metrics.information import entropy, standard_deviation
from textdifuse_ros.metrics.similarity import (
    scd,
    ssim_day_from_map,
    ssim_from_moments,
    ssim_map,
    ssim_moments,
    vif_from_moments,
    vif_moments,
)
from textdifuse_ros.metrics.transfer import (
    feature_mutual_information,
    mutual_information,
    nonlinear_correlation,
    perceived_difference,
)

CLEAN_METRICS = (
    "EN", "AG", "SD", "SCD", "VIF", "VIF_visible", "VIF_infrared", "VIF_min", "Qabf", "SSIM", "SSIM_day",
    "MI", "FMI", "Qncie", "Qcv", "dE00",
)  # fmt: skip


def clean_metrics(fused_rgb: np.ndarray, visible_rgb: np.ndarray, infrared: np.ndarray) -> dict[str, float]:
    """Compute all metrics of a fused image against its clean sources, in the order of :data:`CLEAN_METRICS`.

    Source A is the luma of the visible image (:func:`.images.to_grey`), source B the infrared image. ``VIF`` is the sum
    over both sources, ``VIF_min`` the smaller one, ``SSIM`` the mean over both; ``SSIM_day`` and ``dE00`` compare with
    the visible image. Higher is better, except for ``dE00`` and ``Qcv``.

    :param fused_rgb: uint8 [H, W, 3] RGB, the image as saved; H and W at least 41
    :param visible_rgb: uint8 [H, W, 3] RGB
    :param infrared: uint8 [H, W]
    :returns: values by name; NaN if a metric is undefined for these images
    :raises ImageError: wrong type or shape, different sizes, or too small
    """
    check_color(fused_rgb, "the fused image")
    check_color(visible_rgb, "the visible image")
    if infrared.dtype != np.uint8 or infrared.ndim != 2:
        raise ImageError("the infrared image", "uint8 [H, W] (grey)", describe(infrared))
    check_same_shape("the fused image", fused_rgb, visible_rgb)
    check_same_shape("the infrared image", infrared, visible_rgb[..., 0])
    fused, visible = to_grey(fused_rgb), to_grey(visible_rgb)
    vif_fused, ssim_fused = vif_moments(fused, "the fused image"), ssim_moments(fused)
    vifs = [vif_from_moments(vif_fused, vif_moments(source)) for source in (visible, infrared)]
    ssim_visible = ssim_moments(visible)
    similarity = ssim_map(ssim_fused, ssim_visible)
    ssims = [float(np.mean(similarity)), ssim_from_moments(ssim_fused, ssim_moments(infrared))]
    values = (
        entropy(fused),
        average_gradient(fused),
        standard_deviation(fused),
        scd(fused, visible, infrared),
        vifs[0] + vifs[1],
        vifs[0],
        vifs[1],
        float(np.minimum(vifs[0], vifs[1])),  # NaN where either is
        qabf(fused, visible, infrared),
        (ssims[0] + ssims[1]) / 2,
        ssim_day_from_map(similarity, ssim_visible),
        mutual_information(fused, visible, infrared),
        feature_mutual_information(fused, visible, infrared),
        nonlinear_correlation(fused, visible, infrared),
        perceived_difference(fused, visible, infrared),
        delta_e_2000(fused_rgb, visible_rgb),
    )
    return dict(zip(CLEAN_METRICS, values, strict=True))
