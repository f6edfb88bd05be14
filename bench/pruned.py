"""Whole networks with few of their columns, drawn at random, beside all of them: what pruning saves, not what it loses.

Which columns go changes no time, and random ones need no training: docs/evidence.md has networks that were trained.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lrw
from bench import page, rows
from bench.gate import judged
from bench.layers import Network, kept
from bench.networks import RTOL
from lrw.layers import named_layers
from lrw.nn import WinogradConv3d, WinogradLayer
from lrw.timing import interleaved

REMOVED = 0.75  # of each Winograd layer's columns


@dataclass(frozen=True)
class Row(rows.Row):
    """A network at batch 1: milliseconds of a pass in torch (contiguous), accelerated with all of its columns, and
    accelerated with that share of those of `layers` layers `removed`; times as fast as the dense one accelerated, and
    the pruned one's error over its largest output."""

    network: str
    input: str
    removed: float
    layers: int
    torch_ms: float
    dense_ms: float
    pruned_ms: float
    speedup: float
    error: float


def measure(network: Network, seconds: float) -> list[Row]:
    """The row of a network, timed for that long. Raises Red, with nothing timed, where the pruned one accelerated
    differs from the same one in float64."""
    torch.manual_seed(0)
    net, x = network.make().eval(), torch.randn(network.shape)
    small = without_columns(net, x)
    dense, fast = lrw.accelerate(net, x, rtol=RTOL), lrw.accelerate(small, x, rtol=RTOL)
    with torch.inference_mode():
        exact = in_float64(small)(x.double())
        error = judged(f"{network.name}, pruned", fast(x), exact, RTOL * float(exact.abs().max())).largest
        runs = {"torch": lambda: net(x), "dense": lambda: dense(x), "pruned": lambda: fast(x)}
        ms = {name: 1e3 * t for name, t in interleaved(runs, seconds=seconds).items()}
    extent, layers = "x".join(map(str, network.shape)), len(named_layers(small, WinogradLayer))
    return [Row(network.name, extent, REMOVED, layers, ms["torch"], ms["dense"], ms["pruned"],
                ms["dense"] / ms["pruned"], error)]  # fmt: skip


def without_columns(net: nn.Module, x: Tensor) -> nn.Module:
    """A compressed copy of `net` with the same share of each layer's columns removed, where the Winograd domain can
    gain for inputs like x."""
    converted = lrw.to_winograd(net, "auto", example_input=x)
    for layer in named_layers(converted, WinogradConv3d).values():
        layer.keep(kept(layer.geometry.tile, 1 - REMOVED))
    return lrw.compress(converted).eval()


def in_float64(net: nn.Module) -> nn.Module:
    """A copy of `net` that computes the same in float64, its Winograd layers by tensor operations alone."""
    exact = deepcopy(net).double()
    for layer in named_layers(exact, WinogradLayer).values():
        layer.backend = "torch"
    return exact


def table(found: Sequence[Row]) -> list[str]:
    """Dense and pruned networks beside each other."""
    head = ("network", "input", "columns removed", "layers", "torch ms", "dense ms", "pruned ms", "of dense",
            "of torch", "error")  # fmt: skip
    return page.table(head, [
        (row.network, row.input, f"{row.removed:.0%}", f"{row.layers}", f"{row.torch_ms:.1f}", f"{row.dense_ms:.1f}",
         f"{row.pruned_ms:.1f}", f"{row.speedup:.2f}x", f"{row.torch_ms / row.pruned_ms:.2f}x", f"{row.error:.0e}")
        for row in found
    ])  # fmt: skip
