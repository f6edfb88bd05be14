"""Builders of normalisation: group and instance norm."""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import FLOAT, Machine, whole_lines
from lrw_kernels.codegen.references import Section, symbolic
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.rows import by_pixel, chained
from lrw_kernels.cpu.step import ITEMS, Step, Steps, View, axes, job, parameters_of, strides
from lrw_kernels.network.operators import Normalise

CHANNELS = 64  # of several pixels that are taken as one
PIXELS = 1024  # of a work item; short sums in float32, put together in float64


def normalise(x: View, z: View | None, y: View, of: Normalise, machine: Machine) -> Steps:
    """The steps of `of`, with z as the second input, if there is one. y may be x or z. The first steps write what the
    last one reads to the memory they share."""
    samples, channels, times = x.size[0], x.channels, _together([view for view in (x, z, y) if view])
    adds = z is not None
    x, z, y = _widened([view.together(times) for view in (x, z or x, y)])
    rows = max(1, min(PIXELS // x.size[3], ceil(samples * prod(x.size[1:3]) / ITEMS)))
    words = chained("normal add" if adds and not of.late else "normal", of.after)
    words = f"{words} add" if adds and of.late else words
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
        groups=of.groups,
        group_channels=channels // of.groups,
        times=times,
        gain=np.ascontiguousarray(of.scale, np.float32),
        offset=np.ascontiguousarray(of.shift, np.float32),
        epsilon=np.array([of.epsilon], np.float32),
    )
    first = Kernel("cpu.operators.norm_kernels.parts_item", (lanes,), ITEM)
    statistics = Kernel("cpu.operators.norm_kernels.statistics_item", (), ITEM)
    last, table = by_pixel(words, x, z, y, machine), parameters_of(of.after and of.after.repeated(times))
    by_sample = {"centre": results, "scale": results + line, "shift": results + 2 * line, "scale_n": 3 * line}
    made = (
        Step(first, of_parts, samples * count),
        Step(statistics, of_parts, samples * of.groups),
        last._replace(job=last.job.but(**by_sample, parameters=table)),
    )
    return Steps(made, shared=(count + 1) * samples * 3 * line)


def _together(views: Sequence[View]) -> int:
    """How many pixels of a row are taken as one: a few channels fill no vector."""
    width, channels = views[0].size[3:]
    if not all(view.side_by_side for view in views):
        return 1
    most = max(1, min(width, CHANNELS // channels))
    return max(n for n in range(1, most + 1) if width % n == 0)


def _widened(views: Sequence[View]) -> Sequence[View]:
    """All with rows of up to PIXELS, where all can have them and there still are enough rows to share out."""
    most = min(PIXELS, max(views[0].size[3], prod(views[0].size[:4]) // ITEMS))
    wide = [view.widened(most) for view in views]
    return wide if len({view.size for view in wide}) == 1 else views
