"""Numba's door to the emitters: intrinsics on integers, with what is to be emitted as a literal text.

They stand at module level and take their recipe as an argument, so that a kernel is the same function for every
recipe. Addresses are int64 everywhere; a record is read through its address.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

from lrw_kernels.codegen.intrinsics import LONG, does, gives, reader
from lrw_kernels.codegen.vector import I64, Vectors
from lrw_kernels.cpu import records
from lrw_kernels.cpu.micro import Micro, emit_micro, emit_peak
from lrw_kernels.cpu.mix import emit_mix, mixed


@intrinsic(prefer_literal=True)
def multiply(_, text, a, b, c, left, terms, add, ahead):
    """See `micro.emit_micro`; `text` is that of a Micro with fixed jumps."""
    m = Micro.parse(text.literal_value)

    def emit(builder: Any, arguments: list[Any]) -> Any:
        a, b, c, left, terms, add, ahead = arguments[1:]
        return emit_micro(Vectors(builder, m.element, m.lanes), m, [a, b, c, left, terms, None, None, None, add, ahead])

    return LONG(text, *(LONG,) * 7), gives(emit)


@intrinsic(prefer_literal=True)
def spin(_, text, to):
    """See `micro.emit_peak`; `text` is a Micro's."""
    m = Micro.parse(text.literal_value)
    emit = does(lambda builder, arguments: emit_peak(Vectors(builder, m.element, m.lanes), m, arguments[1:]))
    return types.void(text, LONG), emit


@intrinsic(prefer_literal=True)
def move_square(_, transposed, element, lanes, target, target_row, source, source_row):
    """A square of lanes x lanes numbers, copied or transposed in registers; rows lie so many bytes apart."""
    flip, count = transposed.literal_value, lanes.literal_value

    def emit(b: Any, arguments: list[Any]) -> None:
        v = Vectors(b, element.literal_value, count)
        to, to_row, source, source_row = arguments[3:]
        rows = [v.load(b.add(source, b.mul(source_row, I64(i)))) for i in range(count)]
        for i, row in enumerate(v.transpose(rows) if flip else rows):
            v.store(row, b.add(to, b.mul(to_row, I64(i))))

    return types.void(transposed, element, lanes, *(LONG,) * 4), does(emit)


@intrinsic(prefer_literal=True)
def move_narrow(_, apart, element, lanes, count, pixels, rows, row):
    """As many pixels of `count` numbers as a vector has lanes, taken apart into `count` rows that lie so many bytes
    apart, or put together of them."""

    def emit(b: Any, arguments: list[Any]) -> None:
        v = Vectors(b, element.literal_value, lanes.literal_value)
        flat = [b.add(arguments[4], I64(i * v.bytes)) for i in range(count.literal_value)]
        lines = [b.add(arguments[5], b.mul(arguments[6], I64(i))) for i in range(count.literal_value)]
        places = [divmod(i, len(flat)) for i in range(v.lanes * len(flat))]  # of flat numbers: lane and row
        if apart.literal_value:
            picks = [[divmod(lane * len(flat) + i, v.lanes) for lane in range(v.lanes)] for i in range(len(flat))]
        else:
            picks = [[(i, lane) for lane, i in places[at * v.lanes : (at + 1) * v.lanes]] for at in range(len(flat))]
        source, target = (flat, lines) if apart.literal_value else (lines, flat)
        vectors = [v.load(address) for address in source]
        for address, of in zip(target, picks, strict=True):
            v.store(v.collected(vectors, of), address)

    return types.void(apart, element, lanes, count, *(LONG,) * 3), does(emit)


@intrinsic
def mix_stripes(_, address, stripes, seed):
    """See `mix.emit_mix`."""
    return LONG(LONG, LONG, LONG), gives(emit_mix)


@intrinsic
def mix_word(_, state, word):
    """See `mix.mixed`."""
    return LONG(LONG, LONG), gives(lambda b, a: mixed(b, *a))


clear_at, matrix_at, digest_at = map(reader, (records.Clear, records.Matrix, records.Digest))
