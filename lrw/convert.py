"""nn.Conv3d -> WinogradConv3d, throughout a network."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import nn

from lrw import checks
from lrw.layers import named_layers, replace_layers
from lrw.nn import WinogradConv3d
from lrw.operators import compute_dtype
from lrw.ops import TileLike
from lrw_kernels.winograd import spatial_error


@dataclass
class ConversionReport:
    """Which convolutions became Winograd layers (name -> tile) and which did not (name -> reason)."""

    converted: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name}: {tile}" for name, tile in self.converted.items()]
        return "\n".join(lines + [f"{name}: left as it is, {reason}" for name, reason in self.skipped.items()])


def to_winograd(
    net: nn.Module,
    tile: TileLike = 2,
    *,
    filter: Callable[[str, nn.Conv3d], bool] | None = None,
    rtol: float = 1e-2,
    backend: str = "auto",
    inplace: bool = False,
) -> nn.Module:
    """A copy of `net` (or `net` itself, `inplace`) whose suitable Conv3d layers are WinogradConv3d ones.

    `tile` is outputs per axis; along an axis with a one-tap filter an int means one. `filter(name, conv)` may leave
    layers out, and layers where the tile's float error bound (largest error over largest output) exceeds `rtol` are
    skipped. The result computes the same function up to rounding; `.report` lists what was converted and what was
    skipped and why. Raises ValueError, with nothing changed, for non-finite weights, an unknown tile, or a network with
    nothing to convert.
    """
    checks.check_finite(net)
    report, new = ConversionReport(), dict[str, nn.Module]()
    for name, conv in named_layers(net, nn.Conv3d).items():
        reason = checks.unsuited(conv)
        if reason is None and filter is not None and not filter(name, conv):
            reason = "left out by the filter"
        if reason is None:
            layer = WinogradConv3d.from_conv3d(conv, tile, backend)
            reason = _too_inaccurate(layer, rtol)
        if reason is None:
            new[name] = layer
            report.converted[name] = layer.geometry.tile.name
        else:
            report.skipped[name] = reason
    if not new:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in report.skipped.items())
        raise ValueError(f"net: no layer to convert ({reasons or 'it holds no nn.Conv3d'})")
    result = replace_layers(net if inplace else deepcopy(net), new)
    result.report = report  # type: ignore[assignment]
    return result


def _too_inaccurate(layer: WinogradConv3d, rtol: float) -> str | None:
    tile = layer.geometry.tile
    bound = spatial_error(tile, layer.in_channels, torch.finfo(compute_dtype(layer.weight.dtype)).eps)
    return (
        None if bound <= rtol else f"{tile.name} has an error bound of {bound:.1g}; accepted is up to rtol = {rtol:g}"
    )
