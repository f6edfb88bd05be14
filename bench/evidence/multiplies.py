"""Multiplies of networks, counted where they are pruned."""

from math import prod
from typing import Any

from torch import Tensor, nn

from lrw import checks
from lrw.layers import look_at_calls, named_layers
from lrw.nn import WinogradLayer
from lrw.prune import FEWEST


def prunable(dense: nn.Module) -> set[str]:
    """The names of the convolutions of `dense` that pruning takes."""
    convs = named_layers(dense, nn.Conv3d)
    return {n for n, conv in convs.items() if checks.unsuited(conv) is None and conv.in_channels >= FEWEST}


def multiplies(net: nn.Module, example: Tensor) -> dict[str, int]:
    """Of each convolution, Winograd layer and linear layer for `example`, with the weights that are not zero: of
    Winograd layers those of the products."""
    found: dict[str, int] = {}

    def count(name: str, module: Any, x: Tensor, y: Tensor) -> None:
        if isinstance(module, nn.Linear):
            found[name] = module.weight.numel()
            return
        tiles = module.geometry.tile.grid(tuple(y.shape[2:])) if isinstance(module, WinogradLayer) else y.shape[2:]
        found[name] = prod(tiles) * _weights(module)

    look_at_calls(net, example, (nn.Conv3d, nn.Linear, WinogradLayer), count)
    return found


def fewer(net: nn.Module, dense: nn.Module, example: Tensor) -> float:
    """Multiplies of the convolutions of `dense` that pruning takes, over those that `net` has in their places."""
    names = prunable(dense)
    direct, left = multiplies(dense, example), multiplies(net, example)
    return sum(direct[name] for name in names) / sum(left[name] for name in names)


def kept(net: nn.Module, dense: nn.Module) -> float:
    """Share of the weights that is left in the layers of `net` that pruning takes."""
    there = whole = 0
    for name in prunable(dense):
        layer, conv = net.get_submodule(name), dense.get_submodule(name)
        there += _weights(layer)
        pairs = int(conv.in_channels) * int(conv.out_channels)  # type: ignore[arg-type]
        taps = layer.geometry.tile.positions if isinstance(layer, WinogradLayer) else prod(conv.kernel_size)  # type: ignore[arg-type]
        whole += taps * pairs
    return there / whole


def _weights(layer: nn.Module) -> int:
    weight: Any = layer.weights() if isinstance(layer, WinogradLayer) else layer.weight
    return int((weight != 0).sum())
