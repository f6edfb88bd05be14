"""Builders of normalisation: group and instance norm."""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import FLOAT, Machine, whole_lines
from lrw_kernels.codegen.references import Section, symbolic
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.records import SCALES
from lrw_kernels.cpu.operators.rows import by_pixel, chained
from lrw_kernels.cpu.step import ITEMS, Step, Steps, Sums, View, axes, job, parameters_of, strides
from lrw_kernels.network.operators import Normalise

CHANNELS = 64  # of several pixels that are taken as one
PIXELS = 1024  # of a work item; short sums in float32, put together in float64


def normalise(x: View, z: View | None, y: View, of: Normalise, machine: Machine, sums: Sums | None = None) -> Steps:
    """The steps of `of`, with z as the second input, if there is one. y may be x or z. `sums` of x are formed here
    where nobody left any. The first steps write what the last one reads to the memory they share."""
    samples, copies = x.size[0], _together([view for view in (x, z, y) if view])
    adds, numbers = z is not None, prod(x.size[1:]) // of.groups
    words = chained("normal add" if adds and not of.late else "normal", of.after)
    words = f"{words} add" if adds and of.late else words
    group_channels = x.channels // of.groups
    x, z, y = _widened([view.together(copies) for view in (x, z or x, y)])
    line = whole_lines(x.channels * FLOAT)
    results = symbolic(Section.SHARED)
    known, rows = (sums, 0) if sums else _summed(x, line, results + samples * SCALES * line)
    of_sums = job(
        records.Statistics,
        **strides("x", x),
        **axes("out", x.size[1:4]),
        channels=x.channels,
        rows=rows,
        line=known.line,
        times=1 if sums else copies,
        parts=known.address,
        tiles=known.tiles,
        sample_tiles=known.sample_tiles,
        numbers=numbers,
        groups=of.groups,
        group_channels=group_channels,
        copies=copies,
        result_line=line,
        results=results,
        gain=np.ascontiguousarray(of.scale, np.float32),
        offset=np.ascontiguousarray(of.shift, np.float32),
        epsilon=np.array([of.epsilon], np.float32),
    )
    first = Kernel("cpu.operators.norm_kernels.sums_item", (machine.lanes("float32"),), ITEM)
    statistics = Kernel("cpu.operators.norm_kernels.statistics_item", (), ITEM)
    last, table = by_pixel(words, x, z, y, machine), parameters_of(of.after and of.after.repeated(copies))
    by_sample = {"centre": results, "scale": results + line, "shift": results + 2 * line, "scale_n": SCALES * line}
    made = (
        *(() if sums else (Step(first, of_sums, samples * known.sample_tiles),)),
        Step(statistics, of_sums, samples * of.groups),
        last._replace(job=last.job.but(**by_sample, parameters=table)),
    )
    return Steps(made, shared=samples * SCALES * line + (0 if sums else known.size(samples)))


def _summed(x: View, line: int, address: int) -> tuple[Sums, int]:
    """Sums at `address` of as many rows of x at a time, the last ones of a sample may be fewer; and how many."""
    rows = max(1, min(PIXELS // x.size[3], ceil(x.size[0] * prod(x.size[1:3]) / ITEMS)))
    return Sums(address, line, 1, ceil(prod(x.size[1:3]) / rows)), rows


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
