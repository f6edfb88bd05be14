"""From arguments to operators: gradients, tangents and autocast are seen to, and calls that come again are short.

A call costs hundreds of microseconds where the one before has used all of the cache, because the interpreter's memory
is cold then. So what was checked, chosen and found for tensors of one form is kept with the weights, as one function.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.autograd import forward_ad

from lrw import activations, blocks, checks, operators
from lrw.activations import compute_dtype
from lrw.backends import Prepared
from lrw.geometry import GroupedLayer, Layer
from lrw.operators import check_forward
from lrw.unchanged import PLAIN, Derived, listened


class Call(NamedTuple):
    """The tensors of a call, its layer where that is given, and whatever else decides `how` it is computed."""

    x: Tensor
    weights: Tensor
    bias: Tensor | None
    residual: Tensor | None
    layer: Layer | None
    how: tuple[Any, ...]


class _Short(NamedTuple):
    compute: Prepared
    layer: Layer  # keys hold its identity


_SHORT: Derived[_Short] = Derived()


def again(call: Call) -> Tensor | None:
    """The result, if a call like this one has come before, with weights that are what they were."""
    if torch.compiler.is_compiling() or not _is_quiet(call[:4]):
        return None
    key = _key(call)
    short = None if key is None else _SHORT.find(call.weights, key)
    return None if short is None else short.compute(call.x, call.weights, call.bias, call.residual)


def convolve(call: Call, u: Tensor, layer: Layer, *, relu: bool, backend: str, name: str) -> Tensor:
    """What `call` asks for: its weights, `name` to who passed them, are u [K, Cin, Cout] in the domain of `layer`."""
    x, (u,), bias, residual = _autocast(call.x, [u], call.bias, call.residual)
    check_forward(x, u, bias, residual, layer, name)
    if layer.rectified:
        return _finish(operators.rectified_forward(x, u, bias, layer, backend), residual, relu)
    arguments = (layer.tile, layer.padding, layer.kept, layer.fixed, backend)
    tensors = [t for t in (x, u, bias, residual) if t is not None]
    if has_tangent(tensors):
        y = _forward_mode(x, [u], lambda x, u: torch.ops.lrw.winograd_forward(x, u[0], None, None, False, *arguments))
        return _finish(_biased(y, bias), residual, relu)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        y = torch.ops.lrw.winograd_forward(x, u, bias, None, False, *arguments)
        return _finish(y, residual, relu)
    if torch.compiler.is_compiling() or not _is_quiet(call[:4]):
        return torch.ops.lrw.winograd_forward(x, u, bias, residual, relu, *arguments)

    def shorten() -> _Short:
        compute, held = operators.prepare(x, u, bias, residual, relu, *arguments), u
        if u is call.weights:  # not held: what is kept with weights must not keep them
            return _Short(compute, layer)
        return _Short(lambda x, _, bias, residual: compute(x, held, bias, residual), layer)

    key = _key(call)
    if key is not None:
        _SHORT.get(call.weights, key, shorten)
    return operators.forward(x, u, bias, residual, relu, *arguments)  # what the dispatcher would call, 0.2 ms later


def convolve_blocks(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, layer: GroupedLayer, backend: str
) -> Tensor:
    """What blocks of output channels with weights [K_i, Cin, channels_i] make of x, which may be anything."""
    arguments = (layer.tile, layer.padding, layer.channels, layer.counts, layer.kept, backend)
    if not layer.rectified and not torch.compiler.is_compiling() and _is_quiet([x, *weights, bias]):
        return blocks.forward(x, weights, bias, *arguments)
    checks.check_activation(x, None)
    x, weights, bias, _ = _autocast(x, weights, bias, None)
    if layer.rectified:
        return blocks.rectified_forward(x, weights, bias, layer, backend)
    if has_tangent([t for t in (x, *weights, bias) if t is not None]):
        y = _forward_mode(x, weights, lambda x, u: torch.ops.lrw.winograd_blocks_forward(x, u, None, *arguments))
        return _biased(y, bias)
    return torch.ops.lrw.winograd_blocks_forward(x, weights, bias, *arguments)


def _is_quiet(tensors: Sequence[Tensor | None]) -> bool:
    """Whether numbers in host memory are all there is: nothing differentiates, traces, transforms or casts."""
    watched = torch.is_grad_enabled()
    for t in tensors:
        if t is None:
            continue
        if type(t) not in PLAIN or not t.is_cpu or t.layout is not torch.strided or t.is_neg():
            return False
        if watched and t.requires_grad:
            return False
    if forward_ad._current_level >= 0 or eager_transforms.JVP_NESTING > 0:
        return False
    return not (listened() or torch.is_autocast_enabled("cpu"))


def _key(call: Call) -> Hashable | None:
    """What a call has in common with those that can be computed by the same function; None if it has odd arguments."""
    x, weights, bias, residual, layer, how = call
    if not isinstance(weights, Tensor) or weights.layout != torch.strided:
        return None
    try:
        of_bias = None if bias is None else (bias.shape, bias.dtype)
        of_residual = None if residual is None else (residual.shape, residual.stride(), residual.dtype)
        exact = tuple(map(_exactly, how))
        key = x.shape, x.stride(), x.dtype, of_bias, of_residual, id(layer), exact, torch.get_num_threads()
        hash(key)
    except (TypeError, AttributeError):
        return None
    return key


def _exactly(value: Any) -> Any:
    """What equals only its like: 1, 1.0 and True are different arguments, a list and a tuple are not."""
    return tuple(map(_exactly, value)) if isinstance(value, list | tuple) else (type(value), value)


def _biased(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.to(y.dtype).view(1, -1, 1, 1, 1)


def _finish(y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    y = y if residual is None else y + residual
    return torch.relu(y) if relu else y


def has_tangent(tensors: Sequence[Tensor]) -> bool:
    """Whether forward mode is under way; raises where its tangents could not be followed and would come out as zero."""
    compiling = torch.compiler.is_compiling()
    if (0 if compiling else 1) < eager_transforms.JVP_NESTING:
        raise NotImplementedError("winograd convolution: no forward mode inside torch.compile, nor nested in itself")
    if compiling or forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def _forward_mode(
    x: Tensor, weights: Sequence[Tensor], product: Callable[[Tensor, Sequence[Tensor]], Tensor]
) -> Tensor:
    """Dual numbers by the product rule; a registered operator alone would drop the tangents silently."""
    (x, dx), (weights, tangents) = forward_ad.unpack_dual(x), zip(*map(forward_ad.unpack_dual, weights), strict=True)
    parts = [] if dx is None else [product(dx, weights)]
    if any(du is not None for du in tangents):
        moved = [torch.zeros_like(u) if du is None else du for u, du in zip(weights, tangents, strict=True)]
        parts.append(product(x, moved))
    y = product(x, weights)
    return forward_ad.make_dual(y, sum(parts[1:], start=parts[0])) if parts else y


def _autocast(
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, residual: Tensor | None
) -> tuple[Tensor, Sequence[Tensor], Tensor | None, Tensor | None]:
    """Under autocast, bring activations to one dtype: the device's, but float32 on the CPU, where half saves no time
    here. Weights and bias of float32 stay that: a backend rounds them on its way, and their gradients never are."""
    if not activations.autocasts(x.device) or x.dtype == torch.float64:
        return x, weights, bias, residual
    dtype = torch.float32 if x.is_cpu else torch.get_autocast_dtype(x.device.type)
    wide = (dtype, compute_dtype(dtype))
    weights = [u if u.dtype in wide else u.to(dtype) for u in weights]
    bias = bias if bias is None or bias.dtype in wide else bias.to(dtype)
    return x.to(dtype), weights, bias, None if residual is None else residual.to(dtype)
