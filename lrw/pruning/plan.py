"""A plan across layers: which tile each gets and how many columns it keeps, for the least error within a budget.

Elimination gives each layer a curve of error over columns for every tile it may have, as a share of the energy of its
outputs; a machine, or a count, gives what they cost. Errors add up over layers, each weighed by the root of how much of
it comes out of the network: the root, because the layers behind are fitted to what reaches them (numbers in
bench/notes/pruning.md). Going down the convex hulls of all curves, always where an error is cheapest, is optimal up to
the last step (Lagrange), after which what is left is spent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.geometry import RTOL, Geometry, error_bound
from lrw.nn import WinogradConv3d
from lrw.ops import domain_conv3d, padding_sizes, transform_weight
from lrw.pruning.calibration import FEWEST, Calibration, Draw, Site
from lrw.pruning.elimination import eliminate, made_up, products
from lrw.pruning.least_squares import squared
from lrw.pruning.statistics import Wanted
from lrw.pruning.tiles import Patches, Tiles, outputs_at
from lrw.pruning.weights import effective_weights
from lrw_kernels.winograd import Tile
from lrw_kernels.winograd.tile import Triple

OUTPUTS = (2, 4)  # per axis, of tiles that are weighed against each other
VOXELS = 1 << 14  # of each layer, for its curves
LEAST = 1e-9  # of a layer's energy: less is rounding


@dataclass(frozen=True)
class Option:
    """A tile with so many columns kept, the error that comes with it, and what it costs."""

    tile: Tile
    kept: int
    error: float
    cost: float


class Unreachable(ValueError):
    """The least that layers can be brought to is above a budget."""


Cost = Callable[[str, Tile, int], float]  # of a layer with a tile and so many columns


def cheapest(options: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option]:
    """For each layer one of its `options`, so that all cost at most `budget` and their errors add up to the least.

    Raises Unreachable where even the cheapest ones cost more.
    """
    least = sum(min(option.cost for option in own) for own in options.values())
    if least > budget:
        raise Unreachable(f"budget: the least is {least:.4g}")
    hulls = {name: _hull(own) for name, own in options.items()}
    at = dict.fromkeys(hulls, 0)
    cost = sum(hull[0].cost for hull in hulls.values())
    while cost > budget:
        name = min((n for n in hulls if at[n] + 1 < len(hulls[n])), key=lambda n: _price(hulls[n], at[n]))
        cost += hulls[name][at[name] + 1].cost - hulls[name][at[name]].cost
        at[name] += 1
    return _filled({name: hull[at[name]] for name, hull in hulls.items()}, options, budget - cost)


def _filled(found: dict[str, Option], options: Mapping[str, Sequence[Option]], left: float) -> dict[str, Option]:
    """Spend what is `left` of a budget: always the change that takes most error away and still fits."""
    while True:
        better = [
            (found[name].error - option.error, name, option)
            for name, own in options.items()
            for option in own
            if option.error < found[name].error and option.cost - found[name].cost <= left
        ]
        if not better:
            return found
        _, name, option = max(better, key=lambda change: change[0])
        left -= option.cost - found[name].cost
        found = {**found, name: option}


def _hull(options: Sequence[Option]) -> list[Option]:
    """The lower convex hull of error over cost, the option of least error first."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.error, o.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _rise(hull[-2], hull[-1]) >= _rise(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _rise(first: Option, second: Option) -> float:
    """Error that each unit of cost saved adds."""
    return (second.error - first.error) / (first.cost - second.cost)


def _price(hull: Sequence[Option], at: int) -> float:
    return _rise(hull[at], hull[at + 1])


def geometries_of(layer: nn.Module, site: Site, outputs: Sequence[Any] | None = None) -> list[Geometry]:
    """With each tile that `layer` may have: a Winograd layer its own, a convolution those of so many `outputs` per
    axis, by default 2 and 4 in all combinations that its output has room for, as far as they are exact enough."""
    if isinstance(layer, WinogradConv3d):
        return [layer.geometry]
    conv: Any = checks.fitted(layer)  # type: ignore[arg-type]
    taps, padding = tuple(conv.kernel_size), padding_sizes(conv.padding, conv.kernel_size)
    size = [n + 2 * p - r + 1 for n, p, r in zip(site.input_size, padding, taps, strict=True)]
    tiles = [Tile.of(m, taps) for m in outputs] if outputs is not None else _tiles(taps, size)
    exact = [tile for tile in tiles if error_bound(tile, conv.in_channels, conv.weight.dtype) <= RTOL]
    return [Geometry(tile, padding) for tile in exact]


def options_of(
    net: nn.Module, calibration: Calibration, layers: Mapping[str, nn.Module], sites: Mapping[str, Site],
    geometries: Mapping[str, Sequence[Geometry]], cost: Cost, *, seed: int = 0,
) -> dict[str, list[Option]]:  # fmt: skip
    """All of `geometries` with all numbers of columns for each of `layers`, convolutions and Winograd layers, of
    `net`."""
    draws = {
        name: [_draw(name, geometry, sites[name], calibration, seed) for geometry in own]
        for name, own in geometries.items()
    }
    grams, energy = _grams(net, calibration, layers, sites, draws)
    wanted = Wanted(net, calibration.first(), most=inf)
    wanted.keep()  # of a network without the errors that are about to be put into it
    carry = {
        name: _carried(net, wanted, name, layer, geometries[name][0], grams[name][0]) for name, layer in layers.items()
    }
    found: dict[str, list[Option]] = {}
    for name, own in geometries.items():
        found[name] = []
        for i, geometry in enumerate(own):
            w = products(_transformed(layers[name], geometry.tile))
            costs = eliminate(grams[name][i], w).costs / max(energy[name][i], torch.finfo(torch.float64).tiny)
            errors = [0.0, *(carry[name] ** 0.5 * costs.cumsum(0)).tolist()]
            tile, kept = geometry.tile, range(geometry.tile.positions, 0, -1)
            found[name] += [Option(tile, k, e, cost(name, tile, k)) for k, e in zip(kept, errors, strict=True)]
    return found


def _carried(net: nn.Module, wanted: Wanted, name: str, layer: Any, geometry: Geometry, gram: Tensor) -> float:
    """How much of a squared error of a layer's outputs, as a share of them, comes out of the network, as one.

    The error is that of the layer with half of its columns, the others made up for: unlike noise it is of the kind that
    pruning makes, which later layers do not average away.
    """
    u = _transformed(layer, geometry.tile)
    staying = max(1, geometry.columns // 2)
    gone = set(eliminate(gram, products(u)).order[: geometry.tile.positions - staying])
    kept = tuple(p for p in range(geometry.tile.positions) if p not in gone)
    half, pruned, shares = made_up(gram, u, kept), replace(geometry, kept=kept).arguments, []

    def replaced(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], y: Tensor) -> Tensor:
        x = args[0] if args else kwargs["input"]
        other = domain_conv3d(x, half, layer.bias, pruned)
        shares.append(squared(other - y) / max(squared(y), torch.finfo(torch.float64).tiny))
        return other

    handle = net.get_submodule(name).register_forward_hook(replaced, with_kwargs=True)
    try:
        apart = wanted.distance(net)
    finally:
        handle.remove()
    share = sum(shares) / max(len(shares), 1)
    return apart**2 / share if apart is not None and share > LEAST else 1.0  # nothing is known of it


def _transformed(layer: Any, tile: Tile) -> Tensor:
    """U [T, Cin, Cout] of a convolution or a Winograd layer."""
    if isinstance(layer, WinogradConv3d):
        return effective_weights(layer)
    return transform_weight(layer.weight.detach(), tile)


def _tiles(taps: Triple, size: Sequence[int]) -> list[Tile]:
    """OUTPUTS per axis where the filter has taps and the output has room for them, alike in the plane."""
    d, h, w = (
        [m for m in OUTPUTS if m == OUTPUTS[0] or m <= n] if r > 1 else [1] for r, n in zip(taps, size, strict=True)
    )
    return [Tile.of((a, b, c), taps) for a in d for b in h for c in w if b == c or h != w]


def _draw(name: str, geometry: Geometry, site: Site, calibration: Calibration, seed: int) -> Draw:
    tiles = max(FEWEST, VOXELS / prod(geometry.tile.outputs))
    return Draw(name, geometry, tiles / (calibration.samples * site.calls), seed)


def _grams(
    net: nn.Module, calibration: Calibration, layers: Mapping[str, nn.Module], sites: Mapping[str, Site],
    draws: Mapping[str, Sequence[Draw]],
) -> tuple[dict[str, list[Tensor]], dict[str, list[float]]]:  # fmt: skip
    """G [T, T] of each layer and tile, and the sum of squares of the outputs it is of; one pass over the samples."""
    grams: dict[str, list[Any]] = {name: [0.0] * len(own) for name, own in draws.items()}
    energy = {name: [0.0] * len(own) for name, own in draws.items()}

    def see(name: str, call: int, batch: int, x: Tensor, y: Tensor) -> None:
        bias: Any = layers[name].bias
        for i, own in enumerate(draws[name]):
            tile = own.geometry.tile
            chosen = own.chosen(calibration.marks[batch], call, len(x), y.shape[2:])
            grams[name][i] += Tiles.of([Patches.of(x, own.geometry, chosen)], tile).gram()
            energy[name][i] += squared(outputs_at(y, bias, tile, chosen))

    calibration.watch(net, layers, see, {name: sites[name].calls for name in layers})
    return grams, energy
