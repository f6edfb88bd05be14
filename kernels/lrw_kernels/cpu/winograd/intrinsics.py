"""Numba's door to the emitters of transforms and products, as `lrw_kernels.cpu.intrinsics` is to those all share."""

from typing import Any

from numba import types
from numba.extending import intrinsic

from lrw_kernels.codegen.intrinsics import LONG, call, does, gives, reader
from lrw_kernels.codegen.vector import Vectors
from lrw_kernels.cpu.micro import Micro, emit_micro
from lrw_kernels.cpu.winograd import records
from lrw_kernels.cpu.winograd.patch import emit_columns, emit_lines, emit_scatter
from lrw_kernels.cpu.winograd.recipe import Recipe
from lrw_kernels.cpu.winograd.sums import emit_sums


def _vectors(builder: Any, p: Recipe) -> Vectors:
    return Vectors(builder, p.element, p.lanes, spare_adders=p.spare_adders, native_maximum=p.native_maximum)


@intrinsic(prefer_literal=True)
def gather_columns(_, text, rows, pitch, at, first, last, start, stop, scratch, constants):
    """See `patch.emit_columns`; `text` is a Recipe's."""
    p = Recipe.parse(text.literal_value)
    return types.void(text, *(LONG,) * 9), does(lambda b, arguments: emit_columns(_vectors(b, p), p, arguments[1:]))


@intrinsic(prefer_literal=True)
def gather_lines(_, text, start, domain, table, scratch, constants, rows, pitch, ahead):
    """See `patch.emit_lines`; `text` is a Recipe's."""
    p = Recipe.parse(text.literal_value)
    return types.void(text, *(LONG,) * 8), does(lambda b, arguments: emit_lines(_vectors(b, p), p, arguments[1:]))


@intrinsic(prefer_literal=True)
def scatter_tile(_, text, domain, table, rows, pitch, at, first, last, bias, residual, after, parameters, scratch,
                 constants):  # fmt: skip
    """See `patch.emit_scatter`; `text` is a Recipe's."""
    p = Recipe.parse(text.literal_value)
    return types.void(text, *(LONG,) * 13), does(lambda b, arguments: emit_scatter(_vectors(b, p), p, arguments[1:]))


@intrinsic(prefer_literal=True)
def add_sums(_, text, rows, values, inner, pitch, at, columns, outside, sums, line, inside, fresh):
    """See `sums.emit_sums`; `text` is a Recipe's."""
    p = Recipe.parse(text.literal_value)
    return types.void(text, *(LONG,) * 11), does(lambda b, arguments: emit_sums(_vectors(b, p), p, arguments[1:]))


@intrinsic(prefer_literal=True)
def accumulate(_, text, a, b, c, left, terms, a_jump, b_jump, c_row, add):
    """See `micro.emit_micro`; `text` is that of a Micro whose jumps vary."""
    m = Micro.parse(text.literal_value)
    emit = gives(lambda builder, arguments: emit_micro(Vectors(builder, m.element, m.lanes), m, [*arguments[1:], None]))
    return LONG(text, *(LONG,) * 9), emit


@intrinsic
def call_transform(_, function, side, tile, slot, count, first, last, domain, scratch):
    """Call a transform kernel by its address."""
    return types.void(*(LONG,) * 9), does(call)


@intrinsic
def call_products(_, function, products, position, tiles, first, last, v, m):
    """Call a products kernel by its address."""
    return types.void(*(LONG,) * 8), does(call)


transform_at, products_at, tiles_at = map(reader, (records.Transform, records.Products, records.Tiles))
