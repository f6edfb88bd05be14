"""From arguments to operators: gradients, tangents and autocast are seen to, and calls that come again are short.

A call costs hundreds of microseconds where the one before has used all of the cache, because the interpreter's memory
is cold then. So what was checked, chosen and found for tensors of one form is kept with the weights, as one function.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.autograd import forward_ad

from lrw import activations, operators
from lrw.activations import compute_dtype
from lrw.backends import Prepared
from lrw.geometry import Layer
from lrw.operators import check_forward
from lrw.unchanged import PLAIN, Derived, is_plain
from lrw_kernels.winograd import Block


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
    if torch.compiler.is_compiling() or not _is_quiet(call):
        return None
    key = _key(call)
    short = None if key is None else _SHORT.find(call.weights, key)
    return None if short is None else short.compute(call.x, call.weights, call.bias, call.residual)


def convolve(call: Call, u: Tensor, layer: Layer, *, relu: bool, backend: str, name: str) -> Tensor:
    """What `call` asks for: its weights, `name` to who passed them, are u [K, Cin, Cout] in the domain of `layer`."""
    x, u, bias, residual = _autocast(call.x, u, call.bias, call.residual)
    check_forward(x, u, bias, residual, layer, name)
    if layer.rectified:
        return _finish(operators.rectified_forward(x, u, bias, layer, backend), residual, relu)
    arguments = (layer.tile, layer.padding, layer.kept, layer.fixed, backend)
    tensors = [t for t in (x, u, bias, residual) if t is not None]
    if has_tangent(tensors):
        y = _forward_mode(x, u, arguments)
        return _finish(y if bias is None else y + bias.to(y.dtype).view(1, -1, 1, 1, 1), residual, relu)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        y = torch.ops.lrw.winograd_forward(x, u, bias, None, False, *arguments)
        return _finish(y, residual, relu)
    if torch.compiler.is_compiling() or not _is_quiet(call):
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
    x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, layer: Layer, blocks: tuple[Block, ...], backend: str
) -> Tensor | None:
    """One pass over blocks of output channels, with kept positions among the layer's; None where there is no such way.

    That is where gradients are wanted, too, and for arguments that are not as they should be: block by block they are
    computed, or refused.
    """
    if torch.compiler.is_compiling() or layer.rectified:
        return None
    if not all(_is_quiet(Call(x, u, bias, None, None, ())) for u in weights):
        return None
    parameters, dtypes = [*weights, *([] if bias is None else [bias])], (x.dtype, compute_dtype(x.dtype))
    if x.dim() != 5 or x.numel() == 0 or not all(t.dtype in dtypes for t in parameters):
        return None
    shapes = [(len(kept), x.shape[1], channels) for channels, kept in blocks]
    outputs = sum(channels for channels, _ in blocks)
    if [tuple(u.shape) for u in weights] != shapes or not (bias is None or tuple(bias.shape) == (outputs,)):
        return None
    some = min(layer.output_size(x.shape[2:])) > 0
    return operators.forward_blocks(x, weights, bias, layer, blocks, backend) if some else None


def _is_quiet(call: Call) -> bool:
    """Whether numbers in host memory are all there is: nothing differentiates, traces, transforms or casts."""
    x, weights, bias, residual, *_ = call
    tensors = [x, weights] + [t for t in (bias, residual) if t is not None]
    watched = torch.is_grad_enabled()
    for t in tensors:
        if type(t) not in PLAIN or not t.is_cpu or t.layout is not torch.strided or (watched and t.requires_grad):
            return False
    differentiating = forward_ad._current_level >= 0 or eager_transforms.JVP_NESTING > 0
    return is_plain(*tensors) and not differentiating and not torch.is_autocast_enabled("cpu")


def _key(call: Call) -> Hashable | None:
    """What a call has in common with those that can be computed by the same function; None if it has odd arguments."""
    x, _, bias, residual, layer, how = call
    of_bias = None if bias is None else (bias.shape, bias.dtype)
    of_residual = None if residual is None else (residual.shape, residual.stride(), residual.dtype)
    exact = tuple(map(_exactly, how))
    key = x.shape, x.stride(), x.dtype, of_bias, of_residual, id(layer), exact, torch.get_num_threads()
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _exactly(value: Any) -> Any:
    """What equals only its like: 1, 1.0 and True are different arguments, a list and a tuple are not."""
    return tuple(map(_exactly, value)) if isinstance(value, list | tuple) else (type(value), value)


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


def _forward_mode(x: Tensor, u: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    """Dual numbers by the product rule; a registered operator alone would drop the tangents silently."""
    (x, dx), (u, du) = forward_ad.unpack_dual(x), forward_ad.unpack_dual(u)

    def forward(x: Tensor, u: Tensor) -> Tensor:
        return torch.ops.lrw.winograd_forward(x, u, None, None, False, *arguments)

    parts = [forward(dx, u)] if dx is not None else []
    parts += [forward(x, du)] if du is not None else []
    y = forward(x, u)
    return forward_ad.make_dual(y, sum(parts[1:], start=parts[0])) if parts else y


def _autocast(
    x: Tensor, u: Tensor, bias: Tensor | None, residual: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Under autocast, bring activations to one dtype: the device's, but float32 on the CPU, where half saves no time
    here. Weights and bias of float32 stay that: a backend rounds them on its way, and their gradients never are."""
    if not activations.autocasts(x.device) or x.dtype == torch.float64:
        return x, u, bias, residual
    dtype = torch.float32 if x.is_cpu else torch.get_autocast_dtype(x.device.type)
    wide = (dtype, compute_dtype(dtype))
    u = u if u.dtype in wide else u.to(dtype)
    bias = bias if bias is None or bias.dtype in wide else bias.to(dtype)
    return x.to(dtype), u, bias, None if residual is None else residual.to(dtype)
