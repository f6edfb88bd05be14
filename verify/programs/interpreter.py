"""An exported network computed by the plain definition of each operator, in float64 and without any kernel of lrw's
but the reference; and how far rounded weights may take its output."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw.nn import WinogradLayer
from lrw_kernels import reference
from lrw_kernels.network import operators as ops
from lrw_kernels.network.graph import Network, Size
from lrw_kernels.network.operators import Operator
from lrw_kernels.network.transformed import Transformed
from lrw_kernels.winograd.error import TAIL
from verify.tolerances import USELESS, assert_close

SPREAD = 2.0**-24  # three roundings to nearest, each up to half of eps, have less as their standard deviation
DRAWS = 4

# Activations are [N, C, D, H, W] in here, as torch's functions have them.


def computed(
    network: Network, x: Tensor, rounded: Callable[[Operator], Operator] = lambda operator: operator
) -> Tensor:
    """What `every_output` gives first, of a network of one input."""
    return every_output(network, (x,), rounded)[0]


def every_output(
    network: Network, inputs: Sequence[Tensor], rounded: Callable[[Operator], Operator] = lambda operator: operator
) -> list[Tensor]:
    """Each [N, C, D, H, W] float64, for inputs [N, C, D, H, W] (or [N, C]); `rounded` may change the operators'
    numbers."""
    given = zip(network.inputs.items(), inputs, strict=True)
    values = {name: x.double().reshape(_outer(size)) for (name, size), x in given}
    for node in network.nodes:
        y = COMPUTE[type(node.operator)](rounded(node.operator), node.size, *(values[name] for name in node.inputs))
        assert tuple(y.shape) == _outer(node.size), f"{node.name}: {tuple(y.shape)}, said to be {node.size}"
        values[node.name] = y
    return [values[name] for name in network.outputs]


def assert_same(network: Network, net: nn.Module, example: Any) -> None:
    """The network computes what `net` does in eval mode, both in float64, up to the rounding of its stored numbers."""
    args = pytree.tree_map_only(Tensor, Tensor.double, example if isinstance(example, tuple) else (example,))
    inputs, results = _tensors(args), _tensors(double(net)(*args))
    exact = every_output(network, inputs)
    for y, expected, tolerance in zip(exact, results, roundings(network, inputs, exact), strict=True):
        assert tolerance < USELESS * float(expected.abs().max())
        assert_close(y.numpy(), expected.detach().reshape(y.shape).numpy(), tolerance, network.name)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def double(net: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode, on the exact numbers of the original, by torch's own operations."""
    copy = deepcopy(net).double().eval().requires_grad_(False)
    for layer in copy.modules():
        if isinstance(layer, WinogradLayer):
            layer.backend = "torch"
    return copy


def rounding(network: Network, x: Tensor, exact: Tensor) -> float:
    """What `roundings` gives of a network of one input and one output."""
    (tolerance,) = roundings(network, (x,), (exact,))
    return tolerance


def roundings(network: Network, inputs: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    """How far each output may be off because each stored number is rounded: what random errors as large do to it, taken
    to the tail of many outputs."""
    generator = np.random.default_rng(0)
    draws = [every_output(network, inputs, lambda o: perturbed(o, generator)) for _ in range(DRAWS)]
    drawn = (torch.stack(of) for of in zip(*draws, strict=True))
    return [TAIL * float((of - y).square().mean(0).max().sqrt()) for of, y in zip(drawn, exact, strict=True)]


def perturbed(operator: Operator, generator: np.random.Generator) -> Operator:
    """With all float numbers off by relative errors of standard deviation SPREAD."""

    def off(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value * (1 + SPREAD * generator.standard_normal(value.shape))
        return tuple(map(off, value)) if isinstance(value, tuple | Transformed) else value

    names = {f.name for f in fields(operator)} & {"weight", "weights", "bias", "scale", "shift"}
    return replace(operator, **{name: off(getattr(operator, name)) for name in names})


def _outer(size: Size) -> tuple[int, ...]:
    n, d, h, w, c = size
    return n, c, d, h, w


def _t(a: ops.Array | None) -> Tensor | None:
    return None if a is None else torch.from_numpy(np.asarray(a, np.float64))


def _channels(a: Any) -> Tensor:
    return torch.from_numpy(np.asarray(a, np.float64)).view(1, -1, 1, 1, 1)


def _finished(y: Tensor, operator: Any, *residual: Tensor) -> Tensor:
    y = y if operator.bias is None else y + _channels(operator.bias)
    y = sum(residual, start=y)
    return _followed(y, operator.after)


def _winograd(o: ops.Winograd, size: Size, x: Tensor, *residual: Tensor) -> Tensor:
    inner = np.ascontiguousarray(x.permute(0, 2, 3, 4, 1).numpy())
    parts = []
    for (channels, kept), u in zip(o.blocks, o.weights, strict=True):
        assert u.shape == (len(kept), x.shape[1], channels)
        if kept:
            parts.append(reference.winograd_conv3d(inner, np.asarray(u, np.float64), o.tile, o.padding, kept))
        else:
            parts.append(np.zeros((*size[:4], channels)))
    return _finished(torch.from_numpy(np.concatenate(parts, axis=4)).permute(0, 4, 1, 2, 3), o, *residual)


def _direct(o: ops.Direct, size: Size, x: Tensor, *residual: Tensor) -> Tensor:
    weight = _t(o.weight).permute(4, 3, 0, 1, 2)
    y = F.conv3d(x, weight, None, o.stride, o.padding, o.dilation, o.groups)
    return _finished(y, o, *residual)


def _linear(o: ops.Linear, size: Size, x: Tensor, *residual: Tensor) -> Tensor:
    return _finished(F.linear(x.flatten(1), _t(o.weight)).view(_outer(size)), o, *residual)


def _transposed(o: ops.Transposed, size: Size, x: Tensor) -> Tensor:
    """By its sentence: each input times each tap is added where it belongs."""
    weight = _t(o.weight)  # [kd, kh, kw, Cin / groups, Cout]
    y = torch.zeros(_outer(size), dtype=torch.float64)
    inputs, outputs = x.shape[1] // o.groups, weight.shape[4] // o.groups
    for k in np.ndindex(*weight.shape[:3]):
        for i in np.ndindex(*x.shape[2:]):
            at = [p * s - q + t * e for p, s, q, t, e in zip(i, o.stride, o.padding, k, o.dilation, strict=True)]
            if not all(0 <= a < n for a, n in zip(at, size[1:4], strict=True)):
                continue
            for g in range(o.groups):
                mine = slice(g * outputs, (g + 1) * outputs)
                given = x[:, g * inputs : (g + 1) * inputs, *i]
                y[:, mine, *at] += given @ weight[*k, :, mine]
    return _finished(y, o)


def _pool(o: ops.Pool, size: Size, x: Tensor) -> Tensor:
    y = torch.zeros(_outer(size), dtype=torch.float64)
    for place in np.ndindex(*size[1:4]):
        d, h, w = (slice(o.starts[a][p], o.ends[a][p]) for a, p in enumerate(place))
        window = x[:, :, d, h, w].flatten(2)
        count = np.prod([o.counts[a][p] for a, p in enumerate(place)])
        y[:, :, *place] = window.amax(2) if o.kind == "max" else window.sum(2) / float(count)
    return y


def _resample(o: ops.Resample, size: Size, x: Tensor) -> Tensor:
    for axis, (low, high, share) in enumerate(zip(o.low, o.high, o.share, strict=True), start=2):
        form = [1] * 5
        form[axis] = len(share)
        part = torch.tensor(share, dtype=torch.float64).view(form)
        x = x.index_select(axis, torch.tensor(low)) * (1 - part) + x.index_select(axis, torch.tensor(high)) * part
    return x


def _gather(o: ops.Gather, size: Size, x: Tensor) -> Tensor:
    inside = torch.tensor(True)
    for axis, index in enumerate(map(torch.tensor, o.index), start=2):
        form = [1] * 5
        form[axis] = len(index)
        x, inside = x.index_select(axis, index.clamp_min(0)), inside & (index >= 0).view(form)
    return torch.where(inside, x, o.value)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "relu": lambda x: x.clamp_min(0),
    "leaky_relu": lambda x, slope: torch.where(x > 0, x, slope * x),
    "prelu": lambda x, *slopes: torch.where(x > 0, x, _channels(slopes) * x),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": torch.tanh,
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "hardsigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
    "elu": lambda x, below, above, rate: torch.where(x > 0, above * x, below * torch.expm1(rate * x)),
    "softplus": lambda x, beta, threshold: torch.where(
        beta * x > threshold, x, torch.log1p(torch.exp(beta * x)) / beta
    ),
    "threshold": lambda x, threshold, value: torch.where(x <= threshold, value, x),
    "clamp": lambda x, low, high: x.clamp(low, high),
    "abs": torch.abs,
    "exp": torch.exp,
    "sqrt": torch.sqrt,
}


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, other: x + other,
    "subtract": lambda x, other: x - other,
    "multiply": lambda x, other: x * other,
    "divide": lambda x, other: x / other,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}


def _followed(y: Tensor, after: ops.Pointwise | None) -> Tensor:
    return y if after is None else FUNCTIONS[after.function](y, *after.parameters)


def _binary(o: ops.Binary, size: Size, x: Tensor, other: Tensor) -> Tensor:
    return _followed(BINARY[o.kind](x, other), o.after)


def _affine(o: ops.Affine, size: Size, x: Tensor) -> Tensor:
    return _followed(x * _channels(o.scale) + _channels(o.shift), o.after)


def _normalise(o: ops.Normalise, size: Size, x: Tensor, residual: Tensor | None = None) -> Tensor:
    groups = x.reshape(x.shape[0], o.groups, -1)
    centred = groups - groups.mean(2, keepdim=True)
    scaled = centred / (centred.square().mean(2, keepdim=True) + o.epsilon).sqrt()
    y = scaled.view_as(x) * _channels(o.scale) + _channels(o.shift)
    if residual is None:
        return _followed(y, o.after)
    return _followed(y, o.after) + residual if o.late else _followed(y + residual, o.after)


def _softmax(o: ops.Softmax, size: Size, x: Tensor) -> Tensor:
    y = torch.exp(x - x.amax(1, keepdim=True))
    return y / y.sum(1, keepdim=True)


COMPUTE: dict[type, Callable[..., Tensor]] = {
    ops.Winograd: _winograd,
    ops.Direct: _direct,
    ops.Linear: _linear,
    ops.Transposed: _transposed,
    ops.Pool: _pool,
    ops.Resample: _resample,
    ops.Gather: _gather,
    ops.Channels: lambda o, size, x: x[:, o.first : o.first + o.count],
    ops.Pointwise: lambda o, size, x: FUNCTIONS[o.function](x, *o.parameters),
    ops.Binary: _binary,
    ops.Concat: lambda o, size, *parts: torch.cat(parts, dim=1),
    ops.Affine: _affine,
    ops.Normalise: _normalise,
    ops.Softmax: _softmax,
    ops.ChannelsFirst: lambda o, size, x: x.reshape(_outer(size)),
    ops.Copy: lambda o, size, x: x,
}
