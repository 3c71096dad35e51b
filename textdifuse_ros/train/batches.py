"""Parts that the luma stages share: the luma of a batch, and the restoration error."""

from __future__ import annotations

from torch import Tensor

from textdifuse_ros.data.crops import CropBatch
from textdifuse_ros.diffusion.losses import few_step_loss
from textdifuse_ros.image.color import rgb_to_ycbcr
from textdifuse_ros.image.gradients import sobel
from textdifuse_ros.image.ranges import signed_to_unit, unit_to_signed

GRADIENT_WEIGHT = 0.1


def signed_pair(batch: CropBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Extract visible luma and infrared, then the targets of both, float32 [N, 1, H, W] in [-1, 1] each.

    :param batch: of pairs
    """
    visible, _ = rgb_to_ycbcr(batch.visible)
    target, _ = rgb_to_ycbcr(batch.visible_target)
    return (
        unit_to_signed(visible),
        unit_to_signed(batch.infrared),
        unit_to_signed(target),
        unit_to_signed(batch.infrared_target),
    )


def restoration_error(x0: Tensor, truth: Tensor) -> Tensor:
    """Compute the L1 error of a restored image and of its gradients.

    :param x0: estimate, float [N, 1, H, W] in [-1, 1]
    :param truth: like ``x0``
    :returns: [N]
    """
    return few_step_loss(signed_to_unit(x0), signed_to_unit(truth), sobel, GRADIENT_WEIGHT)
