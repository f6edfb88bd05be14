"""The transform of one tile and one vector of channels in vector code: two axes in registers, the third through L1.

A gather loads a column of the patch (all of depth and height at one w), transforms depth and height, and leaves the
column in scratch; then every line along w is transformed and its positions stored. A scatter is the mirror image.
Source of the order: both stages touch memory once, and t_d * t_h values is what registers (nearly) hold.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lrw_kernels.codegen.loops import counted_loop, merge
from lrw_kernels.codegen.machine import ADDRESS
from lrw_kernels.codegen.vector import I64, Vectors
from lrw_kernels.cpu.functions import followed
from lrw_kernels.cpu.winograd.line import apply
from lrw_kernels.cpu.winograd.recipe import REACH, Recipe


def emit_columns(v: Vectors, p: Recipe, arguments: Sequence[Any]) -> None:
    """First stage of a gather: depth and height of columns start..stop, into their places in scratch, a ring.

    arguments (i64): rows, address of the patches' row addresses [n_d * n_h]; pitch, bytes from column to column; at,
    bytes from a row's start to the vector; first and last, the columns inside the activations (others are zero);
    start; stop; scratch; constants, the address of the recipe's.
    """
    rows, pitch, at, first, last, start, stop, scratch, constants = arguments
    b = v.builder
    v.read_constants(p.constants, constants)

    def column(i: Any, _: list[Any]) -> list[Any]:
        w = b.add(start, i)
        to = b.add(scratch, b.mul(b.and_(w, I64(p.slots - 1)), I64(p.lines * v.bytes)))
        inside = b.and_(b.icmp_signed(">=", w, first), b.icmp_signed("<", w, last))
        with b.if_else(inside) as (load, clear):
            with load:
                _emit_column(v, p, rows, b.add(at, b.mul(w, pitch)), pitch, to)
            with clear:
                for line in range(p.lines):
                    v.store(v.constant(0.0), to, line * v.bytes)
        return []

    counted_loop(b, b.sub(stop, start), [], column)


def _emit_column(v: Vectors, p: Recipe, rows: Any, at: Any, pitch: Any, to: Any) -> None:
    """Depth, then height of one column."""
    b, (n_d, n_h, _) = v.builder, p.inputs
    m_d, m_h, _ = p.matrices
    needed = [any(line) for line in p.needed()]
    h_positions = len(m_h)

    columns = []
    wanted_d = [any(needed[i * h_positions : (i + 1) * h_positions]) for i in range(len(m_d))]
    for h in range(n_h):
        loads = [v.load(b.add(v.load_integer(rows, (d * n_h + h) * ADDRESS), at), 0, p.kind) for d in range(n_d)]
        columns.append(apply(m_d, loads, wanted_d, v))
    for i in range(len(m_d)):
        wanted = needed[i * h_positions : (i + 1) * h_positions]
        for j, value in enumerate(apply(m_h, [column[i] for column in columns], wanted, v)):
            if wanted[j]:
                v.store(_or_zero(v, value), to, (i * h_positions + j) * v.bytes)


def emit_lines(v: Vectors, p: Recipe, arguments: Sequence[Any]) -> None:
    """Second stage of a gather: positions at domain + table[place] of the patch that begins at column `start`.

    Meanwhile the columns that the next tile of a row adds are asked for, some with each line: what stores wait for is
    not what loads wait for.

    arguments (i64): start; domain; table, address of the positions' offsets; scratch; constants; rows and pitch as for
    `emit_columns`; ahead, bytes from a row's start to the first of those columns.
    """
    start, domain, table, scratch, constants, rows, pitch, ahead = arguments
    b, positions, patch_rows = v.builder, p.outputs[2], p.patch[0] * p.patch[1]
    v.read_constants(p.constants, constants)
    column, place = p.lines * v.bytes, _place(v, p, domain, table)
    places = [b.mul(b.and_(b.add(start, I64(w)), I64(p.slots - 1)), I64(column)) for w in range(p.inputs[2])]

    def line(base: Any, offset: int, offsets: Any, wanted: Sequence[bool], numbers: Sequence[int]) -> None:
        loads = [v.load(b.add(base, place), offset) for place in places]
        # All addresses before any store, which might change them for all a compiler knows.
        there = [i for i in range(positions) if wanted[i]]
        targets = [place(offsets, numbers[i]) for i in there]
        values = apply(p.matrices[2], loads, wanted, v)
        for i, to in zip(there, targets, strict=True):
            v.store(_or_zero(v, values[i]), *to)

    def ask(line: Any) -> None:
        row = b.udiv(b.mul(line, I64(patch_rows)), I64(p.lines))
        there = b.add(v.load_integer(b.add(rows, b.mul(row, I64(ADDRESS)))), ahead)
        for i in range(p.step):
            v.prefetch(b.add(there, b.mul(pitch, I64(i))))

    def any_line(i: Any, _: list[Any]) -> list[Any]:
        if p.prefetch:
            ask(i)
        offsets = b.add(table, b.mul(i, I64(positions * ADDRESS)))
        line(b.add(scratch, b.mul(i, I64(v.bytes))), 0, offsets, [True] * positions, range(positions))
        return []

    if p.looped:
        counted_loop(b, I64(p.lines), [], any_line)
        return
    index = p.places
    for i, wanted in enumerate(p.needed()):
        if p.prefetch:
            ask(I64(i))
        if any(wanted):
            line(scratch, i * v.bytes, table, wanted, [index.get(i * positions + j, -1) for j in range(positions)])


def _place(v: Vectors, p: Recipe, domain: Any, table: Any) -> Callable[[Any, int], tuple[Any, int]]:
    """place(offsets, n): address and offset of the n-th position at `domain`, `offsets` being where its line's begin in
    the table."""
    b = v.builder
    if p.plane == 0:
        return lambda offsets, n: (b.add(domain, v.load_integer(offsets, n * ADDRESS)), 0)
    bases = [b.add(domain, v.load_integer(table, i * ADDRESS)) for i in range(p.reaches)]
    return lambda _, n: (bases[n * p.plane // REACH], n * p.plane % REACH)


def emit_scatter(v: Vectors, p: Recipe, arguments: Sequence[Any]) -> None:
    """Both stages of a scatter: patch = (M_d x M_h x M_w) positions, plus bias and residual; then a function.

    arguments (i64): domain; table; rows, pitch, at, first, last as for `emit_columns`, of the patch written; bias, the
    address of a vector; residual, the address of row addresses like `rows`, or 0; after and parameters as in
    `functions.followed`; scratch; constants.
    """
    domain, table, rows, pitch, at, first, last, bias, residual, after, parameters, scratch, constants = arguments
    b, m_w = v.builder, p.outputs[2]
    v.read_constants(p.constants, constants)
    if p.looped:
        counted_loop(b, I64(p.lines), [], lambda line, _: _scatter_any_line(v, p, line, domain, table, scratch))
    else:
        places, positions, place = p.places, p.inputs[2], _place(v, p, domain, table)
        for line, there in enumerate(p.needed()):
            if any(there):
                numbers = [places.get(line * positions + i) for i in range(positions)]
                loads = [None if n is None else v.load(*place(table, n)) for n in numbers]
                _store_line(v, p, apply(p.matrices[2], loads, [True] * m_w, v), scratch, line * v.bytes)
    wide, _ = v.widened(p.kind, [])
    added = wide.load(bias)

    def column(i: Any, _: list[Any]) -> list[Any]:
        w = b.add(first, i)
        values = _scatter_column(v, p, b.add(scratch, b.mul(w, I64(p.lines * v.bytes))))
        shift = b.add(at, b.mul(w, pitch))
        addresses = [b.add(v.load_integer(rows, i * ADDRESS), shift) for i in range(len(values))]
        if p.prefetch and not p.streamed:  # a store waits for its line to be read: ask for those of the next tile
            ahead = b.mul(pitch, I64(p.step))
            for to in addresses:
                v.prefetch(b.add(to, ahead))
        _finish(v, p, values, addresses, shift, added, residual, (after, parameters))
        return []

    counted_loop(b, b.sub(last, first), [], column)


def _scatter_any_line(v: Vectors, p: Recipe, line: Any, domain: Any, table: Any, scratch: Any) -> list[Any]:
    b, positions, m_w = v.builder, p.inputs[2], p.outputs[2]
    offsets = b.add(table, b.mul(line, I64(positions * ADDRESS)))
    loads = [v.load(b.add(domain, v.load_integer(offsets, i * ADDRESS))) for i in range(positions)]
    to = b.add(scratch, b.mul(line, I64(v.bytes)))
    _store_line(v, p, apply(p.matrices[2], loads, [True] * m_w, v), to, 0)
    return []


def _store_line(v: Vectors, p: Recipe, values: Sequence[Any], to: Any, offset: int) -> None:
    for w, value in enumerate(values):
        v.store(_or_zero(v, value), to, offset + w * p.lines * v.bytes)


def _scatter_column(v: Vectors, p: Recipe, start: Any) -> list[Any]:
    """[n_d * n_h] values of one column: height inside, depth first."""
    m_d, m_h, _ = p.matrices
    t_d, t_h, _ = p.inputs
    there = [any(line) for line in p.needed()]
    columns = []
    for h in range(t_h):
        lines = [d * t_h + h for d in range(t_d)]
        loads = [v.load(start, line * v.bytes) if there[line] else None for line in lines]
        columns.append(apply(m_d, loads, [True] * len(m_d), v))
    return [
        _or_zero(v, value)
        for i in range(len(m_d))
        for value in apply(m_h, [column[i] for column in columns], [True] * len(m_h), v)
    ]


def _finish(
    v: Vectors, p: Recipe, values: list[Any], addresses: list[Any], shift: Any, bias: Any, residual: Any,
    function: tuple[Any, Any],
) -> None:  # fmt: skip
    if p.accumulate:
        values = [v.add(v.load(to, 0, p.kind), value) for to, value in zip(addresses, values, strict=True)]
    else:
        v, values = v.widened(p.kind, values)
        values = [v.add(value, bias) for value in values]
        values = _add_residual(v, p, values, residual, shift)
        values = followed(v, p.function, values, *function)
    for to, value in zip(addresses, values, strict=True):
        v.store(value, to, 0, p.kind, streamed=p.streamed)


def _add_residual(v: Vectors, p: Recipe, values: list[Any], residual: Any, shift: Any) -> list[Any]:
    b = v.builder
    before = b.block
    with b.if_then(b.icmp_signed("!=", residual, I64(0))):
        addresses = [b.add(v.load_integer(residual, i * ADDRESS), shift) for i in range(len(values))]
        sums = [v.add(value, v.load(at, 0, p.kind)) for at, value in zip(addresses, values, strict=True)]
        adding = b.block
    return merge(b, [(values, before), (sums, adding)])


def _or_zero(v: Vectors, value: Any) -> Any:
    return v.constant(0.0) if value is None else value
