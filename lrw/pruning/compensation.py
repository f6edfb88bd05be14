"""Pruning one layer so that its outputs stay: which weights go, and what the others become (design: ours).

Columns go by backward elimination, the others are fitted to the outputs that were wanted by least squares.
"""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import nan, sqrt
from sys import float_info

import torch
from torch import Tensor

from lrw.pruning.elimination import Elimination, eliminate, made_up, products
from lrw.pruning.granularity import COLUMN, Granularity
from lrw.pruning.least_squares import RIDGE, fit, squared
from lrw.pruning.tiles import Tiles

Block = tuple[int, int]  # of input and of output channels


@dataclass(frozen=True)
class Errors:
    """Of a layer's outputs, root mean square over that of the outputs that were wanted, weighed where tiles are: as
    elimination predicts it (with its channels weighed too), of the cut alone, and as fitted."""

    predicted: float
    cut: float
    fitted: float


@dataclass(frozen=True)
class Compensated:
    """mask, bool [T, 1 or Cin, 1 or Cout]: what is kept; u [T, Cin, Cout] with what it became, zero elsewhere."""

    mask: Tensor
    u: Tensor
    errors: Errors


def compensated(tiles: Tiles, wanted: Tensor, u: Tensor, sparsity: float, granularity: Granularity = COLUMN, *,
                there: Tensor | None = None, channels: Tensor | None = None,
                ridge: float = RIDGE) -> Compensated:  # fmt: skip
    """Drop a share of `sparsity` of the columns of u [T, Cin, Cout] (of their blocks, where `granularity` has some) and
    fit the others to `wanted` [m^3, tiles, Cout]. A column at least is kept.

    there: a mask of what was not dropped before, zero in u, which counts and stays so. channels [Cout]: what errors of
    each output channel are multiplied with before columns are compared.
    """
    weighed = u if channels is None else u * channels.to(u)
    mask, predicted = eliminated(tiles, weighed, sparsity, granularity)
    if channels is not None:
        each = wanted.double().square().sum((0, 1))
        predicted *= float(each.sum() / (each * channels.to(each).square()).sum().clamp_min(float_info.min))
    return refitted(tiles, wanted, u, mask if there is None else mask & there, predicted=predicted, ridge=ridge)


def eliminated(tiles: Tiles, u: Tensor, sparsity: float, granularity: Granularity = COLUMN) -> tuple[Tensor, float]:
    """(what is kept as a layer's mask, the squared error that is predicted) of dropping a share of `sparsity`."""
    t, cin, cout = u.shape
    inputs, outputs = granularity.channels(cin, cout)
    grams = [tiles.gram(own) for own in inputs]
    orders = {
        (i, o): eliminate(grams[i], products(u[:, own or slice(None), of]))
        for i, own in enumerate(inputs)
        for o, of in enumerate(outputs)
    }
    sizes = granularity.weights(cin, cout)
    blocks = torch.ones(t, *sizes.shape, dtype=torch.bool, device=u.device)
    steps = _cheapest(orders, sizes, sparsity * t * cin * cout)
    for (i, o), position, _ in steps:
        blocks[position, i, o] = False
    return granularity.mask(blocks, cin, cout), sum(cost for *_, cost in steps)


def _cheapest(orders: dict[Block, Elimination], sizes: Tensor, weights: float) -> list[tuple[Block, int, float]]:
    """(block, position, cost) of the first steps of all eliminations together, each in its own order.

    The next one that costs least for each of its block's `sizes` weights comes first, until about `weights` are gone.
    """
    costs = {block: found.costs.tolist() for block, found in orders.items()}
    each = {block: float(sizes[block]) for block in orders}
    heads = [(own[0] / each[block], block, 0) for block, own in costs.items() if own]
    heapify(heads)
    steps: list[tuple[Block, int, float]] = []
    gone = 0.0
    while heads and gone + each[heads[0][1]] / 2 <= weights:
        _, block, at = heappop(heads)
        steps.append((block, orders[block].order[at], costs[block][at]))
        gone += each[block]
        if at + 1 < len(costs[block]):
            heappush(heads, (costs[block][at + 1] / each[block], block, at + 1))
    return steps


def refitted(tiles: Tiles, wanted: Tensor, u: Tensor, mask: Tensor, *, predicted: float = nan,
             ridge: float = RIDGE) -> Compensated:  # fmt: skip
    """Fit what `mask` keeps of u [T, Cin, Cout] to `wanted` [m^3, tiles, Cout]; `predicted` is a squared error.

    It starts from the weights that elimination knows to be near, or from those of u where these are nearer.
    """
    u, whole = u.to(wanted.dtype), mask.expand(-1, u.shape[1], u.shape[2])
    new, cut, fitted = torch.zeros_like(u), 0.0, 0.0
    for channels in _alike(mask, u.shape[2]):
        own, target, part = whole[:, :, channels[:1]], wanted[:, :, channels], u[:, :, channels]
        kept = own.flatten(1).any(1).nonzero().flatten().tolist()
        if not kept:
            cut, fitted = cut + squared(target), fitted + squared(target)
            continue
        holes = None if bool(own[kept].all()) else own[kept]
        seen = tiles.only(kept)
        plain = squared(target - seen.outputs((part * own)[kept]))
        found = fit(seen, target, _nearest(tiles, part, own)[kept], mask=holes, ridge=ridge)
        if found.after > plain:
            found = fit(seen, target, (part * own)[kept], mask=holes, ridge=ridge)
        for at, position in enumerate(kept):
            new[position][:, channels] = found.u[at]
        cut, fitted = cut + plain, fitted + found.after
    energy = squared(wanted)
    shares = [sqrt(value / energy) if energy > 0 else 0.0 for value in (predicted, cut, fitted)]
    return Compensated(mask, new, Errors(*shares))


def _alike(mask: Tensor, cout: int) -> list[Tensor]:
    """Output channels [n] of which the same weights are kept, group by group."""
    if mask.shape[2] == 1:
        return [torch.arange(cout, device=mask.device)]
    return _groups(mask.flatten(0, 1))


def _nearest(tiles: Tiles, u: Tensor, own: Tensor) -> Tensor:
    """u [T, Cin, n] where `own` [T, Cin, 1] is True, what is dropped made up for as elimination does it; zero
    elsewhere."""
    new = torch.zeros_like(u)
    for channels in _groups(own[:, :, 0]):
        kept = own[:, channels[0], 0].nonzero().flatten()
        if len(kept):
            gram = tiles.gram(None if len(channels) == u.shape[1] else channels)
            new[kept[:, None], channels] = made_up(gram, u[:, channels], kept.tolist())
    return new


def _groups(columns: Tensor) -> list[Tensor]:
    """The numbers of the columns of bool [rows, columns] that are equal, group by group."""
    _, group = columns.unique(dim=1, return_inverse=True)
    return [(group == g).nonzero().flatten() for g in range(int(group.max()) + 1)]
