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

CHANNELS = 64  # of several pixels that are taken as one
PIXELS = 1024  # of a work item; short sums in float32, put together in float64


def normalise(
    x: View, y: View, groups: int, epsilon: float, gain: Array, offset: Array, machine: Machine,
    after: Pointwise | None = None,
) -> Steps:  # fmt: skip
    """Each sample's `groups` of channels to mean 0 and variance 1 (plus epsilon), times gain [C], plus offset [C]; then
    a function, if there is one. y may be x. The first steps write what the last one reads to the memory they share."""
    samples, channels, rows, times = x.size[0], x.channels, _rows(x.size[3]), _together(x, y)
    x, y = x.together(times), y.together(times)
    line, lanes = whole_lines(x.channels * FLOAT), machine.lanes("float32")
    count = ceil(prod(x.size[1:3]) / rows)  # parts of a sample; the last one may have fewer rows
    parts = symbolic(Section.SHARED)
    results = parts + samples * count * 3 * line
    of_parts = job(
        records.Statistics,
        **strides("x", x),
        **axes("out", x.size[1:4]),
        channels=x.channels,
        rows=rows,
        count=count,
        line=line,
        parts=parts,
        results=results,
        groups=groups,
        group_channels=channels // groups,
        times=times,
        gain=np.ascontiguousarray(gain, np.float32),
        offset=np.ascontiguousarray(offset, np.float32),
        epsilon=np.array([epsilon], np.float32),
    )
    first = Kernel("cpu.operators.norm_kernels.parts_item", (lanes,), ITEM)
    statistics = Kernel("cpu.operators.norm_kernels.statistics_item", (), ITEM)
    last, table = by_pixel(chained("normal", after), x, x, y, machine), parameters_of(after and after.repeated(times))
    by_sample = {"centre": results, "scale": results + line, "shift": results + 2 * line, "scale_n": 3 * line}
    made = (
        Step(first, of_parts, samples * count),
        Step(statistics, of_parts, samples * groups),
        last._replace(job=last.job.but(**by_sample, parameters=table)),
    )
    return Steps(made, shared=(count + 1) * samples * 3 * line)


def _together(x: View, y: View) -> int:
    """How many pixels of a row are taken as one: a few channels fill no vector."""
    if not (x.side_by_side and y.side_by_side):
        return 1
    most = max(1, min(x.size[3], CHANNELS // x.channels))
    return max(n for n in range(1, most + 1) if x.size[3] % n == 0)


def _rows(width: int) -> int:
    """How many rows of a sample [D, H] of such a width a part of it has: about PIXELS pixels, one row at least."""
    return max(1, PIXELS // width)
