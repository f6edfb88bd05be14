"""Builder of linear layers: dot products of vectors with the rows of a weight, read where they lie."""

from math import ceil

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import FLOAT, Machine, whole_lines
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.taps import Array
from lrw_kernels.cpu.step import ITEMS, PLAIN, Epilogue, Held, Step, Steps, View, job

SAMPLES = 4  # that a row of the weight meets in registers
ROWS, OF_SEVERAL = 8, 4  # of the weight at a time: for one group of samples, or several, which then meet them in L1
CHUNK = 512  # numbers of the sum where there are several groups: OF_SEVERAL rows and SAMPLES of x stay in L1
OUTPUTS, BATCH = 64, 64  # of a work item at most: what it asks for ahead, and its chunk of x, stay in L2


def linear(x: View, y: View, weight: Array, machine: Machine, epilogue: Epilogue = PLAIN) -> Steps:
    """The steps of y = x weight^T, on vectors [N, 1, 1, 1, C], with weight [Cout, Cin]; then the epilogue."""
    batch, lanes = x.size[0], machine.lanes("float32")
    block = ceil(batch / ceil(batch / BATCH))
    groups = ceil(block / SAMPLES)
    samples, rows = ceil(block / groups), ROWS if groups == 1 else OF_SEVERAL
    unit = max(lanes, ROWS)
    outputs = unit * max(1, min(OUTPUTS // unit, y.channels // unit // ITEMS))
    residual = epilogue.residual
    made = job(
        records.Linear,
        x=x.address,
        x_n=x.strides[0],
        y=y.address,
        y_n=y.strides[0],
        residual=residual.address if residual else 0,
        residual_n=residual.strides[0] if residual else 0,
        **epilogue.fields(ceil(y.channels / lanes) * lanes),
        weights=Held(np.ascontiguousarray(weight, np.float32)),
        weights_row=x.channels * FLOAT,
        batch=batch,
        block=block,
        channels=y.channels,
        outputs=outputs,
        terms=x.channels,
        chunk=x.channels if groups == 1 else CHUNK,
        total=outputs * FLOAT,
    )
    ahead = CHUNK * FLOAT if machine.prefetch else 0  # the next chunk, if there are several
    kernel = Kernel("cpu.operators.linear_kernels.linear_item", (lanes, rows, samples, ahead, epilogue.function), ITEM)
    items = ceil(y.channels / outputs) * ceil(batch / block)
    return Steps.of(Step(kernel, made, items, whole_lines(groups * samples * outputs * FLOAT)))
