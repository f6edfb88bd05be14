"""Activations in torch's order and in that of the backends: memory formats, and the dtype products are formed in."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, pairwise
from operator import mul
from typing import Any

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype products are formed in: float32 for half precision, else the tensor's own."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which tensor operations on `device` keep their dtypes."""
    return torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext()


def autocast(dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """A block with autocast to `dtype` on the CPU, or without."""
    return torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for tensors on `device`; meta has none.

    torch 2.11 compiles no function that asks `torch.amp.is_autocast_available`.
    """
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def memory_format(x: Tensor) -> torch.memory_format:
    """The memory format of an activation, for what is computed of it."""
    return torch.channels_last_3d if is_channels_last(x) else torch.contiguous_format


def is_channels_last(x: Tensor) -> bool:
    """Whether torch takes x [N, C, D, H, W] for channels_last_3d, and not for contiguous."""
    if not x.is_contiguous(memory_format=torch.channels_last_3d):
        return False
    return not x.is_contiguous() or _strides_are_channels_last(x)


def _strides_are_channels_last(x: Tensor) -> bool:
    """torch's own rule (c10's is_channels_last_strides_3d), which tells where one channel or one pixel lies both ways.

    `x.to(memory_format=torch.channels_last_3d)` gives such strides, a contiguous tensor never has them.
    """
    sizes, strides = x.shape, x.stride()
    if 0 in sizes or strides[1] == 0 or strides[2] * sizes[2] == strides[1]:
        return False
    return all(strides[slow] >= strides[fast] * sizes[fast] for fast, slow in pairwise((1, 4, 3, 2, 0)))


def inner(x: Tensor) -> Tensor:
    """[N, C, D, H, W] as the backends' [N, D, H, W, C]."""
    return x.permute(0, 2, 3, 4, 1)


def outer(y: Tensor, like: Tensor) -> Tensor:
    """Back to [N, C, D, H, W], in the dtype and memory format of `like`."""
    y = y if y.dtype == like.dtype else y.to(like.dtype)
    if is_channels_last(like):
        return _plain(y.contiguous()).permute(0, 4, 1, 2, 3)
    return _plain(y.permute(0, 4, 1, 2, 3).contiguous())


def _plain(y: Tensor) -> Tensor:
    """Contiguous `y` with the strides of its shape: on axes of length one others may do, but they tell the layout."""
    if 1 not in y.shape:
        return y
    strides = tuple(accumulate(reversed(y.shape[1:]), mul, initial=1))[::-1]
    return y if y.stride() == strides else y.reshape(-1).view(y.shape)


def owned(y: Tensor) -> Tensor:
    """`y` as a tensor in its own right: in-place operations on what a module returns must not meet a view (FSDP)."""
    if not y._is_view():
        return y
    form = (y.storage_offset(), y.size(), y.stride())
    return torch.empty(0, dtype=y.dtype, device=y.device).set_(y.untyped_storage(), *form)


def formatted(y: Tensor, like: Tensor) -> Tensor:
    """y [N, C, D, H, W] itself where it has the memory format of `like`; else a copy that has it, and its dtype."""
    return y if is_channels_last(y) == is_channels_last(like) else outer(inner(y), like)


def unwritten(like: Tensor, shape: Sequence[Any]) -> Tensor:
    """An activation of `shape`, with the dtype, device and memory format of `like`, that nothing was written to."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format(like))
