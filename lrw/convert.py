"""nn.Conv3d -> WinogradConv3d, throughout a network, and back as nearly as that can be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from lrw import checks
from lrw.geometry import RTOL, error_bound
from lrw.layers import (
    check_replaceable,
    copied,
    input_sizes,
    named_layers,
    replace_layers,
    tied,
    winograd_layers,
)
from lrw.nn import WinogradConv3d, WinogradLayer
from lrw.ops import TileLike, padding_sizes
from lrw.reading import read_weights
from lrw.typed import typed
from lrw_kernels.choice.convolution import Convolution, prior
from lrw_kernels.choice.estimate import RATES, estimated_time
from lrw_kernels.winograd import Tile, direct_cost, output_gram
from lrw_kernels.winograd.tile import Triple, triple

UNNAMED = "no tile is given for it"
CANNOT_GAIN = "by formulas a direct convolution of its size is no slower"
AUTO = "auto"
AUTO_RTOL = 1e-4  # of the tiles that are chosen
LARGE = (64, 64, 64)  # the size that is taken where none is known


@dataclass
class ConversionReport:
    """Which convolutions became Winograd layers (name -> tile) and which did not (name -> reason)."""

    converted: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name}: {tile}" for name, tile in self.converted.items()]
        return "\n".join(lines + [f"{name}: left as it is, {reason}" for name, reason in self.skipped.items()])


@typed
def to_winograd(
    net: nn.Module,
    tile: TileLike | str | Mapping[str, TileLike] = 2,
    *,
    example_input: Tensor | None = None,
    filter: Callable[[str, nn.Conv3d], bool] | None = None,
    rtol: float = RTOL,
    units: str = "none",
    backend: str = "auto",
    inplace: bool = False,
) -> nn.Module:
    """A copy of `net` (or `net` itself, `inplace`) whose suitable Conv3d layers are WinogradConv3d ones.

    `tile` is outputs per axis; along an axis with a one-tap filter an int means one. "auto" is what formulas find
    fastest of those whose error bound is within AUTO_RTOL, for the sizes that an `example_input` [N, C, D, H, W] has at
    each layer, or for large ones. Given by layer name, layers that are not named are left out; `filter(name, conv)` may
    leave out others. Left as they are, too, are layers that by formulas cannot gain, where an `example_input` says
    their sizes (of one input channel, of volumes smaller than a tile), layers where the tile's error bound (largest
    error over largest output, with U rounded to the weights' dtype) exceeds `rtol`, that share a parameter with another
    module, whose weight a `forward` around them reads as well (its source says so) or is computed from others
    (torch.nn.utils.prune, weight_norm), or on whose instance hooks or methods were set. Filters cut out by hand are
    taken as their tensors are. Whoever trains all weights of tiles like F(4,3) wants them in `units` of their
    "importance", in which one learning rate suits all (`WinogradConv3d`). The result computes the same function up to
    rounding; `.report` lists what was converted and what was skipped and why. Rounding the result (`net.half()`) rounds
    U: convert a network in the dtype it is to have.
    NaN and infinity in an input spread further than in torch, as NaN to at most all outputs of the tiles that read them
    (`lrw.check` finds the layer). Raises ValueError, with nothing changed, for non-finite weights, unknown tiles and
    units, a network that cannot be copied, or one with nothing to convert.
    """
    checks.check_unwrapped(net)
    checks.check_finite(net)
    if isinstance(tile, Mapping):
        unknown = sorted(set(tile) - set(named_layers(net, nn.Conv3d)))
        if unknown:
            raise ValueError(f"tile: names {unknown[0]!r}, which is no nn.Conv3d of this network")
    for asked in tile.values() if isinstance(tile, Mapping) else [tile]:
        if isinstance(asked, str) and asked != AUTO:
            raise ValueError(f"tile: {asked!r}; accepted are outputs per axis and {AUTO!r}")
    sizes = {} if example_input is None else input_sizes(net, example_input, nn.Conv3d)
    new, report = winograd_layers_for(net, tile, sizes, filter, rtol, backend, units)
    if not new:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in report.skipped.items())
        raise ValueError(f"net: no layer to convert ({reasons or 'it holds no nn.Conv3d'})")
    result = replace_layers(net if inplace else copied(net), new)
    result.report = report  # type: ignore[assignment]
    return result


def winograd_layers_for(
    net: nn.Module,
    tile: TileLike | str | Mapping[str, TileLike],
    sizes: Mapping[str, Triple],
    filter: Callable[[str, nn.Conv3d], bool] | None = None,
    rtol: float = RTOL,
    backend: str = "auto",
    units: str = "none",
) -> tuple[dict[str, nn.Module], ConversionReport]:
    """(the Winograd layers that come in the places of convolutions of `net`, which do and why others do not).

    `sizes` are those of layers' inputs where they are known; all else is as in `to_winograd`. `net` stays as it is.
    """
    report, new, held = ConversionReport(), dict[str, nn.Module](), read_weights(net) | tied(net)
    for name, given in named_layers(net, nn.Conv3d).items():
        conv = checks.fitted(given)
        reason = checks.unsuited(conv) or held.get(name)
        if reason is None and filter is not None and not filter(name, given):
            reason = "left out by the filter"
        if reason is None and isinstance(tile, Mapping) and name not in tile:
            reason = UNNAMED
        if reason is None:
            asked, size = tile[name] if isinstance(tile, Mapping) else tile, sizes.get(name)
            own = _tile(asked, _convolution(conv, LARGE if size is None else size), sized=size is not None)
            reason = CANNOT_GAIN if own is None else None
        if reason is None and own is not None:
            layer = WinogradConv3d.from_conv3d(conv, own, backend, units)
            reason = _too_inaccurate(layer, rtol)
        if reason is None:
            new[name] = layer
            report.converted[name] = layer.geometry.tile.name
        else:
            report.skipped[name] = reason
    return new, report


def _convolution(conv: nn.Conv3d, size: Triple) -> Convolution:
    """`conv` on one volume of `size`."""
    taps = triple(conv.kernel_size, "kernel_size")
    padding = padding_sizes(conv.padding, taps)
    return Convolution(taps, conv.in_channels, conv.out_channels, 1, size, padding)


def _tile(asked: TileLike | str, of: Convolution, *, sized: bool) -> TileLike | None:
    """The tile that is asked for or chosen; None where a direct convolution is no slower by formulas, which nobody asks
    of a tile that is given unless the layer's size is known (`sized`)."""
    if not isinstance(asked, str) and not sized:
        return asked
    tile = prior(AUTO_RTOL)(of) if isinstance(asked, str) else Tile.of(asked, of.taps)
    if tile is None:
        return None
    direct = direct_cost(of.taps, of.cin, of.cout, of.output).flops / RATES.flops
    return tile if estimated_time(tile, of.cin, of.cout, of.output) < direct else None


def _too_inaccurate(layer: WinogradConv3d, rtol: float) -> str | None:
    tile = layer.geometry.tile
    bound = error_bound(tile, layer.in_channels, layer.weight.dtype)
    return (
        None if bound <= rtol else f"{tile.name} has an error bound of {bound:.2g}; accepted is up to rtol = {rtol:g}"
    )


@typed
def to_spatial(net: nn.Module, *, inplace: bool = False) -> nn.Module:
    """A copy of `net` (or `net` itself, `inplace`) whose Winograd layers are nn.Conv3d again, as nearly as they can be.

    A Winograd layer with free or pruned weights is no convolution; this is the projection on those: the filter whose
    output is nearest for white-noise input. `.report` gives for each layer how far it is off, root mean square, as a
    share of the output. Raises ValueError, with nothing changed, for Winograd-ReLU layers, layers whose weights are
    computed from others or on whose instance hooks or methods were set, and networks without Winograd layers.
    """
    checks.check_unwrapped(net)
    layers = winograd_layers(net)
    check_replaceable(net, layers)
    for name, layer in layers.items():
        if layer.geometry.rectified:
            raise ValueError(f"net: {name!r} is a Winograd-ReLU layer; there is no convolution near it")
    new, report = dict[str, nn.Module](), dict[str, float]()
    for name, layer in layers.items():
        new[name], report[name] = _projected(layer)
    result = replace_layers(net if inplace else copied(net), new)
    result.report = report  # type: ignore[assignment]
    return result


@torch.no_grad()
def _projected(layer: WinogradLayer) -> tuple[nn.Conv3d, float]:
    """(the nearest convolution, the share of the output it leaves): min over w of (G w - U)^T H (G w - U)."""
    tile, u = layer.geometry.tile, layer.weights().detach()
    d, h, w = (axis.array("G") for axis in tile.axes)
    table, gram = torch.from_numpy(np.kron(np.kron(d, h), w)).double(), torch.from_numpy(output_gram(tile))
    whole = torch.zeros(tile.positions, layer.in_channels * layer.out_channels, dtype=torch.float64)
    whole[list(layer.geometry.positions)] = u.flatten(1).double().cpu()
    weighted = table.T @ gram  # [r^3, T]
    taps = torch.linalg.solve(weighted @ table, weighted @ whole)  # [r^3, Cin * Cout]
    left, all_of_it = (float((part * (gram @ part)).sum().clamp_min(0)) for part in (table @ taps - whole, whole))
    conv = nn.Conv3d(layer.in_channels, layer.out_channels, tile.kernel_size, padding=layer.geometry.padding,
                     bias=layer.bias is not None, device=u.device, dtype=u.dtype)  # fmt: skip
    shape = (*tile.kernel_size, layer.in_channels, layer.out_channels)
    conv.weight.copy_(taps.view(shape).permute(4, 3, 0, 1, 2))
    if conv.bias is not None and layer.bias is not None:
        conv.bias.copy_(layer.bias)
    conv.weight.requires_grad_(layer.trains_weights)
    if conv.bias is not None and layer.bias is not None:
        conv.bias.requires_grad_(layer.bias.requires_grad)
    return conv.train(layer.training), sqrt(left / all_of_it) if all_of_it > 0 else 0.0
