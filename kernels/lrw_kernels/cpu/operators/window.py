"""Builders of pooling and resampling."""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np

from lrw_kernels.codegen.kernel import RANGE, Kernel
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.step import Step, Steps, Table, View, axes, integers, job, share_channels, strides

Axes = tuple[Sequence[int], Sequence[int], Sequence[int]]
Shares = tuple[Sequence[float], Sequence[float], Sequence[float]]
MOST_PIXELS = 27  # of a window in straight code
Tables = dict[str, Table]


def pool(x: View, y: View, machine: Machine, kind: str, *, starts: Axes, ends: Axes, counts: Axes) -> Steps:
    """The maximum ("max"; of nothing -inf) or the mean ("mean") over windows: output o of an axis takes inputs
    starts[o]..ends[o] (not included); a mean divides by the product of the axes' counts[o]."""
    tables = {**_by_axis("starts", starts), **_by_axis("ends", ends), **_by_axis("counts", counts)}
    rows, split = share_channels(y, machine)
    made = job(records.Pool, **_views(x, y), **tables, channels=y.channels, split=split)
    arguments = (kind, _shape(starts, ends), machine.lanes("float32"))
    kernel = Kernel("cpu.operators.window_kernels.pool_range", arguments, RANGE)
    return Steps.of(Step(kernel, made, rows * ceil(y.channels / split)))


def resample(x: View, y: View, machine: Machine, *, low: Axes, high: Axes, share: Shares) -> Steps:
    """Output o of an axis is (1 - share[o]) x[low[o]] + share[o] x[high[o]]; where no share counts, x[low[o]]."""
    if not any(any(axis) for axis in share):
        after = tuple([index + 1 for index in axis] for axis in low)
        ones = tuple([1] * len(axis) for axis in low)
        return pool(x, y, machine, "max", starts=low, ends=after, counts=ones)  # type: ignore[arg-type]
    shares = {f"share_{axis}": np.array(values, np.float32) for axis, values in zip("dhw", share, strict=True)}
    tables = {**_by_axis("low", low), **_by_axis("high", high), **shares}
    made = job(records.Resample, **_views(x, y), **tables, channels=y.channels)
    kernel = Kernel("cpu.operators.window_kernels.resample_range", (machine.lanes("float32"),), RANGE)
    return Steps.of(Step(kernel, made, share_channels(y, machine)[0]))


def _shape(starts: Axes, ends: Axes) -> str:
    """The size of all windows, such as "2x2x2", if they have one of at most MOST_PIXELS pixels (unrolled), else ""."""
    sizes = [{end - start for start, end in zip(*axis, strict=True)} for axis in zip(starts, ends, strict=True)]
    shape = [size for of_axis in sizes for size in of_axis if len(of_axis) == 1 and size > 0]
    return "x".join(map(str, shape)) if len(shape) == 3 and prod(shape) <= MOST_PIXELS else ""


def _by_axis(name: str, values: Axes) -> Tables:
    return {f"{name}_{axis}": integers(of_axis) for axis, of_axis in zip("dhw", values, strict=True)}


def _views(x: View, y: View) -> dict[str, int]:
    return {**strides("x", x), **strides("y", y), **axes("out", y.size[1:4])}
