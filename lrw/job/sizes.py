"""Multiplies of whole networks, as they are computed for one sample."""

from math import prod
from typing import Any

from torch import Tensor, nn

from lrw.compress import measure
from lrw.layers import look_at_calls
from lrw.nn import WinogradLayer

_COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d, nn.Linear, WinogradLayer)


def multiplies(net: nn.Module, example: Tensor) -> int:
    """Of the convolutions, Winograd layers (transforms included) and linear layers of `net` for `example`.

    example [1, C, D, H, W]. What a network of one's own computes in other ways is not counted.
    """
    counts: list[int] = []
    look_at_calls(net, example, _COUNTED, lambda _, module, x, y: counts.append(_of(module, x, y)))
    return sum(counts)


def _of(module: Any, x: Tensor, y: Tensor) -> int:
    """Of one call, its samples together."""
    if isinstance(module, WinogradLayer):
        depth, height, width = x.shape[2:]
        return len(x) * (measure("", module, (depth, height, width)).multiplies or 0)
    if isinstance(module, nn.Linear):
        return x.numel() * module.out_features
    places = x if isinstance(module, nn.ConvTranspose3d) else y
    return len(x) * prod(places.shape[2:]) * int(module.weight.numel())
