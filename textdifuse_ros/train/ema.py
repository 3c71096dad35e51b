"""Exponential moving average of the weights, which is what checkpoints hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel


def ema_model(model: nn.Module, decay: float) -> AveragedModel:
    """Create the moving average of a model; ``update_parameters`` takes a step.

    Update ``n`` keeps the share ``min(decay, (1 + n) / (10 + n))`` of the average, so that the random first weights
    are soon forgotten.

    :param model: averaged from its present weights on
    :param decay: share of the average that a late update keeps, in [0, 1)
    """

    @torch.no_grad()
    def update(averages: PARAM_LIST, weights: PARAM_LIST, count: Tensor | int) -> None:
        n = int(count)
        keep = min(decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(averages, weights, 1 - keep)

    average = AveragedModel(model, multi_avg_fn=update).requires_grad_(False)
    # The first update would otherwise replace the first weights instead of averaging with them.
    average.n_averaged += 1
    return average
