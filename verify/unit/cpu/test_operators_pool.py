"""Pooling: any windows; channels of wider buffers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import NEON, Machine
from lrw_kernels.cpu.operators.pool import Axes, pool
from verify.tolerances import assert_close
from verify.unit.cpu.operators import (
    EPS,
    Buffer,
    Input,
    Triple,
    assert_lowers,
    every_machine,
    from_torch,
    inputs,
    run,
    to_torch,
    triples,
)

SETTINGS = settings(max_examples=30)


def windows(size: Triple, kernel: Triple, stride: Triple, padding: Triple) -> tuple[Axes, Axes, Axes] | None:
    """Starts, ends and padded counts of torch's pooling; None where there is no output."""
    axes = []
    for n, k, s, p in zip(size, kernel, stride, padding, strict=True):
        firsts = range(-p, n + p - k + 1, s)
        axes.append([(max(0, i), min(n, i + k), k) for i in firsts])
    if not all(axes):
        return None
    starts, ends, counts = (tuple([window[i] for window in axis] for axis in axes) for i in range(3))
    return starts, ends, counts


@every_machine
@SETTINGS
@given(inputs, triples(1, 4), triples(1, 3), st.booleans(), st.sampled_from(["max", "mean"]), st.booleans())
def test_pooling(
    machine: Machine, case: Input, kernel: Triple, stride: Triple, padded: bool, kind: str, whole: bool
) -> None:
    size = case.size[1:4]
    kernel = size if whole else tuple(min(k, n) for k, n in zip(kernel, size, strict=True))
    padding = tuple(k // 2 if padded else 0 for k in kernel)
    starts, ends, counts = windows(size, kernel, stride, padding)
    if kind == "max":
        expected = from_torch(torch.nn.functional.max_pool3d(to_torch(case.x), kernel, stride, padding))
    else:
        expected = from_torch(torch.nn.functional.avg_pool3d(to_torch(case.x), kernel, stride, padding))
    source, target = Buffer(case.size, *case.wider, case.x), Buffer(expected.shape, *case.wider)
    run(pool(source.view, target.view, machine, kind, starts=starts, ends=ends, counts=counts), case.threads)
    terms = int(np.prod(kernel))
    tolerance = 0.0 if kind == "max" else EPS * (sum(kernel) + 1) * float(np.abs(case.x).max()) * min(terms, 2)
    assert_close(target.check(), expected, tolerance, f"{case} {kernel} {stride} {padding}")


def test_maximum_of_nothing_and_of_nan() -> None:
    """torch's: NaN wherever a window holds one, on either side of the largest; -inf of no inputs."""
    x = np.arange(24, dtype=np.float32).reshape(1, 1, 1, 4, 6)
    x[0, 0, 0, 0, 0] = x[0, 0, 0, 1, 1] = x[0, 0, 0, 1, 5] = np.nan
    source, target = Buffer(x.shape, 0, 0, x), Buffer((1, 1, 1, 3, 6), 0, 0)
    one = [0], [0], [0, 2, 1]
    ends, counts = ([1], [1], [2, 4, 1]), ([1], [1], [1, 1, 1])
    run(pool(source.view, target.view, NEON, "max", starts=one, ends=ends, counts=counts))
    nan = np.nan
    expected = [[nan, nan, 8, 9, 10, nan], [18, 19, 20, 21, 22, 23], [-np.inf] * 6]
    np.testing.assert_array_equal(target.numbers[0, 0, 0], expected)


@pytest.mark.parametrize("channels", [64, 1000])
def test_pooling_everything_shares_out_channels(channels: int) -> None:
    source, target = Buffer((1, 4, 4, 4, channels), 0, 0), Buffer((1, 1, 1, 1, channels), 0, 0)
    four, ones = ([4], [4], [4]), ([0], [0], [0])
    (step,) = pool(source.view, target.view, NEON, "mean", starts=ones, ends=four, counts=four).steps
    assert step.items >= 16


def test_its_kernel_lowers_to_another_machine() -> None:
    x, zeros, ones = Buffer((1, 1, 1, 1, 3), 0, 0).view, ([0], [0], [0]), ([1], [1], [1])
    assert_lowers([pool(x, x, NEON, "mean", starts=zeros, ends=ones, counts=ones)])
