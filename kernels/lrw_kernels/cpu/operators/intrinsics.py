"""Numba's door to the operators' vector code, as `lrw_kernels.cpu.intrinsics` is to the transforms'.

Texts and numbers of lanes are literals, everything else int64; channels come in counts of any size.
"""

from typing import Any

from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic

from lrw_kernels.cpu.intrinsics import LONG, does, gives, reader
from lrw_kernels.cpu.operators import emit, records
from lrw_kernels.cpu.records import layout
from lrw_kernels.cpu.vector import Vectors

DIRECT, DEPTHWISE, POOL, RESAMPLE, ROWS, STATISTICS = (
    from_dtype(layout(record))
    for record in (
        records.Direct,
        records.Depthwise,
        records.Pool,
        records.Resample,
        records.Rows,
        records.Statistics,
    )
)
direct_at, depthwise_at, pool_at, resample_at, rows_at, statistics_at = (
    reader(record) for record in (DIRECT, DEPTHWISE, POOL, RESAMPLE, ROWS, STATISTICS)
)


def _vectors(builder: Any, lanes: Any) -> Vectors:
    return Vectors(builder, "float32", lanes.literal_value)


@intrinsic(prefer_literal=True)
def gather_run(_, lanes, source, target, step, begin, end, count):
    """See `emit.emit_gather`."""
    return types.void(lanes, *(LONG,) * 6), does(lambda b, a: emit.emit_gather(_vectors(b, lanes), a[1:]))


@intrinsic(prefer_literal=True)
def finish_pixel(_, lanes, source, step, bias, residual, target, relu, count):
    """See `emit.emit_finish`."""
    return types.void(lanes, *(LONG,) * 7), does(lambda b, a: emit.emit_finish(_vectors(b, lanes), a[1:]))


@intrinsic
def load_float(_, address):
    """One float32, as float64."""

    def load(b: Any, a: list[Any]) -> Any:
        return b.fpext(b.load(b.inttoptr(a[0], ir.FloatType().as_pointer())), ir.DoubleType())

    return types.float64(LONG), gives(load)


@intrinsic
def store_float(_, address, value):
    """Write a float64 as float32."""

    def store(b: Any, a: list[Any]) -> None:
        b.store(b.fptrunc(a[1], ir.FloatType()), b.inttoptr(a[0], ir.FloatType().as_pointer()))

    return types.void(LONG, types.float64), does(store)


@intrinsic(prefer_literal=True)
def depthwise_pixel(
    _, lanes, x, weights, n_d, n_h, n_w, x_d, x_h, x_w, w_d, w_h, w_w, bias, residual, target, relu, count
):
    """See `emit.emit_depthwise`."""
    return types.void(lanes, *(LONG,) * 16), does(lambda b, a: emit.emit_depthwise(_vectors(b, lanes), a[1:]))
