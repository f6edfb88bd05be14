"""Convolutions and linear layers as nodes; those that are Winograd layers in torch already keep their domain."""

from collections.abc import Sequence
from dataclasses import replace
from math import gcd
from typing import Any

import numpy as np
from torch import Tensor

from lrw.geometry import geometry, grouped_geometry
from lrw.trace.site import Activation, Refused, Site, Value, activation, array, constant, three, vector, volume
from lrw_kernels.network.operators import Direct, Linear, Pointwise, Transposed, Winograd
from lrw_kernels.winograd.tile import Triple, triple


def conv3d(
    at: Site, x: Value, weight: Value, bias: Value, stride: Any, padding: Any, dilation: Any, groups: int
) -> Activation:
    """A convolution; one of stride 1, dilation 1 and one group may go to the Winograd domain. Taps that meet nothing
    but padding, as on an axis of size 1, are left out, and so are their weights."""
    source, size = volume(x)
    w = constant(weight, "weight")
    taps, dilations, strides = triple(tuple(w.shape[2:]), "weight"), three(dilation), three(stride)
    pads = _same(taps, dilations) if padding == "same" else three(0 if padding == "valid" else padding)
    cuts = [_unmet(*axis) for axis in zip(size[1:4], taps, strides, pads, dilations, strict=True)]
    for axis, (cut, r) in enumerate(zip(cuts, taps, strict=True), 2):
        w = w.narrow(axis, cut, r - 2 * cut)
    pads = three([p - cut * step for p, cut, step in zip(pads, cuts, dilations, strict=True)])
    taps_first = array(w.permute(2, 3, 4, 1, 0))
    return at.add(Direct(taps_first, vector(bias, "bias"), strides, pads, dilations, groups), source)


def _unmet(n: int, taps: int, stride: int, padding: int, dilation: int) -> int:
    """How many taps at either end of an axis of size n meet padding alone, in all outputs: without them, and with that
    much less padding, outputs are the same, and as many."""
    outputs = (n + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    cut = 0
    while 2 * (cut + 1) < taps and (cut + 1) * dilation <= padding:
        before = (outputs - 1) * stride + cut * dilation < padding  # the last output's tap lies before the input
        behind = (taps - 1 - cut) * dilation >= padding + n  # and the first output's behind it
        if not (before and behind):
            break
        cut += 1
    return cut


def _same(taps: Triple, dilations: Triple) -> Triple:
    if any(d * (r - 1) % 2 for r, d in zip(taps, dilations, strict=True)):
        raise Refused("padding 'same' is uneven for its kernel size; accepted are odd sizes")
    d, h, w = (d * (r - 1) // 2 for r, d in zip(taps, dilations, strict=True))
    return d, h, w


def conv_transpose3d(
    at: Site, x: Value, weight: Value, bias: Value, stride: Any, padding: Any, output_padding: Any, groups: int,
    dilation: Any,
) -> Activation:  # fmt: skip
    """A transposed convolution of any stride, padding, dilation and groups.

    torch's weight is [Cin, Cout / groups, kd, kh, kw]; output padding is in the result's size.
    """
    source, _ = volume(x)
    w = constant(weight, "weight")
    inputs, outputs = int(w.shape[0]), int(w.shape[1])
    parts = w.reshape(groups, inputs // groups, outputs, *w.shape[2:]).permute(3, 4, 5, 1, 0, 2)
    taps_first = array(parts.reshape(*w.shape[2:], inputs // groups, groups * outputs))
    how = three(stride), three(padding), three(dilation), groups
    return at.add(Transposed(taps_first, vector(bias, "bias"), *how), source)


def winograd_forward(
    at: Site, x: Value, u: Value, bias: Value, residual: Value, relu: bool,
    tile: str, padding: Sequence[int], kept: Sequence[int] | None, fixed: bool, backend: str,
) -> Activation:  # fmt: skip
    """Winograd with the layer's own tile, origin, padding and kept columns."""
    source, _ = volume(x)
    layer = geometry(tile, three(padding), None if kept is None else tuple(kept), fixed)
    weights = array(constant(u, "weight"))
    blocks = ((weights.shape[2], layer.positions),)
    operator = Winograd(
        layer.tile, layer.padding, blocks, (weights,), vector(bias, "bias"), Pointwise("relu") if relu else None
    )
    return at.add(operator, source, *([] if residual is None else [activation(residual)]))


def winograd_blocks_forward(
    at: Site, x: Value, weights: Sequence[Value], bias: Value, tile: str, padding: Sequence[int],
    channels: Sequence[int], counts: Sequence[int], kept: Sequence[int], backend: str,
) -> Activation:  # fmt: skip
    """One node, as for `lrw.winograd_forward`, for blocks of output channels with kept columns of their own."""
    source, _ = volume(x)
    layer, blocks = grouped_geometry(tile, three(padding), tuple(channels), tuple(counts), tuple(kept))
    own = tuple(array(constant(u, "weight")) for u in weights)
    return at.add(Winograd(layer.tile, layer.padding, blocks, own, vector(bias, "bias")), source)


def is_level(t: Tensor) -> bool:
    """Whether `t` [N, C] or [N, C, D, H, W] holds one number throughout each channel, in all samples."""
    values = t.movedim(1, -1).flatten(0, -2)
    return t.numel() > 0 and bool((values == values[:1]).all())


def level(at: Site, t: Tensor, like: Activation) -> Activation:
    """`t`, one number in each channel, as a node: a Direct one of `like`, of the same size but for the channels, whose
    weights are zeros."""
    inputs, outputs = like.size[4], int(t.shape[1])
    groups = gcd(inputs, outputs)
    zeros = np.zeros((1, 1, 1, inputs // groups, outputs), np.float32)
    here = replace(at, name=f"{at.name}.constant", shape=tuple(t.shape))
    return here.add(Direct(zeros, array(t.movedim(1, -1).flatten(0, -2)[0]), groups=groups), like)


def linear(at: Site, x: Value, weight: Value, bias: Value) -> Activation:
    """A linear layer on [N, C], weight [Cout, C]."""
    return _product(at, x, constant(weight, "weight"), bias)


def addmm(at: Site, x: Value, mat1: Value, mat2: Value, beta: float, alpha: float) -> Activation:
    """A linear layer as some write it: bias `x`, input `mat1`, weight `mat2` [C, Cout]."""
    if (beta, alpha) != (1, 1):
        raise Refused(f"beta {beta}, alpha {alpha}; accepted is 1 for both")
    return _product(at, mat1, constant(mat2, "second matrix").movedim(-1, 0), x)


def matmul(at: Site, x: Value, other: Value) -> Activation:
    """A linear layer without bias; `other` [C, Cout]."""
    return _product(at, x, constant(other, "second matrix").movedim(-1, 0), None)


def _product(at: Site, x: Value, weight: Tensor, bias: Value) -> Activation:
    source = activation(x)
    if len(source.shape) != 2 or weight.dim() != 2:
        raise Refused(f"its input is of shape {list(source.shape)}; accepted is [N, C]")
    offset = vector(bias, "bias")
    if offset is not None and offset.size != weight.shape[0]:
        raise Refused(f"its bias is of shape {list(offset.shape)}; accepted is [{weight.shape[0]}]")
    return at.add(Linear(at.in_place(weight), None if offset is None else offset.reshape(-1)), source)
