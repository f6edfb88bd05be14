"""Builder of what takes planes, rows and pixels by tables: slices, padding, other orders."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import FLOAT, Machine
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.step import Step, Steps, View, axes, integers, job, strides

Axes = tuple[Sequence[int], Sequence[int], Sequence[int]]
LONGEST = 2048  # numbers of a run: as many of the value stay in the first-level cache


class Run(NamedTuple):
    """So many `numbers` that follow one another in a row of the output, from byte `to` on, and in one of the input,
    from byte `source` on; that is -1 where they are outside."""

    to: int
    source: int
    numbers: int


def gather(x: View, y: View, machine: Machine, index: Axes, value: float = 0.0) -> Steps:
    """Output o of an axis is input index[o], all of it `value` where that is -1."""
    found = runs(x, y, index[2])
    made = job(
        records.Gather,
        **strides("x", x),
        **strides("y", y),
        **axes("out", y.size[1:4]),
        planes=integers(index[0]),
        rows=integers(index[1]),
        runs=np.array(found, np.int64),
        count=len(found),
        value=np.full(max(run.numbers for run in found), value, np.float32),
    )
    kernel = Kernel("cpu.operators.gather_kernels.gather_item", (machine.lanes("float32"),), ITEM)
    return Steps.of(Step(kernel, made, prod(y.size[:3])))


def runs(x: View, y: View, index: Sequence[int]) -> list[Run]:
    """The runs of a row that takes pixels `index`, -1 outside: as long as they are, up to LONGEST or a pixel."""
    found: list[Run] = []
    for place, pixel in enumerate(index):
        here = Run(place * y.strides[3], pixel * x.strides[3] if pixel >= 0 else -1, y.channels)
        if found and _follows(here, found[-1]) and found[-1].numbers + here.numbers <= LONGEST:
            here = found[-1]._replace(numbers=found.pop().numbers + here.numbers)
        found.append(here)
    return found


def _follows(here: Run, before: Run) -> bool:
    """Whether a run begins where one before it ends, in both rows."""
    size = before.numbers * FLOAT
    source = -1 if before.source < 0 else before.source + size
    return (here.to, here.source) == (before.to + size, source)
