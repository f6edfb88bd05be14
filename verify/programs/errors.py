"""How far a network computed in float32 may be from its definition: every node's own error, carried to the output by
the interpreter of `networks` itself."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrw_kernels.network import operators as ops
from lrw_kernels.network.graph import Network, Node
from lrw_kernels.winograd import domain_error
from lrw_kernels.winograd.error import TAIL
from verify.programs.interpreter import COMPUTE
from verify.strategies import Array

EPS = float(np.finfo(np.float32).eps)
DRAWS = 8
UNITS = {  # of the result, in eps, as `test_functions` has them
    **dict.fromkeys(("relu", "threshold", "clamp", "abs"), 0), **dict.fromkeys(("leaky_relu", "prelu", "sqrt"), 0.5),
    **dict.fromkeys(("sigmoid", "tanh", "exp", "hardsigmoid"), 2), **dict.fromkeys(("silu", "hardswish"), 3),
    **dict.fromkeys(("gelu", "gelu_tanh", "elu", "softplus", "mish"), 4),
}  # fmt: skip
STEEPEST = 1.5  # slope of the functions that have no parameters and an end to it: hardswish's

# Activations are [N, C, D, H, W] in here, as in `networks`.


def arithmetic(network: Network, *inputs: Tensor) -> list[tuple[Array, Array]]:
    """Each output: exactly, [N, D, H, W, C] in float64, and how far float32 may be off in each channel [C].

    Random errors as large as each node's own are added to what it computes; what that does to the output, root mean
    square over draws, at the worst place of a channel and taken to the tail of many outputs.
    """
    generator = np.random.default_rng(0)
    exact = _perturbed(network, inputs, 0.0, generator)
    draws = [_perturbed(network, inputs, EPS, generator) for _ in range(DRAWS)]
    found = []
    for y, drawn in zip(exact, zip(*draws, strict=True), strict=True):
        worst = (torch.stack(drawn) - y).square().mean(0).amax(dim=(0, 2, 3, 4)).sqrt()
        found.append((y.permute(0, 2, 3, 4, 1).numpy(), TAIL * worst.numpy()))
    return found


def _perturbed(network: Network, inputs: Sequence[Tensor], eps: float, generator: np.random.Generator) -> list[Tensor]:
    values = {name: x.double() for name, x in zip(network.inputs, inputs, strict=True)}
    for node in network.nodes:
        read = [values[name] for name in node.inputs]
        y = COMPUTE[type(node.operator)](node.operator, node.size, *read)
        for field in node_errors(node, y, *read):
            y = y + eps * field * torch.from_numpy(generator.standard_normal(field.shape))
        values[node.name] = y
    return [values[name] for name in network.outputs]


def node_errors(node: Node, y: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Standard deviations of independent errors in y, in eps; what is broadcast errs alike everywhere."""
    kind = type(node.operator)
    if kind in (ops.Concat, ops.Copy, ops.ChannelsFirst, ops.Channels, ops.Gather):
        return []
    return ERRORS[kind](node.operator, y, *inputs)


def _channels(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64)).view(1, -1, 1, 1, 1)


def _sums(sizes: Tensor, y: Tensor, residual: tuple[Tensor, ...]) -> list[Tensor]:
    """Sums whose errors have `sizes` per channel, then a bias, a residual and a rounding."""
    return [sizes.expand_as(y), y.abs(), *(r.abs() for r in residual)]


def _winograd(o: ops.Winograd, y: Tensor, x: Tensor, *residual: Tensor) -> list[Tensor]:
    sizes: list[float] = []
    for (channels, kept), u in zip(o.blocks, o.weights, strict=True):
        norms = np.linalg.norm(u.astype(np.float64), axis=1).max(axis=1, initial=0.0)
        error = domain_error(o.tile, kept, norms, float(x.abs().max()), x.shape[1], 1.0) / TAIL if kept else 0.0
        sizes += [error] * channels
    return _sums(_channels(sizes), y, residual)


def _convolution(o: Any, y: Tensor, x: Tensor, *residual: Tensor) -> list[Tensor]:
    norms = np.linalg.norm(o.weight.astype(np.float64).reshape(-1, o.weight.shape[4]), axis=0)
    steps = prod(o.weight.shape[:4]) + 3
    return _sums(_channels(norms * steps**0.5 * float(x.abs().max())), y, residual)


def _linear(o: ops.Linear, y: Tensor, x: Tensor, *residual: Tensor) -> list[Tensor]:
    norms = np.linalg.norm(o.weight.astype(np.float64), axis=1)
    steps = o.weight.shape[1] + 3  # one sum after the other; lanes' own are shorter
    return _sums(_channels(norms * steps**0.5 * float(x.abs().max())), y, residual)


def _pool(o: ops.Pool, y: Tensor, x: Tensor) -> list[Tensor]:
    if o.kind == "max":
        return []
    windows = prod(
        max(end - start for start, end in zip(*axis, strict=True)) for axis in zip(o.starts, o.ends, strict=True)
    )
    return [y.abs(), torch.full_like(y, windows**0.5 * float(x.abs().max()))]


def _resample(o: ops.Resample, y: Tensor, x: Tensor) -> list[Tensor]:
    if not any(any(axis) for axis in o.share):
        return []
    return [torch.full_like(y, 12**0.5 * float(x.abs().max()))]  # a share, two products and a sum on each axis


def _pointwise(o: ops.Pointwise, y: Tensor, x: Tensor) -> list[Tensor]:
    return [(UNITS[o.function] + 2 * _argument(o, x)) * y.abs()]


def _argument(o: ops.Pointwise, x: Tensor) -> Tensor | float:
    """How large the argument of exp is where that is rounded before."""
    if o.function == "gelu_tanh":
        return 2 * (2 / torch.pi) ** 0.5 * (x.abs() + 0.044715 * x.abs() ** 3)
    return (o.parameters[0] * x).abs() if o.function == "softplus" else 0.0


def _steepest(o: ops.Pointwise) -> float:
    """The largest slope of a function, of those behind another operator."""
    assert o.function not in ("exp", "sqrt"), "slopes without an end"
    if o.function == "relu":
        return 1.0
    below, above, rate = o.parameters if o.function == "elu" else (0.0, 1.0, 1.0)
    slopes = o.parameters if o.function in ("leaky_relu", "prelu") else (above, below * rate)
    return max(STEEPEST, *map(abs, slopes))


def _followed(plain: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
    """`plain`, and what the function after the operator makes of its errors."""

    def errors(o: Any, y: Tensor, *inputs: Tensor) -> list[Tensor]:
        if o.after is None:
            return plain(o, y, *inputs)
        n, c, *outer = y.shape
        before = COMPUTE[type(o)](alone := replace(o, after=None), (n, *outer, c), *inputs)
        return [*(_steepest(o.after) * e for e in plain(alone, before, *inputs)), *_pointwise(o.after, y, before)]

    return errors


def _normalise(o: ops.Normalise, y: Tensor, x: Tensor) -> list[Tensor]:
    """A mean's and a deviation's errors are those of a whole group."""
    groups = x.reshape(x.shape[0], o.groups, -1)
    deviation = (groups.var(2, correction=0) + o.epsilon).sqrt()  # [N, groups]
    terms, scale = groups.shape[2], _channels(o.scale).abs()
    by_channel = deviation.repeat_interleave(x.shape[1] // o.groups, 1)[:, :, None, None, None]
    mean = terms**0.5 * float(x.abs().max()) / by_channel * scale
    scaled = (y - _channels(o.shift)).abs()
    return [mean, (terms**0.5 + 5) * scaled, x.abs() / by_channel * scale, y.abs()]


def _normalised(o: ops.Normalise, y: Tensor, x: Tensor, *residual: Tensor) -> list[Tensor]:
    """What is added may come before the function, whose slope then meets its rounding too, or at last."""
    if not residual:
        return _followed(_normalise)(o, y, x)
    if o.late:
        return [*_followed(_normalise)(o, y - residual[0], x), y.abs()]
    n, c, *outer = y.shape
    alone = replace(o, after=None)
    before = COMPUTE[type(o)](alone, (n, *outer, c), x)
    errors = [*_normalise(alone, before, x), (before + residual[0]).abs()]
    if o.after is None:
        return errors
    return [*(_steepest(o.after) * e for e in errors), *_pointwise(o.after, y, before + residual[0])]


ERRORS: dict[type, Callable[..., list[Tensor]]] = {
    ops.Winograd: _followed(_winograd),
    ops.Direct: _followed(_convolution),
    ops.Linear: _followed(_linear),
    ops.Transposed: _followed(_convolution),
    ops.Pool: _pool,
    ops.Resample: _resample,
    ops.Pointwise: _pointwise,
    ops.Binary: _followed(lambda o, y, *inputs: [] if o.kind in ("maximum", "minimum") else [y.abs()]),
    ops.Affine: _followed(lambda o, y, x: [(x * _channels(o.scale)).abs(), y.abs()]),
    ops.Normalise: _normalised,
    ops.Softmax: lambda o, y, x: [(110 + x.shape[1]) * y],
}
