"""Activations as vectors in torch's order."""

from itertools import product
from math import ceil

from lrw_kernels.codegen.machine import FLOAT, Machine
from lrw_kernels.cpu import library, records
from lrw_kernels.cpu.step import Step, Steps, View, job

CHUNK = 64  # pixels and channels of a work item


def channels_first(x: View, y: View, machine: Machine) -> Steps:
    """y [N, 1, 1, 1, C * D * H * W] of x [N, D, H, W, C]: channels, then pixels. A step where all pixels of a sample
    are equally far apart; else one for each run of them that is."""
    sample = x._replace(size=(1, *x.size[1:]))
    sizes, apart = sample.merged()
    pixels, kernel = sample.pixels, library.matrix_item("float32", machine.lanes("float32"), True)
    together = sizes[3] == pixels  # then samples are the matrices
    steps = []
    for n, d, h in [(0, 0, 0)] if together else product(range(x.size[0]), range(sizes[1]), range(sizes[2])):
        first = (d * sizes[2] + h) * sizes[3]
        made = job(
            records.Matrix,
            source=x.address + n * x.strides[0] + d * apart[1] + h * apart[2],
            source_outer=x.strides[0],
            target=y.address + n * y.strides[0] + first * FLOAT,
            target_outer=y.strides[0],
            source_row=apart[3],
            target_row=pixels * FLOAT,
            rows=sizes[3],
            columns=x.channels,
            row_chunk=CHUNK,
            column_chunk=CHUNK,
            target_i=CHUNK * FLOAT,
            target_j=CHUNK * pixels * FLOAT,
        )
        items = ceil(sizes[3] / CHUNK) * ceil(x.channels / CHUNK) * (x.size[0] if together else 1)
        steps.append(Step(kernel, made, items))
    return Steps(tuple(steps))
