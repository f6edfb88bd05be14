"""Activations in memory as CPU kernels want them: new ones, and channels first into channels last and back."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from lrw_kernels.codegen.arena import ARENA
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu import layout

LARGE = 1 << 20  # bytes; smaller tensors find their pages in the C library's heap
_MOVED = {torch.float32: "float32", torch.float64: "float64"}  # what the kernels transpose


def empty(shape: Sequence[int], dtype: torch.dtype, strides: Sequence[int] | None = None) -> Tensor:
    """A new tensor; a large one in memory from the arena, which goes back there with the tensor: fresh pages cost
    as much time as writing them. Such a tensor cannot be resized in place."""
    count = prod(shape)
    size = count * dtype.itemsize
    if size < LARGE:
        form: dict[str, Any] = {"dtype": dtype, "device": "cpu"}  # whatever device is the default
        return torch.empty(shape, **form) if strides is None else torch.empty_strided(shape, strides, **form)
    whole = torch.frombuffer(ARENA.buffer(size), dtype=dtype, count=count)
    return whole.view(shape) if strides is None else whole.as_strided(shape, strides)


def channels_last(x: Tensor, machine: Machine, threads: int) -> Tensor:
    """x [N, D, H, W, C] with contiguous channels: itself, or a copy.

    Pixels of a row must not lie further apart than their channels: kernels read rows outside from a row of zeros.
    """
    if has_last(x):
        return x if x.stride(3) <= x.shape[4] or x.shape[3] == 1 else x.contiguous()
    first = x.permute(0, 4, 1, 2, 3)
    if not first.is_contiguous() or x.dtype not in _MOVED:
        return x.contiguous()
    last = empty(x.shape, x.dtype)
    shape = (first.shape[0], first.shape[1], first[0, 0].numel())
    layout.transpose(first.data_ptr(), last.data_ptr(), shape, machine, _MOVED[x.dtype], threads)
    return last


def channels_first(y: Tensor, machine: Machine, threads: int) -> Tensor:
    """[N, C, D, H, W] contiguous of y [N, D, H, W, C] contiguous, float32 or float64; of one channel its memory."""
    if y.shape[4] == 1:
        return y.view(y.shape[0], 1, *y.shape[1:4])
    first = empty((y.shape[0], y.shape[4], *y.shape[1:4]), y.dtype)
    shape = (y.shape[0], y[0, ..., 0].numel(), y.shape[4])
    layout.transpose(y.data_ptr(), first.data_ptr(), shape, machine, _MOVED[y.dtype], threads)
    return first


def has_last(x: Tensor) -> bool:
    """Whether the channels of x [N, D, H, W, C] are contiguous."""
    return x.stride(4) == 1 or x.shape[4] == 1
