"""Builders of normalisation: group and instance norm."""

from math import ceil, prod

import numpy as np

from lrw_kernels.codegen.kernel import RANGE, Kernel
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.records import FLOAT
from lrw_kernels.cpu.operators.rows import by_pixel
from lrw_kernels.cpu.operators.step import Step, View, at, rounded, strides
from lrw_kernels.cpu.operators.taps import Array

PIXELS = 1024  # of a work item; short sums in float32, put together in float64


def workspace_bytes(x: View) -> int:
    """Of memory the steps share, written by the first ones and read by the last."""
    return (_count(x) + 1) * x.size[0] * 3 * rounded(x.channels * FLOAT)


def normalise(
    x: View, y: View, groups: int, epsilon: float, gain: Array, offset: Array, machine: Machine, workspace: int
) -> tuple[Step, ...]:
    """Each sample's `groups` of channels to mean 0 and variance 1 (plus epsilon), times gain [C], plus offset [C].
    `workspace` is the address of workspace_bytes(x), a multiple of 64. y may be x."""
    line, lanes = rounded(x.channels * FLOAT), machine.lanes("float32")
    samples, count = x.size[0], _count(x)
    results = workspace + samples * count * 3 * line
    tables = tuple(np.ascontiguousarray(of, np.float32) for of in (gain, offset, [epsilon]))
    out = {f"out_{axis}": size for axis, size in zip("dhw", x.size[1:4], strict=True)}
    record = records.Statistics(
        **strides("x", x),
        **out,
        channels=x.channels,
        rows=_rows(x),
        count=count,
        line=line,
        parts=workspace,
        results=results,
        groups=groups,
        group_channels=x.channels // groups,
        gain=at(tables[0]),
        offset=at(tables[1]),
        epsilon=at(tables[2]),
    )
    parts = Kernel("cpu.operators.norm_kernels.parts_range", (lanes,), RANGE)
    statistics = Kernel("cpu.operators.norm_kernels.statistics_range", (), RANGE)
    last = by_pixel("normal", x, x, y, machine)
    last.record.set(centre=results, scale=results + line, shift=results + 2 * line, scale_n=3 * line)
    return (
        Step(parts, record, samples * count, 0, tables),
        Step(statistics, record, samples * groups, 0, tables),
        last,
    )


def _rows(x: View) -> int:
    """Of a part of a sample."""
    return max(1, PIXELS // x.size[3])


def _count(x: View) -> int:
    """Parts of a sample."""
    return ceil(prod(x.size[1:3]) / _rows(x))
