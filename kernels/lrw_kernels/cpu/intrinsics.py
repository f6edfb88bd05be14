"""Numba's door to the emitters: intrinsics on integers, with what is to be emitted as a literal text.

They stand at module level and take their program as an argument, so that a kernel is the same function for every
program. Addresses are int64 everywhere; a record is read through its address.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic

from lrw_kernels.cpu import records
from lrw_kernels.cpu.micro import Micro, emit_micro, emit_peak
from lrw_kernels.cpu.mix import emit_mix, mixed
from lrw_kernels.cpu.patch import emit_columns, emit_lines, emit_scatter
from lrw_kernels.cpu.program import Program
from lrw_kernels.cpu.vector import BYTES, I64, Vectors

Generate = Callable[[Any, Any, Any, Any], Any]
LONG = types.int64
RECORDS = (
    records.Side, records.Products, records.Blocks, records.Clear, records.Region, records.Matrix, records.Digest
)  # fmt: skip
SIDE, PRODUCTS, BLOCKS, CLEAR, REGION, MATRIX, DIGEST = (from_dtype(records.layout(record)) for record in RECORDS)


def does(emit: Callable[[Any, list[Any]], None]) -> Generate:
    """Code generation for an intrinsic that returns nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(builder, list(arguments))
        return context.get_dummy_value()

    return generate


def gives(emit: Callable[[Any, list[Any]], Any]) -> Generate:
    """Code generation for an intrinsic that returns what `emit` does."""
    return lambda context, builder, signature, arguments: emit(builder, list(arguments))


def _vectors(builder: Any, p: Program) -> Vectors:
    return Vectors(builder, p.element, p.lanes, spare_adders=p.spare_adders, native_maximum=p.native_maximum)


@intrinsic(prefer_literal=True)
def gather_columns(_, text, rows, step, at, first, last, start, stop, scratch, constants):
    """See `patch.emit_columns`; `text` is a Program's."""
    p = Program.parse(text.literal_value)
    return types.void(text, *(LONG,) * 9), does(lambda b, arguments: emit_columns(_vectors(b, p), p, arguments[1:]))


@intrinsic(prefer_literal=True)
def gather_lines(_, text, start, domain, table, scratch, constants):
    """See `patch.emit_lines`; `text` is a Program's."""
    p = Program.parse(text.literal_value)
    return types.void(text, *(LONG,) * 5), does(lambda b, arguments: emit_lines(_vectors(b, p), p, arguments[1:]))


@intrinsic(prefer_literal=True)
def scatter_tile(_, text, domain, table, rows, step, at, first, last, bias, residual, relu, scratch, constants):
    """See `patch.emit_scatter`; `text` is a Program's."""
    p = Program.parse(text.literal_value)
    return types.void(text, *(LONG,) * 12), does(lambda b, arguments: emit_scatter(_vectors(b, p), p, arguments[1:]))


@intrinsic(prefer_literal=True)
def multiply(_, text, a, b, c, left, steps, add, ahead):
    """See `micro.emit_micro`; `text` is that of a Micro with fixed jumps."""
    m = Micro.parse(text.literal_value)

    def emit(builder: Any, arguments: list[Any]) -> Any:
        a, b, c, left, steps, add, ahead = arguments[1:]
        return emit_micro(Vectors(builder, m.element, m.lanes), m, [a, b, c, left, steps, None, None, None, add, ahead])

    return LONG(text, *(LONG,) * 7), gives(emit)


@intrinsic(prefer_literal=True)
def accumulate(_, text, a, b, c, left, steps, a_jump, b_jump, c_row, add):
    """See `micro.emit_micro`; `text` is that of a Micro whose jumps vary."""
    m = Micro.parse(text.literal_value)
    emit = gives(lambda builder, arguments: emit_micro(Vectors(builder, m.element, m.lanes), m, [*arguments[1:], None]))
    return LONG(text, *(LONG,) * 9), emit


@intrinsic(prefer_literal=True)
def spin(_, text, to):
    """See `micro.emit_peak`; `text` is a Micro's."""
    m = Micro.parse(text.literal_value)
    emit = does(lambda builder, arguments: emit_peak(Vectors(builder, m.element, m.lanes), m, arguments[1:]))
    return types.void(text, LONG), emit


@intrinsic(prefer_literal=True)
def copy_number(_, kind, target, source):
    """Copy one number of `kind`, a key of BYTES."""
    number = ir.IntType(8 * BYTES[kind.literal_value]).as_pointer()

    def emit(b: Any, arguments: list[Any]) -> None:
        target, source = (b.inttoptr(address, number) for address in arguments[1:])
        b.store(b.load(source), target)

    return types.void(kind, LONG, LONG), does(emit)


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


@intrinsic
def put(_, address, value):
    """Write one int64."""
    return types.void(LONG, LONG), does(lambda b, a: b.store(a[1], b.inttoptr(a[0], I64.as_pointer())))


@intrinsic
def get(_, address):
    """Read one int64."""
    return LONG(LONG), gives(lambda b, a: b.load(b.inttoptr(a[0], I64.as_pointer())))


@intrinsic
def get_byte(_, address):
    """Read one byte as an int64."""
    emit = gives(lambda b, a: b.zext(b.load(b.inttoptr(a[0], ir.IntType(8).as_pointer())), I64))
    return LONG(LONG), emit


@intrinsic
def mix_stripes(_, address, stripes, seed):
    """See `mix.emit_mix`."""
    return LONG(LONG, LONG, LONG), gives(emit_mix)


@intrinsic
def mix_word(_, state, word):
    """See `mix.mixed`."""
    return LONG(LONG, LONG), gives(lambda b, a: mixed(b, *a))


@intrinsic
def take(_, address, count):
    """Add `count` to the int64 at `address` in one step no thread can interrupt; returns what was there before."""
    emit = gives(lambda b, a: b.atomic_rmw("add", b.inttoptr(a[0], I64.as_pointer()), a[1], "acq_rel"))
    return LONG(LONG, LONG), emit


@intrinsic
def call_transform(_, function, side, tile, slot, count, first, last, domain, scratch):
    """Call a transform kernel by its address."""
    return types.void(*(LONG,) * 9), does(_call)


@intrinsic
def call_products(_, function, products, position, tiles, first, last, v, m):
    """Call a products kernel by its address."""
    return types.void(*(LONG,) * 8), does(_call)


@intrinsic
def call_range(_, function, job, begin, end, scratch):
    """Call a range kernel by its address."""
    return types.void(*(LONG,) * 5), does(_call)


def _call(b: Any, arguments: list[Any]) -> None:
    kind = ir.FunctionType(ir.VoidType(), [I64] * (len(arguments) - 1))
    b.call(b.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])


def reader(record: Any) -> Any:
    """The intrinsic that reads records of one kind at their address."""

    @intrinsic
    def at(_, address):
        return record(LONG), lambda context, b, signature, a: b.inttoptr(a[0], context.get_value_type(record))

    return at


side_at, products_at, blocks_at, clear_at, region_at, matrix_at, digest_at = (
    reader(record) for record in (SIDE, PRODUCTS, BLOCKS, CLEAR, REGION, MATRIX, DIGEST)
)
NEXT_OFFSET, ARRIVED_OFFSET = records.Region.next.offset, records.Region.arrived.offset
