"""Builder of resampling."""

from collections.abc import Sequence

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.pool import Axes, by_axis, from_to, pool
from lrw_kernels.cpu.step import Step, Steps, View, job, share_channels

Shares = tuple[Sequence[float], Sequence[float], Sequence[float]]


def resample(x: View, y: View, machine: Machine, *, low: Axes, high: Axes, share: Shares) -> Steps:
    """Output o of an axis is (1 - share[o]) x[low[o]] + share[o] x[high[o]]; where no share counts, x[low[o]]."""
    if not any(any(axis) for axis in share):
        after = tuple([index + 1 for index in axis] for axis in low)
        ones = tuple([1] * len(axis) for axis in low)
        return pool(x, y, machine, "max", starts=low, ends=after, counts=ones)  # type: ignore[arg-type]
    shares = {f"share_{axis}": np.array(values, np.float32) for axis, values in zip("dhw", share, strict=True)}
    tables = {**by_axis("low", low), **by_axis("high", high), **shares}
    made = job(records.Resample, **from_to(x, y), **tables, channels=y.channels)
    kernel = Kernel("cpu.operators.resample_kernels.resample_item", (machine.lanes("float32"),), ITEM)
    return Steps.of(Step(kernel, made, share_channels(y, machine)[0]))
