"""What each layer of a network loses: the same share everywhere, or as a plan says that keeps to a budget of multiplies
or of milliseconds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import torch
from torch import nn

from lrw import checks
from lrw.geometry import Geometry
from lrw.nn import WinogradConv3d
from lrw.ops import TileLike, padding_sizes
from lrw.pruning.calibration import Calibration, Site
from lrw.pruning.plan import Cost, cheapest, geometries_of, options_of
from lrw_kernels.choice.convolution import Convolution
from lrw_kernels.winograd import Tile, column_cost, direct_cost
from lrw_kernels.winograd.tile import triple

AUTO = "auto"
OUTPUTS = 2  # per axis, of tiles where the same share goes everywhere


class Share(NamedTuple):
    """A layer's tile, and the share of its columns that goes."""

    tile: TileLike
    dropped: float


class Plan(NamedTuple):
    """What each layer loses; where milliseconds are saved, those of the network before, and of each layer before and
    after by what was timed."""

    shares: dict[str, Share]
    ms: float | None = None
    layers_ms: dict[str, tuple[float, float]] | None = None


@dataclass(frozen=True)
class Budget:
    """One of three: a share of columns to drop, of direct convolution's multiplies to leave, times as fast to be.

    Raises ValueError where not exactly one is given, or it is not accepted.
    """

    sparsity: float | None = None
    multiplies: float | None = None
    speedup: float | None = None

    def __post_init__(self) -> None:
        given = sum(value is not None for value in (self.sparsity, self.multiplies, self.speedup))
        if given != 1:
            raise ValueError(f"sparsity, multiplies, speedup: {given} are given; accepted is one of them")
        if self.sparsity is not None:
            checks.check_share(self.sparsity, "sparsity")
        if self.multiplies is not None and not _number(self.multiplies, 0, 1):
            raise ValueError(
                f"multiplies: {self.multiplies!r}; accepted is a share of direct convolution's, above 0 up to 1"
            )
        if self.speedup is not None and not _number(self.speedup, 1, inf):
            raise ValueError(f"speedup: {self.speedup!r}; accepted is a number above 1")


def uniform(layers: Mapping[str, Any], sparsity: float, tile: TileLike | str) -> Plan:
    """The same share for all of `layers`."""
    return Plan(dict.fromkeys(layers, Share(OUTPUTS if isinstance(tile, str) else tile, sparsity)))


def planned(
    net: nn.Module, calibration: Calibration, layers: Mapping[str, Any], sites: Mapping[str, Site], budget: Budget,
    tile: TileLike | str, ms: float | None = None, *, seed: int = 0,
) -> Plan:  # fmt: skip
    """Shares of `layers`, convolutions and Winograd layers of `net`, that keep to a budget of multiplies, or of
    milliseconds where `net` takes `ms` for one sample with each layer computed the fastest way there is.

    Raises ValueError naming the budget where the least that is left is above it.
    """
    if budget.multiplies is not None:
        allowed = _multiplies(layers, sites, budget.multiplies)
    else:
        assert budget.speedup is not None
        assert ms is not None
        allowed = _milliseconds(layers, sites, budget.speedup, ms)
    geometries = _within(layers, sites, tile, allowed)
    plan = cheapest(options_of(net, calibration, layers, sites, geometries, allowed.cost, seed=seed), allowed.most)
    shares = {name: Share(option.tile, 1 - option.kept / option.tile.positions) for name, option in plan.items()}
    if allowed.now is None:
        return Plan(shares)
    return Plan(shares, ms, {name: (allowed.now[name], option.cost) for name, option in plan.items()})


def check_multiplies(layers: Mapping[str, Any], sites: Mapping[str, Site], share: float) -> None:
    """Raises ValueError where more than a `share` of direct convolution's multiplies is left of `layers` with a column
    in each."""
    _within(layers, sites, AUTO, _multiplies(layers, sites, share))


class _Allowed(NamedTuple):
    """What a layer with a tile and so many columns costs, how much all may together, what is said where the least is
    more; milliseconds of each layer now, where these are the cost."""

    cost: Cost
    most: float
    refusal: Callable[[float], str]
    now: dict[str, float] | None = None


def _within(
    layers: Mapping[str, Any], sites: Mapping[str, Site], tile: TileLike | str, allowed: _Allowed
) -> dict[str, list[Geometry]]:
    """What each layer may become. Raises ValueError where one column of each costs more than what is `allowed`."""
    outputs = None if isinstance(tile, str) else [tile]
    found = {name: geometries_of(layer, sites[name], outputs) for name, layer in layers.items()}
    least = sum(min(allowed.cost(name, of.tile, 1) for of in own) for name, own in found.items())
    if least > allowed.most:
        raise ValueError(allowed.refusal(least))
    return found


def _multiplies(layers: Mapping[str, Any], sites: Mapping[str, Site], share: float) -> _Allowed:
    convolutions = {name: _convolution(layer, sites[name]) for name, layer in layers.items()}
    direct = sum(
        sites[name].passes * direct_cost(of.taps, of.cin, of.cout, of.output).multiplies
        for name, of in convolutions.items()
    )

    def cost(name: str, tile: Tile, kept: int) -> float:
        of = convolutions[name]
        return sites[name].passes * kept * column_cost(tile, of.cin, of.cout, of.output)

    def refusal(least: float) -> str:
        return f"multiplies: {share}; a column in each layer takes {least / direct:.2g} already"

    return _Allowed(cost, share * direct, refusal)


def _milliseconds(layers: Mapping[str, Any], sites: Mapping[str, Site], speedup: float, whole: float) -> _Allowed:
    """Layers are timed here, on torch's threads; the rest of the network takes what is left of `whole`."""
    from lrw_kernels.choice.measured import Columns, Measured  # LLVM comes along

    threads = torch.get_num_threads()
    dense, columns = Measured(threads), Columns(threads)
    convolutions = {name: _convolution(layer, sites[name]) for name, layer in layers.items()}

    def cost(name: str, tile: Tile, kept: int) -> float:
        return sites[name].passes * columns(convolutions[name], tile, kept)

    def taken(name: str, layer: Any) -> float:
        if isinstance(layer, WinogradConv3d):
            return cost(name, layer.geometry.tile, layer.geometry.columns)
        return sites[name].passes * dense.milliseconds(convolutions[name])

    now = {name: taken(name, layer) for name, layer in layers.items()}
    rest = max(whole - sum(now.values()), 0.0)

    def refusal(least: float) -> str:
        most = whole / (rest + least)
        others = f"{rest:.3g} of {whole:.3g} ms are not these layers'"
        return f"speedup: {speedup}; accepted is up to {most:.2g} here, as {others}"

    return _Allowed(cost, whole / speedup - rest, refusal, now)


def _convolution(layer: Any, site: Site) -> Convolution:
    """`layer` on one volume."""
    size = triple(site.input_size, "input_size")
    if isinstance(layer, WinogradConv3d):
        taps, padding = layer.geometry.tile.kernel_size, layer.geometry.padding
        return Convolution(taps, layer.in_channels, layer.out_channels, 1, size, padding)
    conv: Any = checks.fitted(layer)
    taps, padding = triple(conv.kernel_size, "kernel_size"), padding_sizes(conv.padding, conv.kernel_size)
    return Convolution(taps, conv.in_channels, conv.out_channels, 1, size, padding)


def _number(value: object, above: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value <= most
