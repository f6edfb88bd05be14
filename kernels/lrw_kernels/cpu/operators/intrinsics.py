"""Numba's door to the operators' vector code, as `lrw_kernels.cpu.intrinsics` is to the transforms'.

Texts and numbers of lanes are literals, everything else int64; channels come in counts of any size.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lrw_kernels.codegen.intrinsics import LONG, does, gives, reader
from lrw_kernels.codegen.machine import NEON
from lrw_kernels.codegen.vector import Vectors
from lrw_kernels.cpu.operators import emit_boxes, emit_linear, emit_rows, emit_windows, records

boxes_at, box_at, patches_at, depthwise_at, linear_at = map(
    reader, (records.Boxes, records.Box, records.Patches, records.Depthwise, records.Linear)
)
pool_at, resample_at, gather_at, rows_at, statistics_at = map(
    reader, (records.Pool, records.Resample, records.Gather, records.Rows, records.Statistics)
)


def _vectors(builder: Any, lanes: Any) -> Vectors:
    count = lanes.literal_value
    return Vectors(builder, "float32", count, native_maximum=count == NEON.lanes("float32"))


@intrinsic(prefer_literal=True)
def gather_run(_, lanes, source, target, begin, end, count):
    """See `emit_windows.emit_gather`."""
    return types.void(lanes, *(LONG,) * 5), does(lambda b, a: emit_windows.emit_gather(_vectors(b, lanes), a[1:]))


@intrinsic(prefer_literal=True)
def finish_pixel(_, function, lanes, source, pitch, bias, residual, target, after, parameters, count):
    """See `emit_windows.emit_finish`."""
    name = function.literal_value
    emit = does(lambda b, a: emit_windows.emit_finish(_vectors(b, lanes), name, a[2:]))
    return types.void(function, lanes, *(LONG,) * 8), emit


@intrinsic(prefer_literal=True)
def finish_places(_, function, lanes, source, bias, residual, target, places, piece, count, after, parameters):
    """See `emit_windows.emit_finish_places`."""
    name = function.literal_value
    emit = does(lambda b, a: emit_windows.emit_finish_places(_vectors(b, lanes), name, a[2:]))
    return types.void(function, lanes, *(LONG,) * 9), emit


@intrinsic(prefer_literal=True)
def add_vectors(_, lanes, target, source, pitch, count):
    """See `emit_windows.emit_add`."""
    return types.void(lanes, *(LONG,) * 4), does(lambda b, a: emit_windows.emit_add(_vectors(b, lanes), a[1:]))


@intrinsic(prefer_literal=True)
def block_products(_, lanes, rows, vectors, entries, runs, singles, x, x_row, weights, c, height, add, ahead):
    """See `emit_boxes.emit_products`."""
    block = emit_boxes.Block(rows.literal_value, vectors.literal_value)
    emit = does(lambda b, a: emit_boxes.emit_products(_vectors(b, lanes), block, a[3:]))
    return types.void(lanes, rows, vectors, *(LONG,) * 10), emit


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
def depthwise_pixels(_, function, lanes, group, pixels, x, weights, n_d, n_h, n_w, x_d, x_h, x_w, w_d, w_h, w_w, w_c,
                     bias, residual, target, after, parameters, x_pixel, residual_pixel, y_pixel, count):  # fmt: skip
    """See `emit_windows.emit_depthwise`."""
    of = function.literal_value, group.literal_value, pixels.literal_value
    emit = does(lambda b, a: emit_windows.emit_depthwise(_vectors(b, lanes), *of, a[4:]))
    return types.void(function, lanes, group, pixels, *(LONG,) * 21), emit


@intrinsic(prefer_literal=True)
def dots(_, lanes, rows, samples, ahead, weights, row_step, row_count, x, sample_step, sample_count, count, total,
         total_step, more):  # fmt: skip
    """See `emit_linear.emit_dots`."""
    sizes = [number.literal_value for number in (rows, samples, ahead)]
    code = does(lambda b, a: emit_linear.emit_dots(_vectors(b, lanes), *sizes, a[4:]))
    return types.void(lanes, rows, samples, ahead, *(LONG,) * 10), code


@intrinsic(prefer_literal=True)
def apply(_, function, lanes, x, z, y, scale, shift, centre, parameters, count):
    """See `emit_rows.emit_apply`."""
    name = function.literal_value
    emit = does(lambda b, a: emit_rows.emit_apply(_vectors(b, lanes), name, a[2:]))
    return types.void(function, lanes, *(LONG,) * 8), emit


@intrinsic(prefer_literal=True)
def softmax_pixel(_, lanes, x, y, count):
    """See `emit_rows.emit_softmax`."""
    return types.void(lanes, *(LONG,) * 3), does(lambda b, a: emit_rows.emit_softmax(_vectors(b, lanes), a[1:]))


@intrinsic(prefer_literal=True)
def row_sum(_, lanes, x, pitch, pixels, total, count):
    """See `emit_rows.emit_row_sum`."""
    return types.void(lanes, *(LONG,) * 5), does(lambda b, a: emit_rows.emit_row_sum(_vectors(b, lanes), a[1:]))


@intrinsic(prefer_literal=True)
def row_squares(_, lanes, x, pitch, pixels, centre, total, squares, count):
    """See `emit_rows.emit_row_squares`."""
    return types.void(lanes, *(LONG,) * 7), does(lambda b, a: emit_rows.emit_row_squares(_vectors(b, lanes), a[1:]))


@intrinsic(prefer_literal=True)
def pool_pixel(_, kind, shape, lanes, x, n_d, n_h, n_w, x_d, x_h, x_w, target, divisor, count):
    """See `emit_windows.emit_pool`."""
    texts = kind.literal_value, shape.literal_value
    code = does(lambda b, a: emit_windows.emit_pool(_vectors(b, lanes), *texts, a[3:]))
    return types.void(kind, shape, lanes, *(LONG,) * 10), code


@intrinsic(prefer_literal=True)
def blend_pixel(_, lanes, low_low, low_high, high_low, high_high, low, high, share_d, share_h, share_w, target, count):
    """See `emit_windows.emit_blend`."""
    return types.void(lanes, *(LONG,) * 11), does(lambda b, a: emit_windows.emit_blend(_vectors(b, lanes), a[1:]))


@intrinsic
def square_root(_, value):
    """The square root of a float64, which is one instruction everywhere."""
    return types.float64(types.float64), gives(lambda b, a: b.call(_sqrt(b.module), a))


def _sqrt(module: Any) -> Any:
    double = ir.DoubleType()
    known = module.globals.get("llvm.sqrt.f64")
    return known if known is not None else ir.Function(module, ir.FunctionType(double, [double]), "llvm.sqrt.f64")
