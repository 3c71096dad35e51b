"""The predictions eps, x0 and v of a network, and the conversions between them.

With ``a = sqrt(abar)`` and ``s = sqrt(1 - abar)``: ``z = a x0 + s eps`` and ``v = a eps - s x0`` (Salimans & Ho 2022).

Tensors are float [N, C, H, W]; 16-bit ones are converted to float32. ``abar`` is a float or a tensor that broadcasts,
preferably in float64 (as from :func:`per_sample`): its roots are taken before it is cast, since ``1 - abar`` of the
first timesteps has few digits in float32.

x0 from eps divides by ``sqrt(abar)``: at abar = 2.4e-9 (cosine, t = 999 of 1000) an error of eps grows 20,000-fold and
x0 is meaningless. x0- and v-predictions need no division there, so few-step models, which start at that timestep, use
those. Likewise eps from x0 divides by ``sqrt(1 - abar)``, at worst 0.006 (t = 0), where no sampler uses it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from textdifuse_ros.errors import ConfigError

PredictionType = Literal["eps", "x0", "v"]


def per_sample(values: np.ndarray, index: int | Tensor, ndim: int = 4) -> float | Tensor:
    """Look up a coefficient for one step index, or one per sample.

    :param values: float64 [S], a row of a schedule
    :param index: int, or int64 [N]
    :param ndim: number of axes of the result
    :returns: float, or float64 [N, 1, 1, 1] (``ndim`` axes) on the index's device
    """
    if not isinstance(index, Tensor):
        return float(values[index])
    table = torch.tensor(values, dtype=torch.float64, device=index.device)
    return table[index].reshape(-1, *[1] * (ndim - 1))


def lift(x: Tensor) -> Tensor:
    """Convert 16-bit floats to float32; other tensors are returned as they are.

    :param x: float
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def x0_from_eps(eps: Tensor, z_t: Tensor, abar: float | Tensor) -> Tensor:
    """Equation 8. Unstable as abar goes to 0, see the module.

    :param eps: like z_t
    :param z_t: float32 [N, C, H, W], noised
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    """
    eps, z_t = lift(eps), lift(z_t)
    a, s = _roots(abar, z_t)
    return (z_t - s * eps) / a


def eps_from_x0(x0: Tensor, z_t: Tensor, abar: float | Tensor) -> Tensor:
    """The noise that with x0 gives z_t. Unstable as abar goes to 1.

    :param x0: like z_t
    :param z_t: float32 [N, C, H, W], noised
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    """
    x0, z_t = lift(x0), lift(z_t)
    a, s = _roots(abar, z_t)
    return (z_t - a * x0) / s


def x0_from_v(v: Tensor, z_t: Tensor, abar: float | Tensor) -> Tensor:
    """``a z - s v``; stable for every abar.

    :param v: like z_t
    :param z_t: float32 [N, C, H, W], noised
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    """
    v, z_t = lift(v), lift(z_t)
    a, s = _roots(abar, z_t)
    return a * z_t - s * v


def eps_from_v(v: Tensor, z_t: Tensor, abar: float | Tensor) -> Tensor:
    """``s z + a v``; stable for every abar.

    :param v: like z_t
    :param z_t: float32 [N, C, H, W], noised
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    """
    v, z_t = lift(v), lift(z_t)
    a, s = _roots(abar, z_t)
    return s * z_t + a * v


def v_from_x0_eps(x0: Tensor, eps: Tensor, abar: float | Tensor) -> Tensor:
    """``a eps - s x0``.

    :param x0: float32 [N, C, H, W]
    :param eps: likewise
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    """
    x0, eps = lift(x0), lift(eps)
    a, s = _roots(abar, eps)
    return a * eps - s * x0


def v_from_x0(x0: Tensor, z_t: Tensor, abar: float | Tensor) -> Tensor:
    """Convert x0 to v by way of eps. Unstable as abar goes to 1.

    :param x0: like z_t
    :param z_t: float32 [N, C, H, W], noised
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    """
    return v_from_x0_eps(x0, eps_from_x0(x0, z_t, abar), abar)


def v_from_eps(eps: Tensor, z_t: Tensor, abar: float | Tensor) -> Tensor:
    """Convert eps to v by way of x0. Unstable as abar goes to 0.

    :param eps: like z_t
    :param z_t: float32 [N, C, H, W], noised
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    """
    return v_from_x0_eps(x0_from_eps(eps, z_t, abar), eps, abar)


def to_x0_eps(kind: PredictionType, output: Tensor, z_t: Tensor, abar: float | Tensor) -> tuple[Tensor, Tensor]:
    """Convert a network's output to x0 and eps.

    :param kind: of the output: ``eps``, ``x0`` or ``v``
    :param output: like z_t
    :param z_t: float32 [N, C, H, W], noised
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    :raises ConfigError: an unknown kind
    """
    output = lift(output)
    if kind == "eps":
        return x0_from_eps(output, z_t, abar), output
    if kind == "x0":
        return output, eps_from_x0(output, z_t, abar)
    if kind == "v":
        return x0_from_v(output, z_t, abar), eps_from_v(output, z_t, abar)
    raise _unknown(kind)


def target(kind: PredictionType, x0: Tensor, eps: Tensor, abar: float | Tensor) -> Tensor:
    """The regression target of a network for the clean x0 noised with eps.

    :param kind: of the network's output: ``eps``, ``x0`` or ``v``
    :param x0: float32 [N, C, H, W] in [-1, 1]
    :param eps: likewise, standard normal
    :param abar: cumulative signal coefficient, a float or float64 [N, 1, 1, 1]
    :raises ConfigError: an unknown kind
    """
    if kind == "eps":
        return eps
    if kind == "x0":
        return x0
    if kind == "v":
        return v_from_x0_eps(x0, eps, abar)
    raise _unknown(kind)


def _roots(abar: float | Tensor, like: Tensor) -> tuple[float | Tensor, float | Tensor]:
    if isinstance(abar, Tensor):
        wide = abar.double()
        return wide.sqrt().to(like), (1.0 - wide).sqrt().to(like)
    return math.sqrt(abar), math.sqrt(1.0 - abar)


def _unknown(kind: object) -> ConfigError:
    return ConfigError("prediction", "one of eps, x0, v", repr(kind))
