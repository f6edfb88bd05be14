"""Fold and cut every Winograd layer of a network down to its kept columns."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from lrw import checks
from lrw.layers import check_replaceable, copied, input_sizes, replace_layers, winograd_layers
from lrw.nn import WinogradConv3d, WinogradLayer
from lrw.nn.grouped import compressed, output_blocks
from lrw.typed import typed
from lrw_kernels.winograd import direct_cost, winograd_cost
from lrw_kernels.winograd.tile import Triple


@dataclass(frozen=True)
class LayerSize:
    """One layer in numbers: columns, weights stored (against all columns, against the spatial filter), bytes per
    weight and, where the input size is known, multiplies per sample."""

    name: str
    tile: str
    columns: int
    kept: int
    stored: int
    dense: int
    spatial: int
    itemsize: int
    multiplies: int | None = None
    direct_multiplies: int | None = None


@dataclass(frozen=True)
class CompressionReport:
    """What `compress` did, layer by layer."""

    layers: tuple[LayerSize, ...]

    def __str__(self) -> str:
        return "\n".join(
            f"{s.name}: {s.kept} of {s.columns} columns"
            f", {s.stored * s.itemsize:,} bytes (spatial {s.spatial * s.itemsize:,})"
            + (f", {s.multiplies:,} multiplies (direct {s.direct_multiplies:,})" if s.multiplies is not None else "")
            for s in self.layers
        )


@typed
def compress(net: nn.Module, example_input: Tensor | None = None, *, inplace: bool = False) -> nn.Module:
    """A copy of `net` (or `net` itself, `inplace`) that stores and computes only the kept columns, updates folded in.

    Layers pruned in blocks of 16 output channels or more store and compute each block's columns; those pruned in other
    patterns all columns of which anything is kept, with zeros. Computes the same function as the masked network.
    `.report` counts columns, bytes and, with an `example_input` [N, C, D, H, W], multiplies. Raises ValueError, with
    nothing changed, for non-finite weights, layers whose weights are computed from others (torch.nn.utils.prune,
    weight_norm) or on whose instance hooks or methods were set, or a network without Winograd layers.
    """
    checks.check_unwrapped(net)
    checks.check_finite(net)
    layers = winograd_layers(net)
    check_replaceable(net, layers)
    sizes = {} if example_input is None else input_sizes(net, example_input)
    with _kept_only(layers.values()):
        report = CompressionReport(tuple(measure(name, layer, sizes.get(name)) for name, layer in layers.items()))
        new: dict[str, nn.Module] = {name: compressed(layer) for name, layer in layers.items()}
    result = replace_layers(net if inplace else copied(net), new)
    result.report = report  # type: ignore[assignment]
    return result


@contextmanager
def _kept_only(layers: Iterable[WinogradLayer]) -> Iterator[None]:
    """Layers whose dropped columns are computed for a pruner do without, for now."""
    computing = [layer for layer in layers if isinstance(layer, WinogradConv3d) and layer.computes_all]
    for layer in computing:
        layer.compute_all(False)
    try:
        yield
    finally:
        for layer in computing:
            layer.compute_all(True)


def measure(name: str, layer: WinogradLayer, input_size: Triple | None) -> LayerSize:
    """Count one layer as `compress` stores it; the multiplies include the transforms' own."""
    geometry, pairs = layer.geometry, layer.in_channels * layer.out_channels
    r_d, r_h, r_w = geometry.tile.kernel_size
    multiplies = direct = None
    blocks = [(channels, kept) for channels, kept in output_blocks(layer) if kept]
    if input_size is not None:
        output, tile = geometry.output_size(input_size), geometry.tile
        costs = [winograd_cost(tile, layer.in_channels, channels, output, kept=kept) for channels, kept in blocks]
        multiplies = sum(cost.multiplies for cost in costs)
        direct = direct_cost(geometry.tile.kernel_size, layer.in_channels, layer.out_channels, output).multiplies
    return LayerSize(
        name=name,
        tile=geometry.tile.name,
        columns=geometry.tile.positions,
        kept=geometry.columns,
        stored=sum(len(kept) * layer.in_channels * channels for channels, kept in blocks),
        dense=geometry.tile.positions * pairs,
        spatial=r_d * r_h * r_w * pairs,
        itemsize=layer.weights().element_size(),
        multiplies=multiplies,
        direct_multiplies=direct,
    )
