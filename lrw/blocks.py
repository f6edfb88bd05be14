"""The operator for blocks of output channels that keep positions of their own, registered beside the three of
`lrw.operators`: one pass over the input where a backend has one, block by block elsewhere.

Its gradients are made of the three, block by block, so that they are right to any order.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lrw import backends, checks
from lrw.activations import compute_dtype, formatted, inner, outer, owned, unwritten, without_autocast
from lrw.backends import composed
from lrw.backends.blocks import block_by_block
from lrw.geometry import Geometry, GroupedLayer, grouped_geometry
from lrw.operators import check_rectifying, register
from lrw_kernels.winograd import Block


def forward(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, tile: str, padding: Sequence[int],
    channels: Sequence[int], counts: Sequence[int], kept: Sequence[int], backend: str,
) -> Tensor:  # fmt: skip
    """`winograd_blocks_forward` itself, for tensors that need no dispatch."""
    run = backends.backend(backend, x.device, x.dtype)
    whole, blocks = _geometry(tile, padding, channels, counts, kept)
    shape = check_forward(x, weights, bias, whole, blocks)
    checks.check_memory(input=x, bias=bias, **dict(zip(_names(len(weights)), weights, strict=True)))
    if x.shape[0] == 0:
        return unwritten(x, shape)
    with without_autocast(x.device):
        return owned(outer(backends.forward_blocks(run, inner(x), weights, bias, whole, blocks), x))


def rectified_forward(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, layer: GroupedLayer, backend: str
) -> Tensor:
    """As `lrw.operators.rectified_forward`, of blocks."""
    check_rectifying(backend)
    whole, blocks = _geometry(layer.tile, layer.padding, layer.channels, layer.counts, layer.kept)
    check_forward(x, weights, bias, whole, blocks)
    with without_autocast(x.device):
        y = block_by_block(composed.forward, inner(x), weights, bias, replace(whole, rectified=True), blocks)
        return outer(y, x)


def check_forward(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, whole: Geometry, blocks: tuple[Block, ...]
) -> tuple[int, ...]:
    """Shapes, dtypes and devices against each other and the blocks; raises ValueError naming the argument. Returns the
    output's shape."""
    dtypes = (x.dtype, compute_dtype(x.dtype))
    if len(weights) != len(blocks):
        raise ValueError(f"weights: {len(weights)} tensors; accepted is one for each of {len(blocks)} blocks")
    checks.check_activation(x, weights[0].shape[1] if weights[0].dim() == 3 else None)
    inputs = x.shape[1]
    for name, u, (channels, kept) in zip(_names(len(blocks)), weights, blocks, strict=True):
        if u.shape != (len(kept), inputs, channels):
            raise ValueError(f"{name}: shape {tuple(u.shape)}; accepted is {[len(kept), inputs, channels]}")
        checks.check_pair(x, u, name, dtypes)
    outputs = sum(channels for channels, _ in blocks)
    checks.check_bias(x, bias, outputs, dtypes)
    size = whole.arguments.output_size(x.shape[2:])
    checks.check_output_size(size, x.shape[2:])
    return (x.shape[0], outputs, *size)


@cache
def _names(blocks: int) -> tuple[str, ...]:
    return tuple(f"weights[{i}]" for i in range(blocks))


def _geometry(
    tile: str, padding: Sequence[int], channels: Sequence[int], counts: Sequence[int], kept: Sequence[int]
) -> tuple[Geometry, tuple[Block, ...]]:
    d, h, w = padding
    return grouped_geometry(tile, (d, h, w), tuple(channels), tuple(counts), tuple(kept))


def _fake(
    x: Tensor, weights: list[Tensor], bias: Tensor | None, tile: str, padding: list[int],
    channels: list[int], counts: list[int], kept: list[int], backend: str,
) -> Tensor:  # fmt: skip
    return unwritten(x, check_forward(x, weights, bias, *_geometry(tile, padding, channels, counts, kept)))


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weights, bias, *ctx.layer = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, *weights)


def _backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, *weights = ctx.saved_tensors
    *layer, backend = ctx.layer
    whole, blocks = _geometry(*layer)
    of_x, of_weights, of_bias, *_ = ctx.needs_input_grad
    ops, dx = torch.ops.lrw, list[Tensor]()
    du: list[Tensor | None] = [None] * len(weights)
    for i, (part, (_, kept)) in enumerate(zip(dy.split([n for n, _ in blocks], dim=1), blocks, strict=True)):
        own, arguments = formatted(part, x), (str(whole.tile), whole.padding, kept, True, backend)
        if of_x and kept:
            dx.append(ops.winograd_input_grad(own, weights[i], x.shape[2:], *arguments))
        if of_weights[i] and kept:
            du[i] = ops.winograd_weight_grad(x, own, *arguments)
    dbias = dy.sum((0, 2, 3, 4), dtype=ctx.bias_dtype) if of_bias else None
    return sum(dx[1:], start=dx[0]) if dx else None, du, dbias, *(None,) * 6


def _vmap(
    info: Any, places: tuple[Any, ...], x: Tensor, weights: list[Tensor], bias: Tensor | None, *layer: Any
) -> Any:
    """One sample of the batch after the other, as torch does it itself for operators without lists."""
    of_x, of_weights, of_bias, *_ = places

    def sample(i: int) -> Tensor:
        own = [_sample(u, place, i) for u, place in zip(weights, of_weights, strict=True)]
        return torch.ops.lrw.winograd_blocks_forward(_sample(x, of_x, i), own, _sample(bias, of_bias, i), *layer)

    return torch.stack([sample(i) for i in range(info.batch_size)]), 0


def _sample(t: Any, place: int | None, i: int) -> Any:
    return t if place is None else t.select(place, i)


register("winograd_blocks_forward(Tensor x, Tensor[] weights, Tensor? bias, str tile, int[] padding, int[] channels, "
         "int[] counts, int[] kept, str backend) -> Tensor",
         forward, _fake, _context, _backward)  # fmt: skip
torch.library.register_vmap("lrw::winograd_blocks_forward", _vmap)
