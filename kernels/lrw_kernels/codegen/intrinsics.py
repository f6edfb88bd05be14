"""Numba's door to LLVM: intrinsics on integers that every kernel may use, and what others are made with.

Addresses are int64 everywhere; a record is read through its address.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic

from lrw_kernels.codegen import records
from lrw_kernels.codegen.machine import BYTES
from lrw_kernels.codegen.vector import I64

Generate = Callable[[Any, Any, Any, Any], Any]
LONG = types.int64


def does(emit: Callable[[Any, list[Any]], None]) -> Generate:
    """Code generation for an intrinsic that returns nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(builder, list(arguments))
        return context.get_dummy_value()

    return generate


def gives(emit: Callable[[Any, list[Any]], Any]) -> Generate:
    """Code generation for an intrinsic that returns what `emit` does."""
    return lambda context, builder, signature, arguments: emit(builder, list(arguments))


def call(b: Any, arguments: list[Any]) -> None:
    """Call the function at the first argument, an address, with the others."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * (len(arguments) - 1))
    b.call(b.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])


def reader(kind: type[records.Record]) -> Any:
    """The intrinsic that reads records of one kind at their address."""
    record = from_dtype(records.layout(kind))

    @intrinsic
    def at(_, address):
        return record(LONG), lambda context, b, signature, a: b.inttoptr(a[0], context.get_value_type(record))

    return at


@intrinsic(prefer_literal=True)
def copy_number(_, kind, target, source):
    """Copy one number of `kind`, a key of BYTES."""
    number = ir.IntType(8 * BYTES[kind.literal_value]).as_pointer()

    def emit(b: Any, arguments: list[Any]) -> None:
        target, source = (b.inttoptr(address, number) for address in arguments[1:])
        b.store(b.load(source), target)

    return types.void(kind, LONG, LONG), does(emit)


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
def take(_, address, count):
    """Add `count` to the int64 at `address` in one step no thread can interrupt; returns what was there before."""
    emit = gives(lambda b, a: b.atomic_rmw("add", b.inttoptr(a[0], I64.as_pointer()), a[1], "acq_rel"))
    return LONG(LONG, LONG), emit


@intrinsic
def call_item(_, function, job, item, scratch):
    """Call an item kernel by its address."""
    return types.void(*(LONG,) * 4), does(call)


@intrinsic
def call_wait(_, function):
    """Call a function without arguments by its address."""
    return types.void(LONG), does(call)


region_at, regions_at = reader(records.Region), reader(records.Regions)
NEXT_OFFSET, ARRIVED_OFFSET = records.Region.next.offset, records.Region.arrived.offset
