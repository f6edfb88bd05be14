"""Products of weights with activations where they lie, as vector code."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lrw_kernels.codegen.loops import counted_loop, loop, merge
from lrw_kernels.codegen.machine import ADDRESS, FLOAT
from lrw_kernels.codegen.vector import I64, Vectors

ENTRY = 2 * ADDRESS
UNROLLED = 4  # terms of a run at a time; the tallest blocks have all of them in straight code
HALF = 7  # rows whose addresses are one register plus one, three or five steps, times one, two or four
SMALL = 8  # rows up to which there is code for every height
BETWEEN = 10  # rows of one more height, below the tallest


def heights(most: int) -> tuple[int, ...]:
    """The rows of blocks there is code for, falling, up to `most`."""
    return tuple(sorted({most, *range(1, 1 + min(most, SMALL)), min(most, BETWEEN)}, reverse=True))


@dataclass(frozen=True)
class Block:
    """C [rows, vectors * lanes], of heights up to `rows`; vector j lies j * rows vectors further on."""

    rows: int
    vectors: int

    def places(self, height: int, line: int) -> list[int]:
        """Where the vectors, of `line` bytes, of so many rows lie, by row."""
        return [(i + j * self.rows) * line for i in range(height) for j in range(self.vectors)]


def emit_products(v: Vectors, of: Block, arguments: Sequence[Any]) -> None:
    """C = or += the sum over entries of x times weights, for `height` rows.

    arguments (i64): entries (`records.Box`): so many `runs`, then so many `singles`; x, and from row to row there;
    weights; c; height; add, whether what C holds is added to the sums; ahead, how much further on x is asked for.
    """
    entries, runs, singles, x, x_row, weights, c, height, add, ahead = arguments
    b = v.builder
    after = b.append_basic_block("multiplied")
    rows = _Rows(b, x_row)
    choice = b.switch(height, after)
    for some in heights(of.rows):
        here = b.append_basic_block(f"rows{some}")
        choice.add_case(I64(some), here)
        b.position_at_end(here)
        _store(
            v, of.places(some, v.bytes), _sums(v, of, some, rows, (entries, runs, singles, x, weights, ahead)), c, add
        )
        b.branch(after)
    b.position_at_end(after)


class _Rows:
    """Addresses of rows that lie equally far apart, in the forms processors add up by themselves."""

    def __init__(self, builder: Any, step: Any) -> None:
        self._builder = builder
        self.steps = {odd: builder.mul(step, I64(odd)) for odd in (1, 3, 5, HALF)}

    def __call__(self, height: int, at: Any) -> Iterator[Any]:
        """Those of so many rows from the one at `at` on."""
        assert height <= 2 * HALF
        for i in range(height):
            half = self._builder.add(at, self.steps[HALF]) if i >= HALF else at
            odd, scale = i % HALF, 0
            while odd > 0 and odd % 2 == 0:
                odd, scale = odd // 2, scale + 1
            yield self._builder.add(half, self._builder.shl(self.steps[odd], I64(scale))) if odd else half


def _sums(v: Vectors, of: Block, height: int, rows: _Rows, arguments: Sequence[Any]) -> list[Any]:
    """The sums of a block, by row."""
    entries, runs, singles, x, weights, ahead = arguments
    b, step = v.builder, of.vectors * v.bytes

    def term(k: int, at: Any, by: Any, sums: list[Any]) -> list[Any]:
        columns = [v.load(by, k * step + j * v.bytes) for j in range(of.vectors)]
        factors = (v.splat(v.load_scalar(row, k * FLOAT)) for row in rows(height, at))
        pairs = ((factor, column) for factor in factors for column in columns)
        return [v.fma(factor, column, total) for (factor, column), total in zip(pairs, sums, strict=True)]

    def some(_: Any, carried: list[Any]) -> list[Any]:
        at, by, asked, *sums = carried
        for k in range(UNROLLED):
            v.prefetch(asked)
            asked, sums = b.add(asked, rows.steps[1]), term(k, at, by, sums)
        return [b.add(at, I64(UNROLLED * FLOAT)), b.add(by, I64(UNROLLED * step)), asked, *sums]

    def run(at: Any, by: Any, sums: list[Any]) -> list[Any]:
        asked = b.add(at, ahead)
        if height < of.rows:
            return counted_loop(b, I64(v.lanes // UNROLLED), [at, by, asked, *sums], some)[3:]
        lines = [*rows(min(height, v.lanes), asked)]
        for k in range(v.lanes):
            for line in lines[k : k + 1]:  # one a term: many at once would keep those waiting that are needed now
                v.prefetch(line)
            sums = term(k, at, by, sums)
        return sums

    def single(at: Any, by: Any, sums: list[Any]) -> list[Any]:
        return term(0, at, by, sums)

    state = [entries, *[v.constant(0.0)] * (height * of.vectors)]
    for count, body in ((runs, run), (singles, single)):

        def entry(_: Any, carried: list[Any], body: Any = body) -> list[Any]:
            at, *sums = carried
            by = b.add(weights, b.mul(v.load_integer(at, ADDRESS), I64(step)))
            return [b.add(at, I64(ENTRY)), *body(b.add(x, v.load_integer(at)), by, sums)]

        state = loop(b, count, state, entry)
    return state[1:]


def _store(v: Vectors, places: Sequence[int], totals: Sequence[Any], c: Any, add: Any) -> None:
    b, before = v.builder, v.builder.block
    with b.if_then(b.icmp_signed("!=", add, I64(0))):
        sums = [v.add(total, v.load(c, place)) for place, total in zip(places, totals, strict=True)]
        adding = b.block
    for place, total in zip(places, merge(b, [(totals, before), (sums, adding)]), strict=True):
        v.store(total, c, place)
