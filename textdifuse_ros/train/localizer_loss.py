"""Losses of the localizer's network: sets of classes at every cell, and the boxes of objects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from textdifuse_ros.data.labels import (
    BICYCLE,
    CAR,
    CLASSES,
    CODES,
    PERSON,
    RIDER,
    STUFF,
    THINGS,
    UNKNOWN,
    allowed_classes,
)
from textdifuse_ros.networks.localizer import Cells

_WEIGHTS = {
    **{CLASSES.index(name): weight for name, weight in (("pole", 2.5), ("sign", 3.0), ("fence", 2.5), ("tree", 1.3))},
    **{CAR: 1.5, PERSON: 3.0, BICYCLE: 3.0, RIDER: 3.0, STUFF: 0.7, UNKNOWN: 0.0},
}
_DETAIL = 2  # classes are compared on every second pixel


def thing_weights() -> Tensor:
    """Return the loss weight of each thing, 1 for the other classes, float32 [classes]."""
    return torch.tensor([_WEIGHTS[code] if code in THINGS else 1.0 for code in range(len(CLASSES))])


class LocalizerLoss:
    """Losses of a batch.

    :param device: of the batches
    """

    def __init__(self, device: str | torch.device) -> None:
        self.allowed = torch.from_numpy(allowed_classes()).to(device)
        weights = torch.ones(CODES)
        for code, weight in _WEIGHTS.items():
            weights[code] = weight
        self.weights = weights.to(device)

    def __call__(self, cells: Cells, codes: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """Compute the losses, scalars; ``loss`` is minimized.

        :param cells: output of the network
        :param codes: uint8 [N, H, W], see :mod:`textdifuse_ros.data.labels`
        :param boxes: float32 [N, 4, H / 4, W / 4], NaN where no box is known
        """
        known = codes[:, ::_DETAIL, ::_DETAIL].long()
        logits = cells.logits.to(torch.float32)
        logits = F.interpolate(logits, known.shape[1:], mode="bilinear", align_corners=False)
        logs = F.log_softmax(logits, 1)
        classes = set_cross_entropy(logs, known, self.allowed, self.weights)
        overlap = dice(logs.exp(), known)
        extent = box_loss(cells.distances, boxes)
        return {"loss": classes + 0.5 * overlap + 0.7 * extent, "classes": classes, "dice": overlap, "boxes": extent}


def set_cross_entropy(logs: Tensor, codes: Tensor, allowed: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of -log p, with p the probability that a pixel has one of the classes its code allows.

    :param logs: float32 [N, K, H, W], log-probabilities
    :param codes: int64 [N, H, W]
    :param allowed: bool [codes, K]
    :param weights: float32 [codes]
    """
    table = torch.where(allowed, 0.0, -torch.inf)
    inside = torch.logsumexp(logs + table[codes].permute(0, 3, 1, 2), 1)
    weight = weights[codes]
    return -(weight * inside.clamp_min(-20)).sum() / weight.sum().clamp_min(1)


def dice(probability: Tensor, codes: Tensor) -> Tensor:
    """Dice loss of each thing in the batch, mean over things.

    :param probability: float32 [N, K, H, W]
    :param codes: int64 [N, H, W]; pixels whose code is undecided about a thing do not count for it
    """
    losses = []
    for kind in THINGS:
        is_kind = codes == kind
        undecided = (codes == UNKNOWN) | (codes == RIDER)
        if not bool(is_kind.any()):
            continue
        share = probability[:, kind].masked_fill(undecided, 0.0)
        both = share[is_kind].sum()
        losses.append(1 - (2 * both + 1) / (share.sum() + is_kind.sum() + 1))
    return torch.stack(losses).mean() if losses else probability.sum() * 0


def box_loss(distances: Tensor, boxes: Tensor) -> Tensor:
    """GIoU loss of boxes (Rezatofighi et al. 2019), mean over cells; small objects count more.

    :param distances: float32 [N, 4, h, w] to left, upper, right and lower edge [pixels], above 0
    :param boxes: like ``distances``, NaN where unknown
    """
    known = ~boxes.isnan().any(1)
    if not bool(known.any()):
        return distances.sum() * 0
    mine, its = distances.permute(0, 2, 3, 1)[known], boxes.permute(0, 2, 3, 1)[known]
    area, its_area = _area(mine), _area(its)
    common = _area(torch.minimum(mine, its))
    union = area + its_area - common
    hull = _area(torch.maximum(mine, its))
    giou = common / union - (hull - union) / hull
    weight = (its_area + 64).rsqrt()
    return ((1 - giou) * weight).sum() / weight.sum()


def _area(distances: Tensor) -> Tensor:
    left, up, right, down = distances.unbind(1)
    return (left + right) * (up + down)
