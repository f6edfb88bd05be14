"""Planes, rows and pixels by tables."""

from lrw_kernels.codegen.intrinsics import get
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import ADDRESS
from lrw_kernels.cpu.operators.intrinsics import apply, gather_at
from lrw_kernels.cpu.operators.rows_kernels import row_place

RUN = 3 * ADDRESS


def gather_item(lanes: int) -> Function:
    """Items are rows of output pixels: `records.Gather`."""

    def gather(job, item, scratch):
        k = gather_at(job)
        n, d, h = row_place(k, item)
        plane, row = get(k.planes + d * ADDRESS), get(k.rows + h * ADDRESS)
        x, inside = k.x + n * k.x_n + plane * k.x_d + row * k.x_h, plane >= 0 and row >= 0
        y = k.y + n * k.y_n + d * k.y_d + h * k.y_h
        for i in range(k.count):
            run = k.runs + i * RUN
            source, to = get(run + ADDRESS), y + get(run)
            given = x + source if inside and source >= 0 else k.value
            apply("copy", lanes, given, given, to, 0, 0, 0, 0, get(run + 2 * ADDRESS))

    return gather
