"""Vectors of floats in generic LLVM IR, the algebra kernels are emitted with. No machine's instruction is named."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir

from lrw_kernels.codegen.machine import BYTES

I1, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
FLOATS: dict[str, Any] = {"float64": ir.DoubleType(), "float32": ir.FloatType(), "float16": ir.HalfType()}


class Vectors:
    """Emits operations on vectors of `lanes` numbers of `element` (a key of FLOATS) at a builder's position.

    Addresses are integers of bytes (i64 values), offsets Python ints. Loads and stores convert from and to `kind`,
    a key of BYTES. `native_maximum`: an instruction keeps NaN. Implements `line.Algebra`.
    """

    def __init__(
        self, builder: Any, element: str, lanes: int, *, spare_adders: bool = False, native_maximum: bool = False
    ) -> None:
        self.builder, self.element, self.lanes = builder, element, lanes
        self.spare_adders, self.native_maximum = spare_adders, native_maximum
        self._table: dict[Fraction, tuple[Any, int]] = {}
        self.type = ir.VectorType(FLOATS[element], lanes)
        self.bytes = lanes * BYTES[element]

    def read_constants(self, values: Sequence[Fraction], address: Any) -> None:
        """Take factors among `values` from vectors at `address` from here on, where they lie one after the other."""
        vectors = [self.load(address, i * self.bytes) for i in range(-(-len(values) // self.lanes))]
        self._table = {value: (vectors[i // self.lanes], i % self.lanes) for i, value in enumerate(values)}

    def factor(self, value: Fraction) -> Any:
        """A vector of equal numbers to multiply by."""
        if value in self._table:
            return self.splat_element(*self._table[value])
        if -value in self._table:
            return self.neg(self.splat_element(*self._table[-value]))
        return self.constant(value)

    def constant(self, value: Fraction | float) -> Any:
        """A vector of equal numbers, rounded once."""
        return ir.Constant(self.type, [ir.Constant(FLOATS[self.element], _rounded(value, self.element))] * self.lanes)

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        """a - b."""
        return self.builder.fsub(a, b)

    def neg(self, a: Any) -> Any:
        """-a."""
        return self.builder.fneg(a)

    def mul(self, c: Fraction, a: Any) -> Any:
        """c a."""
        return self.builder.fmul(self.factor(c), a)

    def fma(self, c: Fraction | Any, a: Any, b: Any) -> Any:
        """c a + b, rounded once; c is a number or a vector."""
        factor = self.factor(c) if isinstance(c, Fraction) else c
        return self.each("fma", factor, a, b)

    def each(self, name: str, *values: Any) -> Any:
        """LLVM's intrinsic `name` of every lane: one that is an instruction or two everywhere."""
        kind = ir.FunctionType(self.type, [self.type] * len(values))
        return self.builder.call(self._declare(f"llvm.{name}.{self._suffix}", kind), list(values))

    def at_most(self, a: Any, ceiling: Any) -> Any:
        """min(a, ceiling) that keeps NaN in a."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, ceiling), ceiling, a)

    def larger(self, a: Any, b: Any) -> Any:
        """max(a, b), NaN where either is, as torch's maximum."""
        if self.native_maximum:
            return self.each("maximum", a, b)
        takes = self.builder.or_(self.builder.fcmp_ordered(">", b, a), self.builder.fcmp_unordered("uno", b, b))
        return self.builder.select(takes, b, a)

    def integers(self, number: int) -> Any:
        """A vector of equal 32-bit integers."""
        return ir.Constant(ir.VectorType(I32, self.lanes), [number] * self.lanes)

    def bits(self, a: Any) -> Any:
        """The bits of a vector of float32, as integers."""
        return self.builder.bitcast(a, ir.VectorType(I32, self.lanes))

    def of_bits(self, a: Any) -> Any:
        """`bits` back."""
        return self.builder.bitcast(a, self.type)

    def at_least(self, a: Any, floor: Any) -> Any:
        """max(a, floor) that keeps NaN in a, as torch's ReLU does."""
        if self.native_maximum:
            return self.each("maximum", a, floor)
        below = self.builder.fcmp_ordered("<", a, floor)
        return self.builder.select(below, floor, a)

    def splat(self, scalar: Any) -> Any:
        """A vector of one scalar value."""
        return self._splat(scalar, self.type)

    def splat_element(self, vector: Any, index: int) -> Any:
        """A vector of one of a vector's numbers."""
        return self.shuffle(vector, vector, [index] * self.lanes)

    def load(self, address: Any, offset: int = 0, kind: str | None = None) -> Any:
        """A vector of `kind` (default: the element itself), widened."""
        kind = kind or self.element
        if kind == "bfloat16":
            low = self._load(ir.VectorType(I16, self.lanes), address, offset, 2)
            wide = ir.VectorType(I32, self.lanes)
            bits = self.builder.shl(self.builder.zext(low, wide), ir.Constant(wide, [16] * self.lanes))
            return self.builder.bitcast(bits, self.type)
        value = self._load(ir.VectorType(FLOATS[kind], self.lanes), address, offset, BYTES[kind])
        return self._converted(value, kind, self.element)

    def _converted(self, value: Any, kind: str, to: str) -> Any:
        if kind == to:
            return value
        change = self.builder.fpext if BYTES[kind] < BYTES[to] else self.builder.fptrunc
        return change(value, ir.VectorType(FLOATS[to], self.lanes))

    def widened(self, kind: str, values: Sequence[Any]) -> tuple["Vectors", list[Any]]:
        """The algebra of `kind` and the values in it, if it has more bits; else these."""
        if BYTES[kind] <= BYTES[self.element]:
            return self, list(values)
        wide = Vectors(self.builder, kind, self.lanes, native_maximum=self.native_maximum)
        return wide, [self._converted(value, self.element, kind) for value in values]

    def load_scalar(self, address: Any, offset: int = 0) -> Any:
        """One number of the element type."""
        return self._load(FLOATS[self.element], address, offset, BYTES[self.element])

    def load_integer(self, address: Any, offset: int = 0) -> Any:
        """One i64."""
        return self._load(I64, address, offset, 8)

    def store(
        self, value: Any, address: Any, offset: int = 0, kind: str | None = None, *, streamed: bool = False
    ) -> None:
        """Write a vector as `kind`, rounded to nearest even; `streamed` past the caches, where it must be aligned."""
        kind = kind or self.element
        if kind == "bfloat16":
            value = self._to_bfloat16(value)
        else:
            value = self._converted(value, self.element, kind)
        instruction = self.builder.store(value, self._pointer(value.type, address, offset))
        instruction.align = self.lanes * BYTES[kind] if streamed else BYTES[kind]
        if streamed:
            instruction.set_metadata("nontemporal", self.builder.module.add_metadata([I32(1)]))

    def between(self, begin: Any, end: Any) -> Any:
        """The lanes from `begin` up to `end` (i64; not included), as a mask."""
        wide = ir.VectorType(I32, self.lanes)
        index = ir.Constant(wide, list(range(self.lanes)))
        low, high = (self._splat(self.builder.trunc(bound, I32), wide) for bound in (begin, end))
        above = self.builder.icmp_signed(">=", index, low)
        return self.builder.and_(above, self.builder.icmp_signed("<", index, high))

    def load_lanes(self, address: Any, mask: Any, other: float = 0.0) -> Any:
        """A vector of the element type, of which memory outside `mask` is not touched: `other` stands there. No mask
        is the whole vector."""
        if mask is None:
            return self.load(address)
        pointer = self._pointer(self.type, address, 0)
        kind = ir.FunctionType(self.type, [pointer.type, I32, mask.type, self.type])
        call = self._declare(f"llvm.masked.load.{self._suffix}.p0", kind)
        return self.builder.call(call, [pointer, I32(BYTES[self.element]), mask, self.constant(other)])

    def store_lanes(self, value: Any, address: Any, mask: Any) -> None:
        """Write the lanes in `mask`, or without one the whole vector."""
        if mask is None:
            self.store(value, address)
            return
        pointer = self._pointer(self.type, address, 0)
        kind = ir.FunctionType(ir.VoidType(), [self.type, pointer.type, I32, mask.type])
        call = self._declare(f"llvm.masked.store.{self._suffix}.p0", kind)
        self.builder.call(call, [value, pointer, I32(BYTES[self.element]), mask])

    def prefetch(self, address: Any, offset: int = 0) -> None:
        """See `prefetch`."""
        prefetch(self.builder, self.builder.add(address, I64(offset)) if offset else address)

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """A square of lanes x lanes: exchange halves, then quarters, ... between rows i and i + half."""
        result, half = list(rows), 1
        while half < self.lanes:
            for i in range(self.lanes):
                if not i & half:
                    a, b = result[i], result[i + half]
                    low = [self.lanes + j - half if j & half else j for j in range(self.lanes)]
                    high = [self.lanes + j if j & half else j + half for j in range(self.lanes)]
                    result[i], result[i + half] = self.shuffle(a, b, low), self.shuffle(a, b, high)
            half *= 2
        return result

    @property
    def _suffix(self) -> str:
        return f"v{self.lanes}f{8 * BYTES[self.element]}"

    def _splat(self, scalar: Any, kind: Any) -> Any:
        undefined = ir.Constant(kind, ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, zeros)

    def shuffle(self, a: Any, b: Any, picks: Sequence[int]) -> Any:
        """Lanes picked from a and b, which are counted through."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), list(picks)))

    def collected(self, vectors: Sequence[Any], places: Sequence[tuple[int, int]]) -> Any:
        """A vector whose lanes are those at `places` (vector, lane) of `vectors`."""
        found = vectors[0]
        for i, vector in enumerate(vectors):
            kept = [lane if i > 0 else of for lane, (_, of) in enumerate(places)]
            picks = [self.lanes + of if at == i else kept[lane] for lane, (at, of) in enumerate(places)]
            found = self.shuffle(found, vector, picks)
        return found

    def _to_bfloat16(self, value: Any) -> Any:
        """The upper halves, rounded to nearest even; NaN stays NaN (its low bits cannot carry it to infinity)."""
        b, wide, narrow = self.builder, ir.VectorType(I32, self.lanes), ir.VectorType(I16, self.lanes)

        def splat(number: int) -> Any:
            return ir.Constant(wide, [number] * self.lanes)

        bits = b.bitcast(value, wide)
        odd = b.and_(b.lshr(bits, splat(16)), splat(1))
        rounded = b.add(bits, b.add(odd, splat(0x7FFF)))
        kept = b.select(b.fcmp_unordered("uno", value, value), b.or_(bits, splat(0x400000)), rounded)
        return b.trunc(b.lshr(kept, splat(16)), narrow)

    def _load(self, kind: Any, address: Any, offset: int, align: int) -> Any:
        instruction = self.builder.load(self._pointer(kind, address, offset))
        instruction.align = align
        return instruction

    def _pointer(self, kind: Any, address: Any, offset: int) -> Any:
        at = self.builder.add(address, I64(offset)) if offset else address
        return self.builder.inttoptr(at, kind.as_pointer())

    def _declare(self, name: str, kind: Any) -> Any:
        return _declared(self.builder, name, kind)


def prefetch(builder: Any, address: Any) -> None:
    """Ask for the cache line at the address, to be read, into the second level."""
    byte = ir.IntType(8).as_pointer()
    call = _declared(builder, "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32]))
    builder.call(call, [builder.inttoptr(address, byte), I32(0), I32(2), I32(1)])


def _declared(builder: Any, name: str, kind: Any) -> Any:
    known = builder.module.globals.get(name)
    return known if known is not None else ir.Function(builder.module, kind, name)


def _rounded(value: Fraction | float, element: str) -> float:
    return float(np.dtype(element).type(float(value)))
