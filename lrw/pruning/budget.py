"""What each layer of a network loses: the same share everywhere, or as a plan says that keeps to a budget of multiplies
or of milliseconds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from lrw import checks
from lrw.nn import WinogradConv3d
from lrw.ops import TileLike, padding_sizes
from lrw.pruning.calibration import Calibration, Site
from lrw.pruning.plan import Option, Unreachable, cheapest, options_of
from lrw_kernels.choice.convolution import Convolution
from lrw_kernels.winograd import Tile, column_cost, direct_cost
from lrw_kernels.winograd.tile import Triple, triple

AUTO = "auto"
OUTPUTS = 2  # per axis, of tiles where the same share goes everywhere


class Share(NamedTuple):
    """A layer's tile, and the share of its columns that goes."""

    tile: TileLike
    dropped: float


def uniform(layers: Mapping[str, Any], sparsity: float, tile: TileLike | str) -> dict[str, Share]:
    """The same for all of `layers`."""
    return dict.fromkeys(layers, Share(OUTPUTS if isinstance(tile, str) else tile, sparsity))


def planned(
    net: nn.Module, calibration: Calibration, layers: Mapping[str, Any], sites: Mapping[str, Site], multiplies: float,
    tile: TileLike | str, *, seed: int = 0,
) -> dict[str, Share]:  # fmt: skip
    """Shares of `layers`, convolutions and Winograd layers of `net`, after which a share of `multiplies` is left of
    those that direct convolution takes for all of them. Raises ValueError naming `multiplies` where none is."""
    direct = sum(_direct(layer, sites[name]) for name, layer in layers.items())

    def cost(name: str, of: Tile, kept: int) -> float:
        conv = _convolution(layers[name], sites[name])
        return float(sites[name].calls * kept * column_cost(of, conv.cin, conv.cout, conv.output))

    options = options_of(net, calibration, layers, sites, cost, _tiles(tile), seed=seed)
    try:
        return _shares(cheapest(options, multiplies * direct))
    except Unreachable as error:
        least = error.least / direct
        raise ValueError(f"multiplies: {multiplies}; a column in each layer takes {least:.2g} already") from error


def planned_in_time(
    net: nn.Module, calibration: Calibration, layers: Mapping[str, Any], sites: Mapping[str, Site], speedup: float,
    whole: float, tile: TileLike | str, *, seed: int = 0,
) -> dict[str, Share]:  # fmt: skip
    """Shares of `layers` after which `net` should take `whole` / `speedup` milliseconds for one sample, where it takes
    `whole` with each layer computed the fastest way there is, on torch's threads. Layers are timed here.

    Raises ValueError naming `speedup` where what is no such layer takes longer than that.
    """
    from lrw_kernels.choice.measured import Columns, Measured  # LLVM comes along

    threads = torch.get_num_threads()
    dense, columns = Measured(threads), Columns(threads)
    convolutions = {name: _convolution(layer, sites[name]) for name, layer in layers.items()}
    taken = sum(sites[name].calls * dense.milliseconds(of) for name, of in convolutions.items())
    rest = max(whole - taken, 0.0)

    def cost(name: str, of: Tile, kept: int) -> float:
        return sites[name].calls * columns(convolutions[name], of, kept)

    options = options_of(net, calibration, layers, sites, cost, _tiles(tile), seed=seed)
    try:
        return _shares(cheapest(options, whole / speedup - rest))
    except Unreachable as error:
        most = whole / (rest + error.least)
        text = f"accepted is up to {most:.2g} here, as {rest:.3g} of {whole:.3g} ms are not these layers'"
        raise ValueError(f"speedup: {speedup}; {text}") from error


def _shares(plan: Mapping[str, Option]) -> dict[str, Share]:
    return {name: Share(option.tile, 1 - option.kept / option.tile.positions) for name, option in plan.items()}


def _tiles(tile: TileLike | str) -> list[TileLike] | None:
    return None if isinstance(tile, str) else [tile]


def _convolution(layer: Any, site: Site) -> Convolution:
    """`layer` on one sample."""
    winograd = isinstance(layer, WinogradConv3d)
    taps = layer.geometry.tile.kernel_size if winograd else triple(checks.fitted(layer).kernel_size, "kernel_size")
    size = triple(site.input_size, "input_size")
    return Convolution(taps, layer.in_channels, layer.out_channels, 1, size, _padding(layer))


def _direct(layer: Any, site: Site) -> float:
    """Multiplies of direct convolution in the place of `layer`, for one sample."""
    of = _convolution(layer, site)
    return float(site.calls * direct_cost(of.taps, of.cin, of.cout, of.output).multiplies)


def _padding(layer: Any) -> Triple:
    if isinstance(layer, WinogradConv3d):
        return layer.geometry.padding
    conv: Any = checks.fitted(layer)
    return padding_sizes(conv.padding, conv.kernel_size)
