"""What an output transform leaves for a norm that reads the outputs: sums by channel, while they are in the first-level
cache."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

from lrw_kernels.codegen.loops import counted_loop
from lrw_kernels.codegen.machine import ADDRESS
from lrw_kernels.codegen.vector import FLOATS, I64, Vectors
from lrw_kernels.cpu.step import SUMS
from lrw_kernels.cpu.winograd.recipe import Recipe

CHAINS = 4  # sums that are formed side by side, since the next addition waits for the one before


def emit_add(v: Vectors, p: Recipe, arguments: Sequence[Any]) -> None:
    """Add a tile's outputs of one vector of channels to a part of `step.Sums`: values lie in columns first..last of as
    many rows as a patch has; what lies in rows that are `outside` counts for nothing.

    arguments (i64): rows, the addresses to compare with outside; values, the rows to read; inner, where the address of
    one of them lies that is inside; pitch, at, first, last as for `emit_columns`; outside; sums, line, the part's first
    vector and the bytes to the next; pixels, how many are added; fresh, whether nothing is there yet: then the first
    value of the inner row is the one others are compared with.
    """
    rows, values, inner, pitch, at, first, last, outside, sums, line, pixels, fresh = arguments
    b, zero, height = v.builder, v.constant(0.0), p.patch[0] * p.patch[1]
    begin, new = b.add(at, b.mul(first, pitch)), b.icmp_signed("!=", fresh, I64(0))
    places = [b.add(sums, b.mul(line, I64(i))) for i in range(SUMS)]
    starts = zero, v.load(b.add(v.load_integer(inner), begin), 0, p.kind), zero, zero
    count, middle, *before = (b.select(new, start, v.load(to)) for start, to in zip(starts, places, strict=True))

    def column(i: Any, carried: list[Any]) -> list[Any]:
        shift, totals = b.add(begin, b.mul(i, pitch)), [carried[i::2] for i in range(2)]
        for row in range(height):
            there = b.icmp_signed("!=", v.load_integer(rows, row * ADDRESS), outside)
            value = v.load(b.add(v.load_integer(values, row * ADDRESS), shift), 0, p.kind)
            apart, chain = b.select(there, v.sub(value, middle), zero), row % len(totals[0])
            totals[0][chain] = v.add(totals[0][chain], apart)
            totals[1][chain] = v.fma(apart, apart, totals[1][chain])
        return [total for pair in zip(*totals, strict=True) for total in pair]

    found = counted_loop(b, b.sub(last, first), [zero] * 2 * min(CHAINS, height), column)
    totals = [reduce(v.add, found[i::2], start) for i, start in enumerate(before)]
    count = v.add(count, v.splat(b.sitofp(pixels, FLOATS[p.element])))
    for value, to in zip((count, middle, *totals), places, strict=True):
        v.store(value, to)
