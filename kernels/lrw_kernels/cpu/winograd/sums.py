"""What an output transform leaves for a norm that reads the outputs: sums by channel, while they are in the first-level
cache."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from lrw_kernels.codegen.loops import counted_loop
from lrw_kernels.codegen.machine import ADDRESS
from lrw_kernels.codegen.vector import FLOATS, I64, Vectors
from lrw_kernels.cpu.step import SUMS
from lrw_kernels.cpu.winograd.recipe import Recipe

CHAINS = 4  # sums that are formed side by side, since the next addition waits for the one before


def emit_sums(v: Vectors, p: Recipe, arguments: Sequence[Any]) -> None:
    """Add a tile's outputs of one vector of channels to a part of `step.Sums`: they lie in some columns of as many rows
    as a patch has; what lies in rows that are `outside` counts for nothing.

    Squares are of differences from the tile's own mean, and put together with the part's as means and variances of two
    sets are (Chan, Golub, LeVeque 1979): one number far from all others takes no digits from these.

    arguments (i64): rows, the addresses to compare with outside; values, the rows to read; inner, where the address of
    one of them lies that is inside; pitch, from column to column; at, bytes from a row's start to the first; columns,
    how many; outside; sums, line, the part's first vector and the bytes to the next; inside, how many rows are; fresh,
    whether nothing is there yet: then the first value of the inner row is the one others are compared with.
    """
    rows, values, inner, pitch, at, columns, outside, sums, line, inside, fresh = arguments
    b, zero, height = v.builder, v.constant(0.0), p.patch[0] * p.patch[1]
    chains = max(n for n in range(1, CHAINS + 1) if height % n == 0)
    new = b.icmp_signed("!=", fresh, I64(0))
    places = [b.add(sums, b.mul(line, I64(i))) for i in range(SUMS)]
    starts = zero, v.load(b.add(v.load_integer(inner), at), 0, p.kind), zero, zero
    known = [b.select(new, start, v.load(to)) for start, to in zip(starts, places, strict=True)]
    before, middle, total, squares = known

    def summed(term: Callable[[Any, Any], Any]) -> Any:
        """The sum over all that is inside of term(difference from the middle, sum so far)."""

        def some_rows(group: Any, carried: list[Any]) -> list[Any]:
            first = b.mul(group, I64(chains * ADDRESS))
            judged, read = b.add(rows, first), b.add(values, first)
            there = [b.icmp_signed("!=", v.load_integer(judged, i * ADDRESS), outside) for i in range(chains)]
            starts = [b.add(v.load_integer(read, i * ADDRESS), at) for i in range(chains)]

            def column(i: Any, sums: list[Any]) -> list[Any]:
                shift = b.mul(i, pitch)
                apart = [v.sub(v.load(b.add(start, shift), 0, p.kind), middle) for start in starts]
                return [b.select(*of, so_far) for *of, so_far in zip(there, map(term, apart, sums), sums, strict=True)]

            return counted_loop(b, columns, carried, column)

        return reduce(v.add, counted_loop(b, I64(height // chains), [zero] * chains, some_rows))

    count = v.splat(b.sitofp(b.mul(inside, columns), FLOATS[p.element]))
    sum_of_tile = summed(v.add)
    mean = b.fdiv(sum_of_tile, count)

    def square(apart: Any, so_far: Any) -> Any:
        from_mean = v.sub(apart, mean)
        return v.fma(from_mean, from_mean, so_far)

    between = v.sub(mean, b.fdiv(total, v.at_least(before, v.constant(1.0))))
    both = v.add(before, count)
    weight = b.fdiv(b.fmul(before, count), both)
    squares = v.fma(b.fmul(between, weight), between, v.add(squares, summed(square)))
    for value, to in zip((both, middle, v.add(total, sum_of_tile), squares), places, strict=True):
        v.store(value, to)
