"""Multiplies of whole networks, as they are computed for one sample."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lrw.compress import measure
from lrw.layers import evaluating
from lrw.nn import WinogradLayer

_COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d, nn.Linear, WinogradLayer)


def multiplies(net: nn.Module, example: Tensor) -> int:
    """Of the convolutions, Winograd layers (transforms included) and linear layers of `net` for `example`.

    example [1, C, D, H, W]. What a network of one's own computes in other ways is not counted.
    """
    counts: list[int] = []
    handles = [
        module.register_forward_hook(lambda *call: counts.append(_of(*call)))
        for module in net.modules()
        if isinstance(module, _COUNTED)
    ]
    try:
        with torch.no_grad(), evaluating(net):
            net(example)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)


def _of(module: Any, args: tuple[Tensor, ...], y: Tensor) -> int:
    """Of one call, its samples together."""
    (x,) = args
    if isinstance(module, WinogradLayer):
        depth, height, width = x.shape[2:]
        return len(x) * (measure("", module, (depth, height, width)).multiplies or 0)
    if isinstance(module, nn.Linear):
        return x.numel() * module.out_features
    places = x if isinstance(module, nn.ConvTranspose3d) else y
    return len(x) * prod(places.shape[2:]) * int(module.weight.numel())
