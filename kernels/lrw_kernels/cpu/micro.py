"""The micro-kernel: rows x vectors accumulators in registers, one pass along the sum."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from lrw_kernels.codegen.loops import counted_loop, merge, repeated
from lrw_kernels.codegen.machine import BYTES, LINE, Machine
from lrw_kernels.codegen.vector import I64, Vectors

# Channels summed at a stretch, a multiple of every run. 512 in one go double the error of 256 (1.2e-5 in F(4,3)^3).
CHUNK = 256
UNROLLED = 16  # terms of the sum by element at a time


@dataclass(frozen=True)
class Micro:
    """C [rows, vectors * lanes] = or += sum_k A[i, k] B[k, :]; strides in bytes.

    `rows` are the heights there is code for, falling. k goes in runs of at most `run` terms: inside a run A moves by
    `a_step` and B by `b_step` per k, from run to run both jump by amounts known at run time. Row i of A lies
    i * `a_row` further on, vector j of B and of C j * `b_vector` and j * `c_vector`. `by_element`: a row's numbers of
    a whole run are one vector of A. `jumps` of A and B from run to run and `c_row` from row to row of C where they are
    the same in all calls. `ahead`: cache lines that are asked for in each term of the tallest height's whole runs,
    see `emit_micro`; none `by_element`.
    """

    element: str
    lanes: int
    rows: tuple[int, ...]
    vectors: int
    run: int
    a_row: int
    a_step: int
    b_step: int
    b_vector: int
    c_vector: int
    by_element: bool = False
    jumps: tuple[int, int] | None = None
    c_row: int = 0
    ahead: int = 0

    @property
    def text(self) -> str:
        """One line; `parse` reads it back."""
        return json.dumps(asdict(self))

    @staticmethod
    @lru_cache(maxsize=256)
    def parse(text: str) -> "Micro":
        """The micro-kernel whose `text` this is."""
        fields = json.loads(text)
        jumps = fields["jumps"] and tuple(fields["jumps"])
        return Micro(**{**fields, "rows": tuple(fields["rows"]), "jumps": jumps})


def forward_micro(machine: Machine, element: str, vectors: int, *, alone: bool = False) -> Micro:
    """M = V U: A is V, channels of one vector then vectors of a panel; B packed weights; C is M, laid out as V.

    Weights are asked for while others are in use: in each term a line of what comes next, or, where tiles are `alone`,
    a single panel that meets these weights once, as many as a term takes.
    """
    lanes, size = machine.lanes(element), BYTES[element]
    line = lanes * size
    rows = _falling(machine.rows)
    panel, jumps = machine.rows * line, (machine.rows * line, lanes * vectors * line)
    of_b = (vectors * line, line, panel)
    of_a = (lanes, line, size)
    ahead = (max(1, vectors * line // LINE) if alone else 1) if machine.prefetch else 0
    return Micro(element, lanes, rows, vectors, *of_a, *of_b, machine.by_element, jumps, c_row=line, ahead=ahead)


def patch_micro(machine: Machine, vectors: int, *, alone: bool = False) -> Micro:
    """The same with the chunks of patches as A: each row is contiguous, `patch_row` apart."""
    like = forward_micro(machine, "float32", vectors, alone=alone)
    line = machine.vector_bytes
    return replace(like, a_row=patch_row(machine), jumps=(line, like.lanes * vectors * line))


def patch_row(machine: Machine) -> int:
    """Bytes from patch to patch: a chunk, and a vector into which the last piece may run over."""
    return CHUNK * BYTES["float32"] + machine.vector_bytes


def weight_grad_micro(machine: Machine, element: str, vectors: int) -> Micro:
    """dU += V^T dM: A is V with channels as rows and tiles along the sum, B is dM; C row-major."""
    lanes, size = machine.lanes(element), BYTES[element]
    line = lanes * size
    rows = (min(8, lanes),)
    panel = machine.rows * line
    return Micro(element, lanes, rows, vectors, machine.rows, size, line, line, panel, line)


def _falling(rows: int) -> tuple[int, ...]:
    """A whole panel, then powers of two, so that every tail takes few."""
    return (rows, *(1 << i for i in reversed(range(rows.bit_length())) if 1 << i < rows))


def emit_micro(v: Vectors, m: Micro, arguments: Sequence[Any]) -> Any:
    """One block of the tallest height that `left` rows hold; returns that height.

    arguments (i64): a, b, c; left; terms, the length of the sum; a_jump and b_jump per run; c_row, from row to row;
    add, whether what C holds is added to the sums (sums of their own, added late, round less than one long sum); ahead,
    the address of the lines that are asked for.
    """
    a, b, c, left, *rest = arguments
    builder = v.builder
    after = builder.append_basic_block("multiplied")
    heights = [(left, builder.block)]
    for height in m.rows:
        this, lower = builder.append_basic_block(f"rows{height}"), builder.append_basic_block("lower")
        builder.cbranch(builder.icmp_signed(">=", left, I64(height)), this, lower)
        builder.position_at_end(this)
        _emit_block(v, m, height, a, b, c, *rest)
        heights.append((I64(height), builder.block))
        builder.branch(after)
        builder.position_at_end(lower)
        heights[0] = (left, lower)
    builder.branch(after)
    builder.position_at_end(after)
    return merge(builder, [([value], block) for value, block in heights])[0]


def _emit_block(v: Vectors, m: Micro, rows: int, a: Any, b: Any, c: Any, *rest: Any) -> None:
    terms, a_jump, b_jump, c_row, add, ahead = rest
    builder = v.builder
    if m.jumps is not None:
        (a_jump, b_jump), targets = map(I64, m.jumps), [(c, i * m.c_row) for i in range(rows)]
    else:
        targets = [(builder.add(c, builder.mul(c_row, I64(i))), 0) for i in range(rows)]
    places = [(to, offset + j * m.c_vector) for to, offset in targets for j in range(m.vectors)]
    zeros = [v.constant(0.0)] * len(places)
    runs, left = builder.udiv(terms, I64(m.run)), builder.urem(terms, I64(m.run))
    if m.by_element and m.jumps is not None:
        a_rest, b_rest, *totals = _runs_by_element(v, m, rows, runs, a, b, zeros)
    else:
        a_rest, b_rest, *totals = _runs(v, m, rows, runs, a, b, zeros, (a_jump, b_jump), ahead)
    before = builder.block
    with builder.if_then(builder.icmp_signed("!=", left, I64(0))):
        parts = _looped(v, m, rows, a_rest, b_rest, left, totals)
        parted = builder.block
    totals, before = merge(builder, [(totals, before), (parts, parted)]), builder.block
    with builder.if_then(builder.icmp_signed("!=", add, I64(0))):
        sums = [v.add(total, v.load(*place)) for place, total in zip(places, totals, strict=True)]
        adding = builder.block
    for place, total in zip(places, merge(builder, [(totals, before), (sums, adding)]), strict=True):
        v.store(total, *place)


def _runs(
    v: Vectors, m: Micro, rows: int, runs: Any, a: Any, b: Any, sums: list[Any], jumps: tuple[Any, Any], ahead: Any
) -> list[Any]:
    """[a, b, *sums] behind all whole runs."""
    builder, before = v.builder, v.builder.block
    fetched = [ahead] if m.ahead else []

    def run(carried: list[Any]) -> list[Any]:
        a, b, *rest = carried
        moved, sums = rest[: len(fetched)], rest[len(fetched) :]
        if rows == m.rows[0]:
            totals = _straight(v, m, rows, a, b, sums, *moved)
        else:
            totals = _looped(v, m, rows, a, b, I64(m.run), sums)
        moved = [builder.add(to, I64(m.run * m.ahead * LINE)) for to in moved]
        return [builder.add(a, jumps[0]), builder.add(b, jumps[1]), *moved, *totals]

    with builder.if_then(builder.icmp_signed("!=", runs, I64(0))):
        done = repeated(builder, runs, [a, b, *fetched, *sums], run)
        after = builder.block
    return merge(builder, [([a, b, *sums], before), ([*done[:2], *done[2 + len(fetched) :]], after)])


def _runs_by_element(v: Vectors, m: Micro, rows: int, runs: Any, a: Any, b: Any, sums: list[Any]) -> list[Any]:
    """The same, several runs at a time where there are so many: the first of those begin the sums without zeros."""
    builder, unrolled = v.builder, UNROLLED // m.run

    def stretch(count: int, carried: list[Any], *, begin: bool = False) -> list[Any]:
        a, b, *sums = carried
        a_jump, b_jump = m.jumps or (0, 0)
        totals: list[Any] | None = None if begin else sums
        for i in range(count):
            totals = _by_element(v, m, rows, builder.add(a, I64(i * a_jump)), builder.add(b, I64(i * b_jump)), totals)
        return [builder.add(a, I64(count * a_jump)), builder.add(b, I64(count * b_jump)), *(totals or sums)]

    state = [a, b, *sums]
    if rows > 1:  # a single row is as fast as its weights come
        many, before = builder.udiv(runs, I64(unrolled)), builder.block
        with builder.if_then(builder.icmp_signed("!=", many, I64(0))):
            begun = stretch(unrolled, state, begin=True)
            begin, fewer = builder.block, builder.sub(many, I64(1))
            with builder.if_then(builder.icmp_signed("!=", fewer, I64(0))):
                done = repeated(builder, fewer, begun, lambda carried: stretch(unrolled, carried))
                end = builder.block
            begun, begin = merge(builder, [(begun, begin), (done, end)]), builder.block
        state = merge(builder, [(state, before), (begun, begin)])
        runs = builder.urem(runs, I64(unrolled))
    before = builder.block
    with builder.if_then(builder.icmp_signed("!=", runs, I64(0))):
        done = repeated(builder, runs, state, lambda carried: stretch(1, carried))
        end = builder.block
    return merge(builder, [(state, before), (done, end)])


def _by_element(v: Vectors, m: Micro, rows: int, a: Any, b: Any, sums: list[Any] | None) -> list[Any]:
    """A run with a vector of A a row."""
    whole = [v.load(a, i * m.a_row) for i in range(rows)]
    for k in range(m.run):
        sums = _step(v, m, [v.splat_element(row, k) for row in whole], v.builder.add(b, I64(k * m.b_step)), sums)
    return sums or []


def _straight(v: Vectors, m: Micro, rows: int, a: Any, b: Any, sums: list[Any], *ahead: Any) -> list[Any]:
    """A whole run without a loop, because the end of a short loop is what branch predictors get wrong. Lines `ahead`
    are asked for term by term: many at once would keep those waiting that are needed now."""
    for k in range(m.run):
        for to in ahead:
            for line in range(m.ahead):
                v.prefetch(to, (k * m.ahead + line) * LINE)
        factors = _factors(v, m, rows, v.builder.add(a, I64(k * m.a_step)))
        sums = _step(v, m, factors, v.builder.add(b, I64(k * m.b_step)), sums)
    return sums


def _factors(v: Vectors, m: Micro, rows: int, a: Any) -> Iterator[Any]:
    """A column of A, each number in a vector of its own when its turn has come: registers do not hold all at once."""
    return (v.splat(v.load_scalar(a, i * m.a_row)) for i in range(rows))


def _looped(v: Vectors, m: Micro, rows: int, a: Any, b: Any, length: Any, sums: list[Any]) -> list[Any]:
    builder = v.builder

    def step(k: Any, carried: list[Any]) -> list[Any]:
        a_k, b_k = (builder.add(at, builder.mul(k, I64(by))) for at, by in ((a, m.a_step), (b, m.b_step)))
        return _step(v, m, _factors(v, m, rows, a_k), b_k, carried)

    return counted_loop(builder, length, sums, step)


def _step(v: Vectors, m: Micro, factors: Iterable[Any], b: Any, sums: list[Any] | None) -> list[Any]:
    columns = [v.load(b, j * m.b_vector) for j in range(m.vectors)]
    pairs = ((factor, column) for factor in factors for column in columns)
    if sums is None:
        return [v.builder.fmul(factor, column) for factor, column in pairs]
    return [v.fma(factor, column, total) for (factor, column), total in zip(pairs, sums, strict=True)]


PEAK_STEPS = 4096


def emit_peak(v: Vectors, m: Micro, arguments: Sequence[Any]) -> None:
    """PEAK_STEPS times one fma per accumulator, on constants; the sums are stored so that they are formed."""
    (to,) = arguments
    factor, count = v.load(to), m.rows[0] * m.vectors
    step = [v.load(to, i * v.bytes) for i in range(count)]
    sums = counted_loop(v.builder, I64(PEAK_STEPS), step, lambda _, s: [v.fma(factor, factor, x) for x in s])
    for i, total in enumerate(sums):
        v.store(total, to, i * v.bytes)
