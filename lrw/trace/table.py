"""The table from torch's operators to nodes, one small function each.

A function takes its call's `Site` and the operator's arguments by their schema's names (torch's first one, "self" or
"input", is `x`), adds a node and returns what that computes. It raises Refused, with the reason, for arguments that
cannot be exported. What only rearranges or copies adds no node.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrw.trace import arithmetic, convolutions, functions, places, windows
from lrw.trace.site import Activation, Refused, Site, Value, activation, array, constant, size_of
from lrw_kernels.network.operators import Affine, Array, ChannelsFirst, Concat, Normalise, Softmax

Function = Callable[..., Value]


def softmax(at: Site, x: Value, dim: int, **_: Any) -> Activation:
    """Softmax over the channels, and over no other axis."""
    source = activation(x)
    if dim % len(source.shape) != 1:
        raise Refused(f"dim {dim} of {len(source.shape)}; accepted is 1, the channels")
    return at.add(Softmax(), source)


def cat(at: Site, tensors: Sequence[Value], dim: int) -> Activation:
    """Inputs side by side along the channels, constants of one number a channel among them."""
    if len(tensors) == 1:
        return activation(tensors[0])
    if dim % len(at.shape) != 1:
        raise Refused(f"dim {dim}; accepted is 1, the channels")
    return at.add(Concat(), *_parts(at, tensors))


def _parts(at: Site, tensors: Sequence[Value]) -> list[Activation]:
    """All as activations. Raises Refused for a constant that is not the same throughout a channel."""
    like = next(t for t in tensors if isinstance(t, Activation))
    constants = [t for t in tensors if isinstance(t, Tensor)]
    if not all(map(convolutions.is_level, constants)):
        raise Refused("a constant that differs within a channel; accepted is one number a channel")
    return [convolutions.level(at, t, like) if isinstance(t, Tensor) else activation(t) for t in tensors]


def batch_norm(
    at: Site, x: Value, weight: Value, bias: Value, running_mean: Value, running_var: Value, eps: float,
    training: bool = False, **_: Any,
) -> Activation:  # fmt: skip
    """Normalisation by running statistics: a scale and a shift for each channel."""
    if training or running_mean is None or running_var is None:
        raise Refused("normalises by the batch's own statistics; accepted is what has running ones, in eval mode")
    mean, variance = (np.float64(array(constant(t, "statistics"))) for t in (running_mean, running_var))
    scale = _or_level(weight, 1, variance.size) / np.sqrt(variance + eps)
    shift = _or_level(bias, 0, variance.size) - mean * scale
    return at.add(Affine(scale.astype(np.float32), shift.astype(np.float32)), activation(x))


def _or_level(t: Value, level: float, channels: int) -> Array:
    """A constant [C]; where there is none, `level` throughout."""
    return np.full(channels, level, np.float32) if t is None else array(constant(t, "weight"))


def native_batch_norm(at: Site, x: Value, **how: Any) -> tuple[Value, ...]:
    """`batch_norm`, and nothing of what training would save."""
    given = {"running_mean": None, "running_var": None, **how}
    return batch_norm(at, x, **given), None, None


def instance_norm(
    at: Site, x: Value, weight: Value, bias: Value, running_mean: Value, running_var: Value, use_input_stats: bool,
    eps: float, **_: Any,
) -> Activation:  # fmt: skip
    """Normalisation of each channel of each sample by its own statistics, or by running ones."""
    source = activation(x)
    if not use_input_stats:
        return batch_norm(at, x, weight, bias, running_mean, running_var, eps)
    return _normalise(at, source, source.shape[1], weight, bias, eps)


def group_norm(at: Site, x: Value, num_groups: int, weight: Value, bias: Value, eps: float, **_: Any) -> Activation:
    """Normalisation of groups of channels of each sample by their own statistics."""
    return _normalise(at, activation(x), num_groups, weight, bias, eps)


def _normalise(at: Site, x: Activation, groups: int, weight: Value, bias: Value, eps: float) -> Activation:
    channels = x.shape[1]
    return at.add(Normalise(groups, eps, _or_level(weight, 1, channels), _or_level(bias, 0, channels)), x)


def reshape(at: Site, x: Value, **_: Any) -> Activation:
    """The same shape, [N, C] with ones behind it or without, or all of a volume as [N, C * D * H * W]."""
    source, shape = activation(x), at.shape
    size, after = size_of(source.shape), size_of(shape)
    if shape == source.shape or (size is not None and size == after):
        return Activation(source.name, shape)
    if size is not None and after == (size[0], 1, 1, 1, size[1] * size[2] * size[3] * size[4]):
        return at.add(ChannelsFirst(), source)
    raise Refused(f"from {list(source.shape)} to {list(shape)}; accepted is to [N, C * D * H * W]")


def same(at: Site, x: Value, **_: Any) -> Activation:
    """The input again; taken where shapes stay."""
    source = activation(x)
    if at.shape != source.shape:
        raise Refused(f"from {list(source.shape)} to {list(at.shape)}; accepted is what changes nothing")
    return source


def dropout(at: Site, x: Value, train: bool | None, **_: Any) -> Activation:
    """The input again, in eval mode."""
    if train is not False:
        raise Refused("drops at random (training mode); accepted is eval mode")
    return activation(x)


def native_dropout(at: Site, x: Value, **how: Any) -> tuple[Value, ...]:
    """`dropout`, and no mask."""
    return dropout(at, x, **how), None


def zeros(at: Site, x: Value, **_: Any) -> Tensor:
    """A constant, because sizes are constants."""
    return torch.zeros(at.shape)


TABLE: dict[str, Function] = {
    "aten::conv3d": convolutions.conv3d,
    "aten::conv_transpose3d": convolutions.conv_transpose3d,
    "lrw::winograd_forward": convolutions.winograd_forward,
    "lrw::winograd_blocks_forward": convolutions.winograd_blocks_forward,
    "aten::linear": convolutions.linear,
    "aten::addmm": convolutions.addmm,
    "aten::matmul": convolutions.matmul,
    "aten::batch_norm": batch_norm,
    **dict.fromkeys(
        ("aten::_native_batch_norm_legit_no_training", "aten::_native_batch_norm_legit", "aten::native_batch_norm"),
        native_batch_norm,
    ),
    "aten::instance_norm": instance_norm,
    "aten::group_norm": group_norm,
    "aten::relu": functions.relu,
    "aten::leaky_relu": functions.leaky_relu,
    "aten::prelu": functions.prelu,
    "aten::_prelu_kernel": functions.prelu,
    "aten::gelu": functions.gelu,
    "aten::sigmoid": functions.sigmoid,
    "aten::tanh": functions.tanh,
    "aten::silu": functions.silu,
    "aten::mish": functions.mish,
    "aten::hardswish": functions.hardswish,
    "aten::hardsigmoid": functions.hardsigmoid,
    "aten::elu": functions.elu,
    "aten::celu": functions.celu,
    "aten::selu": functions.selu,
    "aten::softplus": functions.softplus,
    "aten::threshold": functions.threshold,
    "aten::clamp": functions.clamp,
    "aten::clamp_min": functions.clamp,
    "aten::clamp_max": functions.clamp,
    "aten::hardtanh": functions.hardtanh,
    "aten::relu6": functions.relu6,
    "aten::abs": functions.absolute,
    "aten::exp": functions.exp,
    "aten::sqrt": functions.sqrt,
    "aten::softmax": softmax,
    "aten::_softmax": softmax,
    "aten::max_pool3d": windows.max_pool3d,
    "aten::max_pool3d_with_indices": windows.max_pool3d_with_indices,
    "aten::avg_pool3d": windows.avg_pool3d,
    "aten::adaptive_avg_pool3d": windows.adaptive_avg_pool3d,
    "aten::_adaptive_avg_pool3d": windows.adaptive_avg_pool3d,
    "aten::adaptive_max_pool3d": windows.adaptive_max_pool3d,
    "aten::mean": windows.mean,
    "aten::amax": windows.amax,
    "aten::sum": windows.total,
    "aten::upsample_nearest3d": windows.upsample_nearest3d,
    "aten::upsample_trilinear3d": windows.upsample_trilinear3d,
    "aten::add": arithmetic.add,
    "aten::sub": arithmetic.sub,
    "aten::rsub": arithmetic.rsub,
    "aten::mul": arithmetic.mul,
    "aten::div": arithmetic.div,
    "aten::maximum": arithmetic.maximum,
    "aten::minimum": arithmetic.minimum,
    "aten::neg": arithmetic.neg,
    "aten::square": arithmetic.square,
    "aten::pow": arithmetic.power,
    "aten::cat": cat,
    "aten::new_zeros": zeros,
    **dict.fromkeys(
        (f"aten::{name}" for name in "flatten view reshape _unsafe_view squeeze unsqueeze".split()), reshape
    ),
    **dict.fromkeys((f"aten::{name}" for name in "dropout feature_dropout alpha_dropout".split()), dropout),
    "aten::native_dropout": native_dropout,
    **dict.fromkeys((f"aten::{name}" for name in "clone contiguous detach alias lift_fresh_copy".split()), same),
    "aten::to": same,
    "aten::_to_copy": same,
    "aten::slice": places.sliced,
    "aten::split": places.split,
    "aten::split_with_sizes": places.split_with_sizes,
    "aten::repeat": places.repeat,
    "aten::expand": places.expand,
    "aten::flip": places.flip,
    "aten::roll": places.roll,
    "aten::pad": places.pad,
    "aten::constant_pad_nd": places.pad,
    "aten::replication_pad3d": places.replication_pad3d,
    "aten::reflection_pad3d": places.reflection_pad3d,
}
"""Operators by their schema's name."""
