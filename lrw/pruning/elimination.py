"""Which columns go: backward elimination by how positions work together on a layer's inputs.

With G [T, T] the sum of phi phi^T over output voxels (mean over channels), a change D of the weights changes the
outputs by tr(D^T G D), squared, as far as channels have nothing to do with each other. Dropping position p and letting
the others make up for it costs |U_p|^2 / (G^-1)_pp: optimal brain surgeon (Hassibi, Stork 1992), for the columns of a
linear layer, where it is exact.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-4  # of a position's own energy: rounding must not make two of them look alike


class Elimination(NamedTuple):
    """The positions in the order in which they go, all but the last, and what each adds to the squared error of the
    outputs, those before it gone: costs [T - 1], float64."""

    order: tuple[int, ...]
    costs: Tensor


def products(weights: Tensor) -> Tensor:
    """U U^T [T, T], float64, of weights [T, ...]: all that elimination has to know of them."""
    u = weights.flatten(1).double()
    return u @ u.T


def eliminate(gram: Tensor, products: Tensor) -> Elimination:
    """Drop positions one by one, each time the one that costs least; of equals the lower number.

    gram: G [T, T], products: U U^T [T, T], both float64. How positions are scaled against their weights changes
    nothing. Positions whose features or weights are always zero go first and cost nothing.
    """
    units = _units(gram)
    roots = gram.diagonal().clamp_min(0).sqrt()
    w, inverse = products * roots[:, None] * roots, torch.linalg.inv(_regular(gram, units))
    there = torch.ones(len(w), dtype=torch.bool, device=w.device)
    order, costs = [], []
    for _ in range(len(w) - 1):
        each = torch.where(there, w.diagonal().clamp_min(0) / inverse.diagonal(), torch.inf)
        p = int(each.argmin())
        order.append(p)
        costs.append(each[p])
        there[p] = False
        step = inverse[:, p] / inverse[p, p]  # the others' change, for a unit of p
        w = w - torch.outer(step, w[p])
        w = w - torch.outer(w[:, p], step)
        inverse = inverse - torch.outer(step, inverse[p])
        inverse[p, p] = 1.0  # gone: any number but zero
    return Elimination(tuple(order), torch.stack(costs) if costs else gram.new_zeros(0))


def made_up(gram: Tensor, weights: Tensor, kept: Sequence[int]) -> Tensor:
    """Weights [K, ...] at which the `kept` positions come nearest to what all T of `weights` [T, ...] compute.

    As far as G [T, T] tells: U_K + (G_KK)^-1 G_KD U_D, D the positions that are dropped.
    """
    at, staying = list(kept), set(kept)
    dropped = [p for p in range(len(gram)) if p not in staying]
    units = _units(gram)
    g = _regular(gram, units)[at]
    share = torch.linalg.solve(g[:, at], g[:, dropped]) * units[dropped] / units[at, None]
    return weights[at] + torch.tensordot(share.to(weights), weights[dropped], dims=1)


def _regular(gram: Tensor, units: Tensor) -> Tensor:
    """G in units in which every position's energy is one, and a little more of it."""
    return gram / units[:, None] / units + torch.eye(len(gram), dtype=gram.dtype, device=gram.device).mul_(RIDGE)


def _units(gram: Tensor) -> Tensor:
    """The root of each position's energy [T]; one where there is none."""
    energy = gram.diagonal()
    return torch.where(energy > 0, energy, 1.0).sqrt()
