"""What each layer of a network loses: the same share everywhere, or as a plan says that keeps to a budget."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from lrw import checks
from lrw.nn import WinogradConv3d
from lrw.ops import TileLike, padding_sizes
from lrw.pruning.calibration import Calibration, Site
from lrw.pruning.plan import Unreachable, cheapest, options_of
from lrw_kernels.winograd import Tile, column_cost, direct_cost
from lrw_kernels.winograd.tile import Triple

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
        layer, site = layers[name], sites[name]
        size = of.output_size(site.input_size, _padding(layer))
        return float(site.calls * kept * column_cost(of, layer.in_channels, layer.out_channels, size))

    options = options_of(net, calibration, layers, sites, cost, None if isinstance(tile, str) else [tile], seed=seed)
    try:
        plan = cheapest(options, multiplies * direct)
    except Unreachable as error:
        least = error.least / direct
        raise ValueError(f"multiplies: {multiplies}; a column in each layer takes {least:.2g} already") from error
    return {name: Share(option.tile, 1 - option.kept / option.tile.positions) for name, option in plan.items()}


def _direct(layer: Any, site: Site) -> float:
    """Multiplies of direct convolution in the place of `layer`, for one sample."""
    winograd = isinstance(layer, WinogradConv3d)
    taps = layer.geometry.tile.kernel_size if winograd else checks.fitted(layer).kernel_size
    size = [n + 2 * p - r + 1 for n, p, r in zip(site.input_size, _padding(layer), taps, strict=True)]
    return float(site.calls * direct_cost(taps, layer.in_channels, layer.out_channels, size).multiplies)


def _padding(layer: Any) -> Triple:
    if isinstance(layer, WinogradConv3d):
        return layer.geometry.padding
    conv: Any = checks.fitted(layer)
    return padding_sizes(conv.padding, conv.kernel_size)
