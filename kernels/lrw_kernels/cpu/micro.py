"""The micro-kernel: rows x vectors accumulators in registers, one pass along the sum."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from lrw_kernels.cpu.machine import LINE, Machine
from lrw_kernels.cpu.vector import BYTES, I64, Vectors, counted_loop, merge

# Channels summed at a stretch, a multiple of every run. 512 in one go double the error of 256 (1.2e-5 in F(4,3)^3).
CHUNK = 256


@dataclass(frozen=True)
class Micro:
    """C [rows, vectors * lanes] = or += sum_k A[i, k] B[k, :]; strides in bytes.

    `rows` are the heights there is code for, falling. k goes in runs of at most `run` steps: inside a run A moves by
    `a_step` and B by `b_step` per k, from run to run both jump by amounts known at run time. Row i of A lies
    i * `a_row` further on, vector j of B and of C j * `b_vector` and j * `c_vector`.
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

    @property
    def text(self) -> str:
        """One line; `parse` reads it back."""
        return json.dumps(asdict(self))

    @staticmethod
    @lru_cache(maxsize=256)
    def parse(text: str) -> "Micro":
        """The micro-kernel whose `text` this is."""
        fields = json.loads(text)
        return Micro(**{**fields, "rows": tuple(fields["rows"])})


def forward_micro(machine: Machine, element: str, vectors: int) -> Micro:
    """M = V U: A is V, channels of one vector then vectors of a panel; B packed weights; C is M, laid out as V."""
    lanes, size = machine.lanes(element), BYTES[element]
    line = lanes * size
    rows = _falling(machine.rows)
    return Micro(element, lanes, rows, vectors, lanes, line, size, vectors * line, line, machine.rows * line)


def weight_grad_micro(machine: Machine, element: str, vectors: int) -> Micro:
    """dU += V^T dM: A is V with channels as rows and tiles along the sum, B is dM; C row-major."""
    lanes, size = machine.lanes(element), BYTES[element]
    line = lanes * size
    rows = (min(8, lanes),)
    return Micro(element, lanes, rows, vectors, machine.rows, size, line, line, machine.rows * line, line)


def _falling(rows: int) -> tuple[int, ...]:
    """A whole panel, then powers of two, so that every tail is a few steps."""
    return (rows, *(1 << i for i in reversed(range(rows.bit_length())) if 1 << i < rows))


def emit_micro(v: Vectors, m: Micro, arguments: Sequence[Any]) -> Any:
    """One block of the tallest height that `left` rows hold; returns that height.

    arguments (i64): a, b, c; left; steps, the length of the sum; a_jump and b_jump per run; c_row, from row to row;
    add, whether what C holds is added to the sums (sums of their own, added late, round less than one long sum); ahead,
    where to prefetch, a cache line per step, or 0.
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
    steps, a_jump, b_jump, c_row, add, ahead = rest
    builder = v.builder
    targets = [
        (builder.add(c, builder.mul(c_row, I64(i))), j * m.c_vector) for i in range(rows) for j in range(m.vectors)
    ]
    start = [v.constant(0.0)] * len(targets)

    def run(_: Any, carried: list[Any]) -> list[Any]:
        a_run, b_run, left, fetched, *sums = carried
        whole, part, joined = (builder.append_basic_block(name) for name in ("whole", "part", "joined"))
        builder.cbranch(builder.icmp_signed(">=", left, I64(m.run)), whole, part)
        ends = []
        for block, length in ((whole, m.run), (part, left)):
            builder.position_at_end(block)
            straight = block is whole and rows == m.rows[0]
            if straight:
                with builder.if_then(builder.icmp_signed("!=", ahead, I64(0))):
                    for k in range(m.run):
                        v.prefetch(builder.add(fetched, I64(k * LINE)))
                totals = _straight(v, m, rows, a_run, b_run, sums)
            else:
                totals = _looped(v, m, rows, a_run, b_run, length, sums)
            ends.append((totals, builder.block))
            builder.branch(joined)
        builder.position_at_end(joined)
        totals = merge(builder, ends)
        moved = [builder.add(at, jump) for at, jump in ((a_run, a_jump), (b_run, b_jump))]
        return [*moved, builder.sub(left, I64(m.run)), builder.add(fetched, I64(m.run * LINE)), *totals]

    runs = builder.udiv(builder.add(steps, I64(m.run - 1)), I64(m.run))
    totals = counted_loop(builder, runs, [a, b, steps, ahead, *start], run)[4:]
    before = builder.block
    with builder.if_then(builder.icmp_signed("!=", add, I64(0))):
        sums = [v.add(total, v.load(*target)) for target, total in zip(targets, totals, strict=True)]
        adding = builder.block
    for target, total in zip(targets, merge(builder, [(totals, before), (sums, adding)]), strict=True):
        v.store(total, *target)


def _straight(v: Vectors, m: Micro, rows: int, a: Any, b: Any, sums: list[Any]) -> list[Any]:
    """A whole run without a loop, because the end of a short loop is what branch predictors get wrong."""
    for k in range(m.run):
        sums = _step(v, m, rows, v.builder.add(a, I64(k * m.a_step)), v.builder.add(b, I64(k * m.b_step)), sums)
    return sums


def _looped(v: Vectors, m: Micro, rows: int, a: Any, b: Any, length: Any, sums: list[Any]) -> list[Any]:
    builder = v.builder

    def step(k: Any, carried: list[Any]) -> list[Any]:
        a_k, b_k = (builder.add(at, builder.mul(k, I64(by))) for at, by in ((a, m.a_step), (b, m.b_step)))
        return _step(v, m, rows, a_k, b_k, carried)

    return counted_loop(builder, I64(length) if isinstance(length, int) else length, sums, step)


def _step(v: Vectors, m: Micro, rows: int, a: Any, b: Any, sums: list[Any]) -> list[Any]:
    columns = [v.load(b, j * m.b_vector) for j in range(m.vectors)]
    new = []
    for i in range(rows):
        factor = v.splat(v.load_scalar(a, i * m.a_row))
        new += [v.fma(factor, column, sums[i * m.vectors + j]) for j, column in enumerate(columns)]
    return new


PEAK_STEPS = 4096


def emit_peak(v: Vectors, m: Micro, arguments: Sequence[Any]) -> None:
    """PEAK_STEPS times one fma per accumulator, on constants; the sums are stored so that they are formed."""
    (to,) = arguments
    factor, count = v.load(to), m.rows[0] * m.vectors
    step = [v.load(to, i * v.bytes) for i in range(count)]
    sums = counted_loop(v.builder, I64(PEAK_STEPS), step, lambda _, s: [v.fma(factor, factor, x) for x in s])
    for i, total in enumerate(sums):
        v.store(total, to, i * v.bytes)
