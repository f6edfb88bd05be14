"""Builders of normalisation: group and instance norm."""

from math import ceil, prod

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import FLOAT, Machine, whole_lines
from lrw_kernels.codegen.references import Section, symbolic
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.rows import by_pixel, chained
from lrw_kernels.cpu.operators.taps import Array
from lrw_kernels.cpu.step import Step, Steps, View, axes, job, parameters_of, strides
from lrw_kernels.network.operators import Pointwise

PIXELS = 1024  # of a work item; short sums in float32, put together in float64


def normalise(
    x: View, y: View, groups: int, epsilon: float, gain: Array, offset: Array, machine: Machine,
    after: Pointwise | None = None,
) -> Steps:  # fmt: skip
    """Each sample's `groups` of channels to mean 0 and variance 1 (plus epsilon), times gain [C], plus offset [C]; then
    a function, if there is one. y may be x. The first steps write what the last one reads to the
    memory they share."""
    line, lanes = whole_lines(x.channels * FLOAT), machine.lanes("float32")
    samples, count = x.size[0], _count(x)
    parts = symbolic(Section.SHARED)
    results = parts + samples * count * 3 * line
    of_parts = job(
        records.Statistics,
        **strides("x", x),
        **axes("out", x.size[1:4]),
        channels=x.channels,
        rows=_rows(x),
        count=count,
        line=line,
        parts=parts,
        results=results,
        groups=groups,
        group_channels=x.channels // groups,
        gain=np.ascontiguousarray(gain, np.float32),
        offset=np.ascontiguousarray(offset, np.float32),
        epsilon=np.array([epsilon], np.float32),
    )
    first = Kernel("cpu.operators.norm_kernels.parts_item", (lanes,), ITEM)
    statistics = Kernel("cpu.operators.norm_kernels.statistics_item", (), ITEM)
    last = by_pixel(chained("normal", after), x, x, y, machine)
    by_sample = {"centre": results, "scale": results + line, "shift": results + 2 * line, "scale_n": 3 * line}
    made = (
        Step(first, of_parts, samples * count),
        Step(statistics, of_parts, samples * groups),
        last._replace(job=last.job.but(**by_sample, parameters=parameters_of(after))),
    )
    return Steps(made, shared=(count + 1) * samples * 3 * line)


def _rows(x: View) -> int:
    """How many rows of a sample [D, H] a part of it has: about PIXELS pixels, one row at least."""
    return max(1, PIXELS // x.size[3])


def _count(x: View) -> int:
    """How many parts a sample has; the last one may have fewer rows."""
    return ceil(prod(x.size[1:3]) / _rows(x))
